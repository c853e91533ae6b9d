"""What every broker promises (`backends.base.Broker`), against each of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibos_realtime import IdempotencyConflict, Position, UnrecoverablePosition
from aibos_realtime.backends.base import Audience, Broker, Draft
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.storage.split_broker import SplitBroker
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.store import MemoryStore
from tests.contracts.broker_rigs import IN_MEMORY, Bench, rig_in_memory, rig_redis, rig_stored, running
from tests.servers.redis import PROGRAMS
from tests.servers.redis_sets import KINDS

STORES = ["sqlite", "postgresql"]
SHARED = [*KINDS, *(f"{kind}+{store}" for kind in KINDS if kind.endswith(next(iter(PROGRAMS))) for store in STORES)]


@pytest.fixture(params=[*IN_MEMORY, *STORES, *SHARED])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    kind, _, store = request.param.partition("+")
    database = f"sqlite:///{tmp_path / 'log.db'}"
    if "postgresql" in (kind, store):
        database = request.getfixturevalue("postgres_url")
    if request.param in IN_MEMORY:
        rig = rig_in_memory(request.param)
    elif kind in STORES:
        rig = rig_stored(database)
    else:
        rig = rig_redis(request.getfixturevalue("redis_urls")(kind), request.getfixturevalue("redis_prefix"), database if store else None)
    async with rig as bench:
        yield bench


_ids = itertools.count()


def draft(room: str = "lobby", data: bytes = b"1", **more: Any) -> Draft:
    return Draft(room, more.pop("event", "note"), data, more.pop("id", f"id{next(_ids)}"), **more)


async def publish(bench: Bench, times: int, room: str = "lobby", **more: Any) -> list[Position]:
    """Publish one after the other; return when all are delivered, and stored."""
    await bench.watch(room)
    positions = [(await bench.broker.publish(draft(room, **more))).position for _ in range(times)]
    await bench.until_delivered(*positions)
    await bench.until_stored()
    return [position for position in positions if position is not None]


async def test_offsets_count_from_one_in_each_room(bench: Bench) -> None:
    before = await bench.broker.position("lobby")
    assert before.offset == 0
    positions = await publish(bench, 3)
    other = await publish(bench, 1, "other")
    assert [position.offset for position in positions] == [1, 2, 3] and [position.offset for position in other] == [1]
    assert {position.epoch for position in positions} == {before.epoch}, "the epoch that was told holds for the first event"
    assert await bench.broker.position("lobby") == positions[-1]


async def test_every_event_is_handed_on_once_and_in_order_with_all_that_it_carries(bench: Bench) -> None:
    audience = Audience(where={"role": "admin"}, exclude=frozenset({"eve"}))
    await bench.watch("lobby")
    receipt = await bench.broker.publish(draft(data=b'{"a":1}', id="x", user_id="ann", audience=audience))
    await publish(bench, 2)
    assert [event.offset for event in bench.delivered] == [1, 2, 3]
    event = bench.delivered[0]
    assert (event.room, event.event, event.data, event.id, event.user_id, event.audience) == (
        "lobby",
        "note",
        b'{"a":1}',
        "x",
        "ann",
        audience,
    )
    assert Position(event.epoch, event.offset) == receipt.position and not receipt.duplicate and receipt.id == "x"
    assert event.timestamp == 1_700_000_000_000
    assert (await bench.broker.read_before("lobby", None, 10)).events == bench.delivered


async def test_concurrent_publishers_get_different_offsets_without_a_hole(bench: Bench) -> None:
    receipts = await asyncio.gather(*(bench.broker.publish(draft()) for _ in range(50)))
    assert sorted(receipt.position.offset for receipt in receipts if receipt.position) == list(range(1, 51))


# — the same id again —


async def test_an_id_is_published_once(bench: Bench) -> None:
    await bench.watch("lobby")
    first = await bench.broker.publish(draft(id="x", keyed=True, user_id="ann"))
    await publish(bench, 1)
    again = await bench.broker.publish(draft(id="x", keyed=True, user_id="ann"))
    assert again.duplicate and again.position == first.position and len(bench.delivered) == 2
    for other in ({"data": b"2"}, {"event": "other"}):
        with pytest.raises(IdempotencyConflict):
            await bench.broker.publish(draft(id="x", keyed=True, user_id="ann", **other))
    assert (await bench.broker.position("lobby")).offset == 2, "neither a duplicate nor a conflict takes an offset"


async def test_an_id_is_the_publishers_and_the_rooms_own(bench: Bench) -> None:
    for publisher, room in (("ann", "lobby"), ("bob", "lobby"), (None, "lobby"), ("ann", "other")):
        receipt = await bench.broker.publish(draft(room, user_id=publisher, id="x", keyed=True, data=f'"{publisher}"'.encode()))
        assert not receipt.duplicate


async def test_an_id_is_remembered_for_five_minutes(bench: Bench) -> None:
    await bench.broker.publish(draft(id="x", keyed=True))
    await bench.age(299)
    assert (await bench.broker.publish(draft(id="x", keyed=True))).duplicate
    await bench.age(2)
    if bench.keeps_ids:
        assert (await bench.broker.publish(draft(id="x", keyed=True))).duplicate
    else:
        assert not (await bench.broker.publish(draft(id="x", keyed=True, data=b"2"))).duplicate
        assert (await bench.broker.publish(draft(id="x", keyed=True, data=b"2"))).duplicate


# — reading again —


async def test_what_comes_after_a_position(bench: Bench) -> None:
    positions = await publish(bench, 10)
    page = await bench.broker.read_after("lobby", positions[3], 4)
    assert ([event.offset for event in page.events], page.more, page.epoch) == ([5, 6, 7, 8], True, positions[0].epoch)
    page = await bench.broker.read_after("lobby", positions[7], 4)
    assert ([event.offset for event in page.events], page.more) == ([9, 10], False)
    page = await bench.broker.read_after("lobby", positions[9], 4)
    assert (page.events, page.more) == ([], False)
    page = await bench.broker.read_after("lobby", Position(positions[0].epoch, 0), 100)
    assert [event.offset for event in page.events] == list(range(1, 11)) and not page.more


async def test_what_cannot_be_recovered_is_said_and_never_part_of_it_given(bench: Bench) -> None:
    (first, *_, last) = await publish(bench, 10, history_size=5)
    for wrong in (
        *(() if bench.keeps_events else (first,)),
        Position("other", 7),
        Position(last.epoch, 11),
        Position(last.epoch, -1),
        Position("", 0),
        Position(last.epoch, 2**60),
    ):
        with pytest.raises(UnrecoverablePosition):
            await bench.broker.read_after("lobby", wrong, 100)
    page = await bench.broker.read_after("lobby", Position(last.epoch, 5), 100)
    assert [event.offset for event in page.events] == [6, 7, 8, 9, 10]
    if bench.keeps_events:
        assert len((await bench.broker.read_after("lobby", Position(last.epoch, 4), 100)).events) == 6
    else:
        with pytest.raises(UnrecoverablePosition):
            await bench.broker.read_after("lobby", Position(last.epoch, 4), 100)


async def test_a_room_without_events_is_at_its_beginning(bench: Bench) -> None:
    top = await bench.broker.position("quiet")
    page = await bench.broker.read_after("quiet", top, 10)
    assert (page.events, page.more, page.epoch) == ([], False, top.epoch)
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_after("quiet", Position(top.epoch, 1), 10)
    page = await bench.broker.read_before("quiet", None, 10)
    assert (page.events, page.more, page.epoch) == ([], False, top.epoch)
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_before("quiet", Position("other", 5), 10)


async def test_events_are_kept_for_their_time_and_positions_longer(bench: Bench) -> None:
    positions = await publish(bench, 2, history_ttl=10.0)
    await bench.age(5)
    positions += await publish(bench, 1, history_ttl=10.0)
    await bench.age(6)
    assert [event.offset for event in (await bench.broker.read_after("lobby", positions[1], 10)).events] == [3]
    if bench.keeps_events:
        assert [event.offset for event in (await bench.broker.read_after("lobby", positions[0], 10)).events] == [2, 3]
    elif not bench.is_shared:  # there the old ones go when new ones come
        with pytest.raises(UnrecoverablePosition):
            await bench.broker.read_after("lobby", positions[0], 10)
    await bench.age(3600)
    if not bench.keeps_events:
        with pytest.raises(UnrecoverablePosition):
            await bench.broker.read_after("lobby", positions[1], 10)
    assert await bench.broker.position("lobby") == positions[2]
    assert (await bench.broker.read_after("lobby", positions[2], 10)).events == []
    assert (await publish(bench, 1))[0] == Position(positions[2].epoch, 4)


async def test_a_forgotten_rooms_positions_never_come_back(bench: Bench) -> None:
    (position,) = await publish(bench, 1)
    await bench.age(2 * 86_400)
    await publish(bench, 5)
    top = await bench.broker.position("lobby")
    if top.epoch == position.epoch:
        assert top.offset == 6
    else:
        with pytest.raises(UnrecoverablePosition):
            await bench.broker.read_after("lobby", position, 10)


async def test_history_goes_backwards_and_ends_where_the_log_does(bench: Bench) -> None:
    positions = await publish(bench, 10, history_size=6)
    page = await bench.broker.read_before("lobby", None, 4)
    assert ([event.offset for event in page.events], page.more) == ([7, 8, 9, 10], True)
    page = await bench.broker.read_before("lobby", positions[6], 4)
    if bench.keeps_events:
        assert ([event.offset for event in page.events], page.more) == ([3, 4, 5, 6], True)
        page = await bench.broker.read_before("lobby", positions[2], 4)
        assert ([event.offset for event in page.events], page.more) == ([1, 2], False)
    else:
        assert ([event.offset for event in page.events], page.more) == ([5, 6], False)
        assert (await bench.broker.read_before("lobby", positions[2], 4)).events == []
    everything = await bench.broker.read_before("lobby", Position(positions[0].epoch, 99), 99)
    assert len(everything.events) == (10 if bench.keeps_events else 6) and everything.last == 10
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_before("lobby", Position("other", 3), 4)


async def test_a_room_with_somebody_in_it_is_not_forgotten(bench: Bench) -> None:
    """A member holds a position: under a new epoch the next event would carry an offset that he takes for an old one."""
    bench.watched.add("lobby")
    (position,) = await publish(bench, 1)
    await bench.age(2 * 86_400)
    assert (await publish(bench, 1)) == [Position(position.epoch, 2)]


async def test_ephemeral_events_take_offsets_and_are_not_kept(bench: Bench) -> None:
    if not isinstance(bench.broker, StoredBroker):
        await _take_ephemeral(bench)
        return
    async with running(Bench(_split(bench.clock), bench.clock, bench.age)) as split:
        await _take_ephemeral(split)


async def _take_ephemeral(bench: Bench) -> None:
    positions = await publish(bench, 3, "bench:1", ephemeral=True)
    assert [position.offset for position in positions] == [1, 2, 3] and len(bench.delivered) == 3
    assert (await bench.broker.read_before("bench:1", None, 10)).events == []
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_after("bench:1", positions[0], 10)
    assert (await bench.broker.read_after("bench:1", positions[2], 10)).events == []


def _split(clock: ManualClock) -> Broker:
    durable, ephemeral = StoredBroker(MemoryStore(), clock=clock), MemoryBroker(clock=clock)
    return SplitBroker(durable=durable, ephemeral=ephemeral, is_ephemeral=lambda room: room.startswith("bench:"))


async def test_starting_and_stopping_twice(bench: Bench) -> None:
    await bench.broker.start()
    await bench.broker.stop()
    await bench.broker.stop()
    await bench.broker.start()
    await publish(bench, 1)


# — any sequence —

STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 5), st.booleans(), st.sampled_from([1, 3, 8])),
    st.tuples(st.just("keyed"), st.sampled_from("xyz"), st.sampled_from("12"), st.just(8)),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 400]), st.just(0), st.just(0)),
    st.tuples(st.just("read"), st.integers(-1, 30), st.integers(1, 6), st.booleans()),
)


@pytest.mark.parametrize("kind", IN_MEMORY)
@given(steps=st.lists(STEP, max_size=40))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_offsets_rise_by_one_and_no_recovery_is_partial(kind: str, steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_run(kind, steps))


async def _run(kind: str, steps: list[tuple[Any, ...]]) -> None:
    async with rig_in_memory(kind) as bench:
        await bench.watch("lobby")
        is_mixed = not (bench.is_shared and bench.keeps_events)  # where the store and the log are two, a room is ephemeral or not
        for what, first, second, third in steps:
            if what == "publish":
                await publish(bench, first, ephemeral=second and is_mixed, history_size=third, history_ttl=60.0)
            elif what == "keyed":
                try:
                    receipt = await bench.broker.publish(draft(id=first, keyed=True, data=second.encode(), history_size=third))
                except IdempotencyConflict:
                    continue
                assert receipt.position is not None
                await bench.until_delivered(receipt.position)
                published = bench.delivered[receipt.position.offset - 1]
                assert (published.id, published.data) == (first, second.encode())
            elif what == "wait":
                await bench.age(first)
            else:
                epoch = (await bench.broker.position("lobby")).epoch
                await _read(bench, Position("other" if third and first % 7 == 0 else epoch, first), second)
        assert [event.offset for event in bench.delivered] == list(range(1, len(bench.delivered) + 1))
        assert len({event.epoch for event in bench.delivered}) <= 1


async def _read(bench: Bench, after: Position, limit: int) -> None:
    """Page after page up to the end: all of it, or `UnrecoverablePosition` at once."""
    try:
        page = await bench.broker.read_after("lobby", after, limit)
    except UnrecoverablePosition:
        return
    assert after.epoch == page.epoch
    found = list(page.events)
    while page.more:
        page = await bench.broker.read_after("lobby", Position(page.epoch, page.last), limit)
        assert len(page.events) <= limit
        found += page.events
    assert found == bench.delivered[after.offset :], "a recovery that is not whole"
    assert max(Counter(event.offset for event in found).values(), default=1) == 1
