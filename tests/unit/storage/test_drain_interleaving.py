"""Whatever happens to two drainers and to what they stand on, in whatever order: the store ends with the rows of the log, each once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.backends.intake import IntakeEntry
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.store import MemoryStore
from tests.unit.storage.drain_rig import Holder, MemoryIntake, Node

ROOMS = 3
SHARDS = 2
FAULTS = ["store away", "answers lost", "drops refused", "drops lost", "a shard away", "a lease for two", "a lease away"]

STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 40), st.integers(0, ROOMS - 1)),
    st.tuples(st.just("turns"), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 1.0, 6.0]), st.just(0)),
    st.tuples(st.sampled_from(["kill", "stop"]), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("fault"), st.sampled_from(FAULTS), st.integers(0, 1)),
)


class Meandering:
    """Takes any number of turns."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def __call__(self) -> None:
        await settle(self._random.randrange(4))


class Store(MemoryStore):
    def __init__(self, meander: Meandering) -> None:
        super().__init__()
        self._meander = meander

    async def append_once(self, events: Sequence[LoggedEvent], hollow: frozenset[int]) -> None:
        await self._meander()
        try:
            await super().append_once(events, hollow)
        finally:
            await self._meander()


class Intake(MemoryIntake):
    def __init__(self, clock: ManualClock, meander: Meandering) -> None:
        super().__init__(clock, SHARDS)
        self._meander = meander

    async def read(self, shard: int, after: str | None, count: int) -> Sequence[IntakeEntry]:
        found = await super().read(shard, after, count)
        await self._meander()
        return found

    async def drop(self, shard: int, up_to: str) -> None:
        await self._meander()
        await super().drop(shard, up_to)


class World:
    def __init__(self, seed: int) -> None:
        meander = Meandering(seed)
        self.clock = ManualClock()
        self.store = Store(meander)
        self.intake = Intake(self.clock, meander)
        self.holder = Holder(self.clock)
        self.nodes: list[Node] = []
        self.published: list[tuple[LoggedEvent, bool]] = []
        self._offsets = [itertools.count(1) for _ in range(ROOMS)]
        self._names = itertools.count()

    async def start_node(self) -> Node:
        node = Node(f"node{next(self._names)}", self.intake, self.store, self.holder)
        down, self.store.is_down = self.store.is_down, False  # a node does not start without the store
        await node.drainer.start()
        self.store.is_down = down
        return node

    def publish(self, number: int, room: int) -> None:
        for _ in range(number):
            offset = next(self._offsets[room])
            keep, is_poisoned, repeats = offset % 7 != 0, offset % 11 == 0, offset % 13 == 0
            id = f"poison{room}-{offset}" if is_poisoned else "again" if repeats else f"{room}-{offset}"
            if is_poisoned:
                self.store.poisoned.add(id)
            event = LoggedEvent(f"room{room}", "note", b"%d" % offset, id, "e1", offset, int(self.clock.now() * 1000))
            self.intake.put(event, room % SHARDS, keep=keep)
            self.published.append((event, keep and not is_poisoned))

    def toggle(self, fault: str, number: int) -> None:
        if fault == "store away":
            self.store.is_down = not self.store.is_down
        elif fault == "answers lost":
            self.store.loses_answers = not self.store.loses_answers
        elif fault == "drops refused":
            self.intake.refuses_drops = not self.intake.refuses_drops
        elif fault == "drops lost":
            self.intake.loses_drops = not self.intake.loses_drops
        elif fault == "a shard away":
            self.intake.away ^= {number}
        elif fault == "a lease for two":
            self.holder.is_everybodys = not self.holder.is_everybodys
        else:
            self.nodes[number].lease.is_away = not self.nodes[number].lease.is_away

    def mend(self) -> None:
        self.store.is_down = self.store.loses_answers = self.intake.refuses_drops = self.intake.loses_drops = False
        self.intake.away = set()
        for node in self.nodes:
            node.lease.is_away = False


@given(steps=st.lists(STEP, max_size=30), seed=st.integers(0, 2**16))
@settings(max_examples=200)
@example(steps=[("fault", "a lease for two", 0), ("publish", 40, 0), ("wait", 0.1, 0), ("kill", 0, 0), ("publish", 40, 1), ("turns", 3, 0)], seed=1)
def test_the_store_ends_with_exactly_the_rows_of_the_log(steps: list[tuple[Any, ...]], seed: int) -> None:
    asyncio.run(_run(steps, seed))


async def _run(steps: list[tuple[Any, ...]], seed: int) -> None:
    world = World(seed)
    world.nodes = [await world.start_node(), await world.start_node()]
    for what, first, second in steps:
        if what == "publish":
            world.publish(first, second)
        elif what == "turns":
            await settle(first)
        elif what == "wait":
            await world.clock.advance(first)
        elif what == "fault":
            world.toggle(first, second)
        else:
            node = world.nodes[first]
            await (node.kill() if what == "kill" else node.drainer.stop())
            world.nodes[first] = await world.start_node()
        check_what_was_dropped(world)
    world.mend()
    world.publish(1, 0)
    await world.clock.advance(12.0)
    await world.clock.advance(3.0)
    check(world)
    for node in world.nodes:
        await node.drainer.stop()


def check_what_was_dropped(world: World) -> None:
    """Nothing leaves what waits before it is in the store."""
    waiting = {entry.event for line in world.intake.lines for entry in line}
    stored = {(row.room, row.offset) for row in world.store.rows}
    for event, _ in world.published:
        assert event in waiting or (event.room, event.offset) in stored


def check(world: World) -> None:
    assert world.intake.left == 0
    rows = {(row.room, row.offset): row for row in world.store.rows}
    assert len(rows) == len(world.store.rows) == len(world.published)
    for event, is_kept in world.published:
        assert rows[event.room, event.offset].data == (event.data if is_kept else b"")
    poisoned = [event for event, _ in world.published if event.id in world.store.poisoned]
    assert sorted(event.id for event, _ in world.store.buried) == sorted(event.id for event in poisoned), "each once"
