"""The drainer, on an intake, a lease and a store in memory and by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import Position
from aibos_realtime.backends.base import LoggedEvent, Refused
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from aibos_realtime.metrics import Metrics
from aibos_realtime.storage import drain as module
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.store import MemoryStore
from tests.unit.storage.drain_rig import Holder, MemoryIntake, Node


class Bench:
    def __init__(self, shards: int = 1) -> None:
        self.clock = ManualClock()
        self.intake = MemoryIntake(self.clock, shards)
        self.store = MemoryStore()
        self.holder = Holder(self.clock)
        self.metrics = Metrics()
        self.nodes: list[Node] = []
        self.published: list[LoggedEvent] = []
        self.offsets: dict[str, Any] = {}

    async def start(self, **more: Any) -> Node:
        node = Node(f"node{len(self.nodes)}", self.intake, self.store, self.holder, metrics=self.metrics, **more)
        self.nodes.append(node)
        await node.drainer.start()
        await settle()
        return node

    def publish(self, number: int = 1, room: str = "lobby", *, shard: int = 0, keep: bool = True, **more: Any) -> list[LoggedEvent]:
        events = []
        for _ in range(number):
            offset = next(self.offsets.setdefault(room, itertools.count(1)))
            given = {"data": b"%d" % offset, "id": f"{room}-{offset}"} | more
            event = LoggedEvent(room, "note", given["data"], given["id"], "e1", offset, int(self.clock.now() * 1000), "ann")
            self.intake.put(event, shard, keep=keep)
            events.append(event)
        self.published += events
        return events

    async def stored(self, room: str = "lobby") -> list[LoggedEvent]:
        return await self.store.read_after(room, Position("e1", 0), 100_000)

    async def assert_all_is_stored(self) -> None:
        assert self.intake.left == 0
        by_place = sorted(self.published, key=lambda event: (event.room, event.offset))
        assert sorted(self.store.rows, key=lambda row: (row.room, row.offset)) == by_place


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    for node in bench.nodes:
        node.lease.is_away = False
        await node.drainer.stop()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """How the lines of the drainer's log begin."""
    return [record.getMessage().partition(";")[0] for record in caplog.records if record.name == module.logger.name]


class TestDraining:
    async def test_what_waits_is_stored_and_goes(self, bench: Bench) -> None:
        bench.publish(1200)
        node = await bench.start()
        await bench.clock.advance(0.1)
        await bench.assert_all_is_stored()
        assert [row.offset for row in bench.store.rows] == list(range(1, 1201)), "in the order of the log"
        assert bench.intake.dropped == [f"{1200:09}"] and max(bench.store.batches) == 500
        drainer = node.drainer
        assert (drainer.entries, drainer.batches, drainer.failures) == (1200, len(bench.store.batches), 0) == (1200, bench.metrics.commits, 0)
        assert drainer.is_holder and drainer.is_store_available and drainer.era

    async def test_what_is_not_kept_leaves_its_place(self, bench: Bench) -> None:
        bench.publish(1)
        bench.publish(1, keep=False)
        await bench.start()
        await bench.clock.advance(0.1)
        assert [row.data for row in await bench.stored()] == [b"1", b""]

    async def test_what_was_empty_is_looked_at_again(self, bench: Bench) -> None:
        await bench.start()
        for _ in range(3):
            bench.publish(1)
            await bench.clock.advance(2 * module.IDLE)
            await bench.assert_all_is_stored()
        bench.intake.reads.clear()
        await bench.clock.advance(10.0)
        assert 18 <= len(bench.intake.reads) <= 25, "less often while nothing comes"
        bench.publish(1)
        await bench.clock.advance(module.MOST_IDLE)
        await bench.assert_all_is_stored()

    async def test_somebody_who_waits_need_not_wait_for_that(self, bench: Bench) -> None:
        await bench.start()
        await bench.clock.advance(10.0)
        bench.publish(1)
        bench.intake.ask()
        await settle()
        await bench.assert_all_is_stored()

    async def test_large_events_are_few_at_a_time(self, bench: Bench) -> None:
        bench.publish(100, data=b"x" * 256 * 1024)
        await bench.start()
        await bench.clock.advance(0.1)
        await bench.assert_all_is_stored()
        assert max(bench.store.batches) == 16 and max(bench.intake.reads[1:]) <= 32, "4 MiB"
        bench.publish(2000)
        bench.intake.ask()
        await bench.clock.advance(0.5)
        assert max(bench.store.batches) == 500, "and many again where they are small"

    async def test_the_age_of_the_oldest(self, bench: Bench) -> None:
        bench.publish(1)
        await bench.clock.advance(7.0)
        bench.store.gate.clear()
        node = await bench.start()
        assert node.drainer.oldest_age == 7.0
        bench.store.gate.set()
        await bench.clock.advance(1.0)
        assert node.drainer.oldest_age == 0.0

    async def test_starting_and_stopping_again(self, bench: Bench) -> None:
        node = await bench.start()
        for _ in range(2):
            await node.drainer.start()
            bench.publish(1)
            await bench.clock.advance(module.MOST_IDLE)
            await bench.assert_all_is_stored()
            await node.drainer.stop()
            await node.drainer.stop()


class TestShards:
    async def test_what_several_bring_at_one_moment_is_one_commit(self) -> None:
        bench = Bench(shards=64)
        for shard in range(64):
            bench.publish(1, f"room{shard}", shard=shard)
        node = await bench.start()
        await bench.clock.advance(0.1)
        await bench.assert_all_is_stored()
        assert len(bench.store.batches) <= 3
        await node.drainer.stop()

    async def test_one_that_does_not_answer_costs_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        bench = Bench(shards=4)
        bench.intake.away = {1, 2}
        for shard in range(4):
            bench.publish(300, f"room{shard}", shard=shard)
        node = await bench.start()
        await bench.clock.advance(5.0)
        assert [len(line) for line in bench.intake.lines] == [0, 300, 300, 0]
        bench.intake.away = set()
        await bench.clock.advance(2.0)
        await bench.assert_all_is_stored()
        assert told(caplog) == [
            "what waits for the store cannot be read",
            "what waits for the store can be read again",
        ]
        assert caplog.records[-1].levelno == logging.INFO, "good news is none to wake anybody for"
        assert node.drainer.failures >= 8 and bench.metrics.commit_failures == 0
        await node.drainer.stop()


class TestTheLease:
    async def test_one_node_drains_and_another_goes_on_when_it_stops(self, bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        assert (first.drainer.is_holder, second.drainer.is_holder) == (True, False)
        await first.drainer.stop()
        bench.publish(1)
        assert second.drainer.oldest_age == 0.0
        await bench.clock.advance(module.ASK_AGAIN)
        assert second.drainer.is_holder
        await bench.assert_all_is_stored()
        assert second.drainer.entries == 1

    async def test_another_goes_on_when_it_dies(self, bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        await first.kill()
        bench.publish(1)
        await bench.clock.advance(first.lease.ttl - 0.1)
        assert bench.intake.left == 1
        await bench.clock.advance(module.ASK_AGAIN)
        await bench.assert_all_is_stored()
        assert second.drainer.is_holder

    async def test_it_is_renewed(self, bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        for _ in range(20):
            await bench.clock.advance(1.0)
            assert first.drainer.is_holder and not second.drainer.is_holder

    async def test_a_node_that_the_store_does_not_answer_lets_another_one_drain(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """Publishers of committed rooms were refused at every node, and events waited in Redis, for as long as one node was cut off from the
        database: the one with the lease, which it kept, though all others reached the store."""
        cut_off = MemoryStore()
        first = Node("first", bench.intake, cut_off, bench.holder)
        bench.nodes.append(first)
        await first.drainer.start()
        await settle()
        second = await bench.start()
        assert (first.drainer.is_holder, second.drainer.is_holder) == (True, False)
        cut_off.is_down = True
        bench.publish(700)
        await bench.clock.advance(module.MOST_OUTAGE + module.ASK_AGAIN + 1.5)
        assert (first.drainer.is_holder, second.drainer.is_holder) == (False, True)
        await bench.assert_all_is_stored()
        assert cut_off.rows == []
        await bench.clock.advance(30.0)
        assert second.drainer.is_holder, "there it stays"
        assert told(caplog) == ["the store takes nothing"]

    async def test_a_short_outage_moves_it_nowhere(self, bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        bench.store.is_down = True
        bench.publish(1)
        await bench.clock.advance(module.MOST_OUTAGE * 0.7)
        bench.store.is_down = False
        await bench.clock.advance(1.0)
        await bench.assert_all_is_stored()
        assert (first.drainer.is_holder, second.drainer.is_holder) == (True, False) and first.lease.released == 0

    async def test_where_nobody_reaches_the_store_all_try_in_turn(self, bench: Bench) -> None:
        nodes = [await bench.start() for _ in range(3)]
        bench.store.is_down = True
        bench.publish(1)
        holders = set()
        for _ in range(60):
            await bench.clock.advance(0.5)
            holders |= {node.lease.name for node in nodes if node.drainer.is_holder}
        assert len(holders) >= 2 and 3 <= sum(node.lease.released for node in nodes) <= 12
        bench.store.is_down = False
        await bench.clock.advance(2.0)
        await bench.assert_all_is_stored()

    async def test_nothing_is_drained_that_was_not_renewed_in_time(self, bench: Bench) -> None:
        node = await bench.start()
        node.lease.is_away = True
        await bench.clock.advance(node.lease.ttl + 0.1)
        assert not node.drainer.is_holder
        bench.publish(1)
        bench.intake.reads.clear()
        await bench.clock.advance(10.0)
        assert bench.intake.reads == []
        node.lease.is_away = False
        await bench.clock.advance(module.ASK_AGAIN)
        await bench.assert_all_is_stored()

    async def test_it_ran_out_while_reading(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        node = await bench.start()
        bench.publish(1)
        read = bench.intake.read

        async def slowly(*arguments: Any) -> Any:
            found = await read(*arguments)
            bench.holder.name, bench.holder.until = "somebody", bench.clock.monotonic() + 100
            node.drainer._held_until = 0.0
            return found

        monkeypatch.setattr(bench.intake, "read", slowly)
        await bench.clock.advance(10.0)
        assert bench.store.rows == [] and bench.intake.left == 1


class TestTheStoreAway:
    async def test_everything_is_kept_and_the_log_says_it_once(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        node = await bench.start()
        bench.store.is_down = True
        bench.publish(700)
        await bench.clock.advance(60.0)
        assert bench.intake.left == 700 and not node.drainer.is_store_available
        assert 50 <= node.drainer.failures == bench.metrics.commit_failures <= 100, "about once a second, and the check"
        bench.store.is_down = False
        await bench.clock.advance(2.0)
        await bench.assert_all_is_stored()
        assert told(caplog) == ["the store takes nothing", "the store takes events again"]
        assert node.drainer.is_store_available

    async def test_trying_again_begins_soon(self, bench: Bench) -> None:
        node = await bench.start()
        bench.store.is_down = True
        bench.publish(1)
        await bench.clock.advance(module.IDLE)
        assert node.drainer.failures == 1
        await bench.clock.advance(0.2)
        assert node.drainer.failures == 2

    async def test_an_outcome_that_nobody_knows(self, bench: Bench) -> None:
        await bench.start()
        bench.store.loses_answers = True
        bench.publish(700)
        await bench.clock.advance(3.0)
        bench.store.loses_answers = False
        await bench.clock.advance(3.0)
        await bench.assert_all_is_stored()

    async def test_a_node_that_stands_by_notices_too(self, bench: Bench) -> None:
        await bench.start()
        second = await bench.start()
        bench.store.is_down = True
        await bench.clock.advance(module.CHECK_EVERY)
        assert not second.drainer.is_store_available
        bench.store.is_down = False
        await bench.clock.advance(module.CHECK_EVERY)
        assert second.drainer.is_store_available

    async def test_a_fault_of_its_own_code(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        node = await bench.start()
        bench.publish(1)

        async def broken(*_: object) -> None:
            raise KeyError("column")

        with monkeypatch.context() as patched:
            patched.setattr(bench.store, "append_once", broken)
            await bench.clock.advance(3 * module.CHECK_EVERY)
            assert not node.drainer.is_store_available, "although it answers"
        assert caplog.text.count("the store takes nothing") == 1 and "KeyError" in caplog.text
        await bench.clock.advance(2.0)
        await bench.assert_all_is_stored()
        assert node.drainer.is_store_available

    async def test_no_start_without_it(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.store.is_down = True
        with pytest.raises(StoreUnavailable):
            await bench.start()

        async def refuse() -> str:
            raise ConfigurationError("database.url: another server writes to it")

        monkeypatch.setattr(bench.store, "share", refuse)
        with pytest.raises(ConfigurationError):
            await bench.start()

    async def test_a_start_that_fails_lets_go_of_it(self, postgres_url: str) -> None:
        async def fail(era: str) -> None:
            raise BrokerUnavailable()

        clock = ManualClock()
        async with Database(postgres_url) as database:
            node = Node("node", MemoryIntake(clock), SqlEventStore(database), Holder(clock), on_era=fail)
            with pytest.raises(BrokerUnavailable):
                await node.drainer.start()
            await (await database.acquire_writer(wait=5)).release()


class TestDropping:
    @pytest.mark.parametrize("fault", ["loses_drops", "refuses_drops"])
    async def test_what_was_stored_and_not_dropped_is_not_stored_twice(self, bench: Bench, fault: str) -> None:
        await bench.start()
        setattr(bench.intake, fault, True)
        bench.publish(700)
        await bench.clock.advance(5.0)
        setattr(bench.intake, fault, False)
        await bench.clock.advance(3.0)
        await bench.assert_all_is_stored()


class TestWhatTheStoreRefuses:
    async def test_a_poisoned_event_costs_itself(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        node = await bench.start()
        bench.publish(200)
        poisoned = bench.publish(1, id="poison")
        bench.publish(200)
        poisoned += bench.publish(1, id="venom")
        bench.store.poisoned = {"poison", "venom"}
        await bench.clock.advance(1.0)
        rows = await bench.stored()
        assert [row.offset for row in rows] == list(range(1, 403)), "no hole"
        assert [row.offset for row in rows if not row.data] == [201, 402]
        assert [event for event, _ in bench.store.buried] == poisoned and bench.intake.left == 0
        assert (node.drainer.buried, node.drainer.entries, node.drainer.failures) == (2, 400, 0)
        assert caplog.text.count("now among the dead messages") == 2
        assert "poison" not in caplog.text.replace("a row is poisoned", "")

    async def test_the_store_goes_away_in_the_middle(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        await bench.start()
        bench.publish(20)
        bench.publish(1, id="poison")
        bench.store.poisoned = {"poison"}
        bury = bench.store.bury

        async def fails_once(*arguments: Any) -> None:
            monkeypatch.setattr(bench.store, "bury", bury)
            raise StoreUnavailable()

        monkeypatch.setattr(bench.store, "bury", fails_once)
        await bench.clock.advance(3.0)
        assert [row.offset for row in await bench.stored()] == list(range(1, 22)) and len(bench.store.buried) == 1

    async def test_not_even_the_place(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        async def refuse(*_: object) -> None:
            raise Refused("NUL")

        monkeypatch.setattr(bench.store, "bury", refuse)
        node = await bench.start()
        bench.store.poisoned = {"poison"}
        bench.publish(1, id="poison")
        bench.publish(1)
        await bench.clock.advance(1.0)
        assert bench.intake.left == 0 and [row.offset for row in bench.store.rows] == [2]
        assert node.drainer.buried == 1 and "even its place" in caplog.text

    async def test_what_is_no_entry_of_ours(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        node = await bench.start()
        bench.intake.put(None)
        bench.publish(2)
        bench.intake.put(None)
        await bench.clock.advance(0.1)
        bench.intake.put(None)
        await bench.clock.advance(1.0)
        await bench.assert_all_is_stored()
        assert node.drainer.foreign == bench.metrics.foreign_records == 3 and node.drainer.oldest_age == 0.0
        assert "2 entries of what waits for the store were none of ours" in caplog.text


class TestEras:
    async def test_a_new_one_is_told_until_that_worked(self, bench: Bench) -> None:
        told: list[str] = []
        fails = [False]

        async def tell(era: str) -> None:
            if fails[0]:
                raise BrokerUnavailable()
            told.append(era)

        node = await bench.start(on_era=tell)
        assert told == [node.drainer.era]
        await bench.store.open()
        await bench.store.close()
        fails[0] = True
        await bench.clock.advance(module.CHECK_EVERY)
        bench.publish(1)
        await bench.clock.advance(3.0)
        assert len(told) == 1 and bench.intake.left == 1, "nothing of a new era before it was told"
        fails[0] = False
        await bench.clock.advance(3.0)
        assert len(told) == 2 and told[1] == node.drainer.era != told[0]
        await bench.assert_all_is_stored()
        await bench.clock.advance(60.0)
        assert len(told) == 2


class TestStopping:
    async def test_the_batch_on_its_way_ends_and_the_lease_goes(self, bench: Bench) -> None:
        node = await bench.start()
        bench.store.gate.clear()
        bench.publish(100)
        await bench.clock.advance(module.IDLE)
        stopping = asyncio.ensure_future(node.drainer.stop())
        await settle()
        assert not stopping.done() and bench.holder.name == node.lease.name
        bench.store.gate.set()
        await stopping
        assert 0 < len(bench.store.rows) < 100, "that one and no more"
        assert bench.intake.left == 100 - len(bench.store.rows), "and it was dropped"
        assert bench.holder.name == "" and node.lease.released == 1 and not node.drainer.is_holder

    async def test_a_store_that_hangs_is_not_waited_for(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "GRACE", 0.05)
        node = await bench.start()
        bench.store.gate.clear()
        bench.publish(10)
        await bench.clock.advance(module.IDLE)
        async with asyncio.timeout(5):
            await node.drainer.stop(drain=0.05)
        assert bench.holder.name == "" and bench.intake.left == 10

    async def test_the_last_node_drains_what_is_there(self, bench: Bench) -> None:
        node = await bench.start()
        bench.publish(3000)
        await node.drainer.stop(drain=5.0)
        await bench.assert_all_is_stored()
        assert bench.holder.name == ""

    async def test_it_asks_for_the_lease_for_that(self, bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        await first.drainer.stop()
        bench.publish(10)
        await second.drainer.stop(drain=5.0)
        await bench.assert_all_is_stored()

    async def test_but_while_another_has_it_there_is_nothing_to_wait_for(self, bench: Bench) -> None:
        await bench.start()
        second = await bench.start()
        bench.publish(10)
        async with asyncio.timeout(5):
            await second.drainer.stop(drain=60.0)
        assert bench.holder.name == "node0" and second.drainer.entries == 0

    async def test_redis_being_away_does_not_stop_the_stop(self, bench: Bench) -> None:
        node = await bench.start()
        bench.publish(10)
        bench.intake.away = {0}
        node.lease.is_away = True
        await bench.clock.advance(1.0)
        async with asyncio.timeout(5):
            await node.drainer.stop(drain=0.05)
        assert node.lease.released == 0

    async def test_cancelling_it(self, bench: Bench) -> None:
        node = await bench.start()
        bench.store.gate.clear()
        bench.publish(10)
        await bench.clock.advance(module.IDLE)
        stopping = asyncio.ensure_future(node.drainer.stop())
        await settle()
        stopping.cancel()
        await asyncio.wait([stopping], timeout=5)
        assert stopping.cancelled() and bench.holder.name == ""


class TestWhatWaits:
    async def test_the_node_that_drains_counts_what_the_store_does_not_take(self, bench: Bench) -> None:
        node, other = await bench.start(), await bench.start()
        bench.store.is_down = True
        bench.publish(700)
        await bench.clock.advance(0.8)
        assert (node.drainer.waiting, other.drainer.waiting) == (700, None)
        assert node.drainer.oldest_age > 0
        bench.store.is_down = False
        await bench.clock.advance(10.0)
        assert (node.drainer.waiting, other.drainer.waiting, bench.intake.left) == (0, None, 0)
        assert len(bench.metrics.commit_times) == bench.metrics.commits > 0

    async def test_a_log_that_does_not_answer_leaves_it_unknown_and_the_rest_goes_on(self, bench: Bench) -> None:
        node = await bench.start()
        seen: list[int | None] = []
        for is_away in (False, True, False):
            bench.intake.away = {0} if is_away else set()
            bench.publish(5)
            await bench.clock.advance(3.0)
            seen.append(node.drainer.waiting)
        assert seen == [0, None, 0] and bench.intake.left == 0
