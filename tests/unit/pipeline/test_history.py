"""Pages of history: what is hidden from a user is read over, and a page ends before it is too large."""

from __future__ import annotations

import pytest

from aibos_realtime.auth.user import User
from aibos_realtime.backends.base import Audience, Draft
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.pipeline import history as module
from aibos_realtime.pipeline.filters import Filters
from aibos_realtime.pipeline.history import read_visible
from aibos_realtime.protocol.messages import HistoryRequest, Position

ANN = User("ann")


@pytest.fixture
async def broker() -> MemoryBroker:
    """A room with 200 events, of which every tenth is for Ann."""
    broker = MemoryBroker()
    for number in range(1, 201):
        audience = None if number % 10 == 0 else Audience(users=frozenset({"bob"}))
        await broker.publish(Draft("a", "note", b"%d" % number, str(number), audience=audience))
    return broker


async def page(broker: MemoryBroker, **request: object) -> tuple[list[int], bool]:
    _, events, more = await read_visible(broker, Filters(), HistoryRequest("a", **request), ANN)  # type: ignore[arg-type]
    return [event.offset for event in events], more


async def test_what_is_hidden_is_read_over(broker: MemoryBroker) -> None:
    epoch = (await broker.position("a")).epoch
    assert await page(broker, limit=3) == ([180, 190, 200], True)
    assert await page(broker, limit=3, before=Position(epoch, 180)) == ([150, 160, 170], True)
    assert await page(broker, limit=3, after=Position(epoch, 0)) == ([10, 20, 30], True)
    assert await page(broker, limit=30) == (list(range(10, 201, 10)), False)


async def test_a_page_is_bounded_in_bytes(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY_BYTES", 7)
    epoch = (await broker.position("a")).epoch
    assert await page(broker, limit=10) == ([190, 200], True)
    assert await page(broker, limit=10, after=Position(epoch, 0)) == ([10, 20, 30], True)
    monkeypatch.setattr(module, "HISTORY_BYTES", 1)
    assert await page(broker, limit=10) == ([200], True), "one at least"
