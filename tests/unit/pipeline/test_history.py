"""Pages of history as a user may see them, over a log in memory; what a client is answered is in tests/contracts."""

from __future__ import annotations

from aibos_realtime import Position, User
from aibos_realtime.backends.base import Audience, Draft
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.pipeline import history
from aibos_realtime.pipeline.filters import Filters
from aibos_realtime.pipeline.history import HISTORY_BYTES, PAGE, read_visible
from aibos_realtime.protocol.messages import HistoryRequest

ANN = User(id="ann")
FOR_OTHERS = Audience(users=frozenset({"bob"}))


async def fill(count: int, *, visible: set[int], data: bytes = b"1") -> tuple[MemoryBroker, Position]:
    """A room with `count` events, and where it begins; only those at the `visible` offsets are for ann."""
    broker = MemoryBroker()
    begin = await broker.position("lobby")
    for offset in range(1, count + 1):
        await broker.publish(Draft("lobby", "note", data, f"id{offset}", audience=None if offset in visible else FOR_OTHERS))
    return broker, begin


async def test_hidden_events_are_read_over_until_the_page_is_full() -> None:
    visible = {1, 2, 3 * PAGE - 1, 3 * PAGE}
    broker, begin = await fill(3 * PAGE, visible=visible)
    _, found, more = await read_visible(broker, Filters(), HistoryRequest("lobby", limit=3), ANN)
    assert [event.offset for event in found] == [2, 3 * PAGE - 1, 3 * PAGE] and more
    _, found, more = await read_visible(broker, Filters(), HistoryRequest("lobby", limit=10, after=begin), ANN)
    assert {event.offset for event in found} == visible and not more


async def test_a_page_ends_before_it_is_too_large_but_never_without_an_event() -> None:
    data = b'"' + b"x" * (HISTORY_BYTES // 2) + b'"'
    broker, begin = await fill(3, visible={1, 2, 3}, data=data)
    _, newest, more = await read_visible(broker, Filters(), HistoryRequest("lobby", limit=3), ANN)
    assert [event.offset for event in newest] == [3] and more
    _, oldest, more = await read_visible(broker, Filters(), HistoryRequest("lobby", limit=3, after=begin), ANN)
    assert [event.offset for event in oldest] == [1] and more
    assert history.HISTORY_LIMIT == 300
