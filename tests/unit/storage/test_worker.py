"""The worker: taking, keeping, settling and ending, on the store in memory and by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable
from aibos_realtime.backends.memory.queue import MemoryQueue
from aibos_realtime.backends.queue import QueueDraft, QueueLimits, QueueStats, Taken, Verdict
from aibos_realtime.storage import worker as module
from aibos_realtime.storage.handling import ProcessOptions, QueueHandler, QueueMessage
from aibos_realtime.storage.worker import MAX_AHEAD, Worker
from aibos_realtime.testing.clock import ManualClock, settle

LIMITS = QueueLimits()
_ids = itertools.count()


class Store(MemoryQueue):
    """`away`: the calls that fail. `largest`: most messages that were out at once."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.away: set[str] = set()
        self.largest = 0
        self.settled: list[Verdict] = []

    def _meet(self, call: str) -> None:
        if call in self.away:
            raise BrokerUnavailable()

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        self._meet("take")
        taken = await super().take(queue, limit, visibility=visibility, limits=limits, ordered=ordered)
        self.largest = max(self.largest, (await self.stats(queue)).in_flight)
        return taken

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        self._meet("settle")
        self.settled += verdicts
        return await super().settle(queue, verdicts, limits)

    async def extend(self, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        self._meet("extend")
        return await super().extend(queue, taken, visibility)


class Clock(ManualClock):
    def stand_still(self, seconds: float) -> None:
        """Time goes on, and nothing of this process does."""
        self._monotonic += seconds


class Rig:
    """A store, a clock, and workers on it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)

    async def send(self, *ids: str, **more: Any) -> None:
        drafts = [QueueDraft(id, b"1", **more) for id in ids or [f"m{next(_ids)}"]]
        await self.store.send("orders", drafts, LIMITS)

    async def stats(self) -> QueueStats:
        return await self.store.stats("orders")

    async def reasons(self) -> list[tuple[str, str]]:
        return [(letter.id, letter.reason) for letter in await self.store.dead_letters("orders", 1000)]

    def worker(self, handler: QueueHandler, **options: Any) -> Worker:
        options = {"backoff": {"first": 1, "limit": 60}} | options
        more: dict[str, Any] = {"store": self.store, "limits": LIMITS, "max_message_bytes": 1000, "clock": self.clock, "random": lambda: 1.0}
        return Worker("orders", handler, ProcessOptions(**options), **more)

    @asynccontextmanager
    async def working(self, handler: QueueHandler, drain: float = 5.0, **options: Any) -> AsyncIterator[Worker]:
        worker = self.worker(handler, **options)
        worker.start()
        await settle()
        try:
            yield worker
        finally:
            await worker.stop(drain)


@pytest.fixture
def rig() -> Rig:
    return Rig()


class Gate:
    """A handler that waits to be let go. `begun`, `ended`: ids of messages."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.open = asyncio.Event()

    async def __call__(self, message: QueueMessage) -> None:
        self.begun.append(message.id)
        await self.open.wait()
        self.ended.append(message.id)


EMPTY = QueueStats(0, 0, 0, 0, None)


# — handling —


async def test_messages_are_handled_and_gone(rig: Rig) -> None:
    await rig.send("a", "b")
    seen: list[str] = []
    async with rig.working(lambda message: seen.append(message.id)):
        await settle()
        await rig.send("c")
        await settle()
        assert seen == ["a", "b", "c"] and await rig.stats() == EMPTY


async def test_a_failed_message_comes_again_with_back_off_and_ends_dead(rig: Rig) -> None:
    await rig.send("a")
    at: list[float] = []
    begin = rig.clock.monotonic()

    def fail(message: QueueMessage) -> None:
        at.append(rig.clock.monotonic() - begin)
        raise ValueError(f"attempt {message.attempt}")

    async with rig.working(fail, max_attempts=4):
        await rig.clock.advance(20)
        assert at == [0, 1, 3, 7]
        assert await rig.reasons() == [("a", "ValueError: attempt 4")] and (await rig.stats()).dead == 1


async def test_as_many_at_once_as_may_be(rig: Rig) -> None:
    await rig.send(*"abcdefgh")
    gate = Gate()
    async with rig.working(gate, concurrency=3):
        await settle()
        assert gate.begun == ["a", "b", "c"]
        assert (await rig.stats()).in_flight == 3, "slow handlers hold back nothing from others"
        gate.open.set()
        await settle()
        assert len(gate.ended) == 8


async def test_a_free_place_is_filled_while_the_others_are_busy(rig: Rig) -> None:
    gates = [Gate() for _ in range(4)]

    async def handle(message: QueueMessage) -> None:
        await gates[int(message.id)](message)

    await rig.send("0", "1", "2")
    async with rig.working(handle, concurrency=3):
        await settle()
        gates[1].open.set()
        await rig.send("3")
        await settle()
        assert gates[3].begun == ["3"]
        for gate in gates:
            gate.open.set()


async def test_quick_handlers_take_ahead_in_bounds(rig: Rig) -> None:
    await rig.send(*(f"m{number}" for number in range(3000)))
    count, done = 0, asyncio.Event()

    async def handle(message: QueueMessage) -> None:
        nonlocal count
        count += 1
        if count % 100 == 0:
            await asyncio.sleep(0)
        if count == 3000:
            done.set()

    async with rig.working(handle, concurrency=2):
        await done.wait()
    assert 100 < rig.store.largest <= 2 * MAX_AHEAD + 2000 and await rig.stats() == EMPTY


async def test_handlers_that_never_wait_leave_the_loop_its_turns(rig: Rig) -> None:
    await rig.send(*(f"m{number}" for number in range(1500)))
    loop = asyncio.get_running_loop()
    seen, gaps = 0, [0.0]

    def handle(message: QueueMessage) -> None:
        nonlocal seen
        seen += 1
        until = loop.time() + 0.0002
        while loop.time() < until:
            pass

    async with rig.working(handle, concurrency=20):
        last = loop.time()
        while seen < 1500:
            await asyncio.sleep(0)
            gaps.append(loop.time() - last)
            last = loop.time()
    assert len(gaps) > 20 and sorted(gaps)[len(gaps) // 2] < 0.1


# — leases —


async def test_a_slow_handler_is_not_doubled(rig: Rig) -> None:
    await rig.send("a")
    count = 0

    async def handle(message: QueueMessage) -> None:
        nonlocal count
        count += 1
        await rig.clock.sleep(45)

    async with rig.working(handle, visibility_timeout=30), rig.working(handle, visibility_timeout=30):
        await rig.clock.advance(50)
        assert count == 1 and await rig.stats() == EMPTY


async def test_the_messages_of_a_dead_worker_are_taken_over(rig: Rig) -> None:
    await rig.send("a", "b")
    await rig.store.take("orders", 2, visibility=30, limits=LIMITS)  # and never heard of again
    seen: list[tuple[str, int]] = []
    async with rig.working(lambda message: seen.append((message.id, message.attempt))):
        await rig.clock.advance(29)
        assert seen == []
        await rig.clock.advance(2)
        assert sorted(seen) == [("a", 2), ("b", 2)]


async def test_a_message_that_ends_its_workers_ends_dead(rig: Rig) -> None:
    await rig.send("a")
    for _ in range(3):
        await rig.store.take("orders", 1, visibility=1, limits=LIMITS)
        await rig.clock.advance(1)
    seen: list[QueueMessage] = []
    async with rig.working(seen.append, max_attempts=3):
        await settle()
        assert seen == [] and "without an outcome" in (await rig.reasons())[0][1]


async def test_what_was_not_begun_for_long_is_given_back(rig: Rig) -> None:
    await rig.send(*(f"m{number}" for number in range(200)))
    gate, count = asyncio.Event(), 0

    async def handle(message: QueueMessage) -> None:
        nonlocal count
        count += 1
        if count > 100:
            await gate.wait()

    async with rig.working(handle, visibility_timeout=30):
        await settle()
        held = (await rig.stats()).in_flight
        assert count == 101 and held > 10
        await rig.clock.advance(11)
        assert (await rig.stats()).in_flight == 1, "all but the one that is being handled"
        others = await rig.store.take("orders", 500, visibility=30, limits=LIMITS)
        assert len(others) == 99 and {one.attempt for one in others} == {1}
        gate.set()


async def test_what_was_lost_before_it_was_begun_is_not_begun(rig: Rig) -> None:
    await rig.send(*(f"m{number}" for number in range(100)))
    seen: list[str] = []

    def handle(message: QueueMessage) -> None:
        seen.append(message.id)
        if len(seen) == 50:
            rig.clock.stand_still(31)

    async with rig.working(handle, visibility_timeout=30):
        await settle()
        assert len(rig.store.settled) >= 100
        lost = [verdict.taken for verdict in rig.store.settled if verdict.kind == "release"]
        assert lost and {one.attempt for one in lost} == {1}
        assert {seen.count(one.id) for one in lost} == {1}, "when they were taken again"


async def test_a_verdict_that_comes_too_late_counts_for_nothing(rig: Rig) -> None:
    await rig.send("a")
    gate = Gate()
    async with rig.working(gate, visibility_timeout=30):
        await settle()
        rig.store.away.add("extend")
        await rig.clock.advance(31)
        (other,) = await rig.store.take("orders", 1, visibility=30, limits=LIMITS)
        assert other.attempt == 2
        gate.open.set()
        await settle()
        assert (await rig.stats()).in_flight == 1, "it is the other worker's"


async def test_leases_are_extended_again_when_the_store_is_back(rig: Rig) -> None:
    await rig.send("a")
    gate = Gate()
    async with rig.working(gate, visibility_timeout=30):
        await settle()
        rig.store.away.add("extend")
        await rig.clock.advance(15)
        rig.store.away.clear()
        await rig.clock.advance(30)
        assert await rig.store.take("orders", 1, visibility=30, limits=LIMITS) == []
        gate.open.set()


# — order —


async def test_messages_of_a_key_are_handled_in_order_across_retries_and_workers(rig: Rig) -> None:
    seen: dict[str, list[str]] = {"x": [], "y": []}
    for number in range(12):
        for key in seen:
            await rig.send(f"{key}{number}", key=key)
    running: set[str | None] = set()

    async def handle(message: QueueMessage) -> None:
        assert message.key is not None and message.key not in running, "one at a time"
        running.add(message.key)
        await asyncio.sleep(0)
        running.discard(message.key)
        if message.id in ("x3", "y7") and message.attempt < 3:
            raise ValueError("once more")
        seen[message.key].append(message.id)

    async with rig.working(handle, concurrency=4, ordered=True), rig.working(handle, concurrency=4, ordered=True):
        await settle()
        assert seen["x"] == ["x0", "x1", "x2"], "the key waits for the retry"
        await rig.clock.advance(20)
        assert seen == {key: [f"{key}{number}" for number in range(12)] for key in seen}
        assert await rig.stats() == EMPTY


# — ending —


async def test_stopping_lets_running_handlers_finish_and_gives_back_the_rest(rig: Rig) -> None:
    await rig.send(*"abcde")
    gate = Gate()
    worker = rig.worker(gate, concurrency=2)
    worker.start()
    await settle()
    stopping = asyncio.create_task(worker.stop(5))
    await settle()
    await rig.send("late")
    await settle()
    assert gate.begun == ["a", "b"] and not stopping.done()
    gate.open.set()
    await stopping
    assert gate.ended == ["a", "b"]
    left = await rig.store.take("orders", 10, visibility=30, limits=LIMITS)
    assert [(one.id, one.attempt) for one in left] == [("c", 1), ("d", 1), ("e", 1), ("late", 1)]


async def test_stopping_gives_back_what_was_taken_ahead(rig: Rig) -> None:
    await rig.send(*(f"m{number}" for number in range(100)))
    count, gate = 0, asyncio.Event()

    async def handle(message: QueueMessage) -> None:
        nonlocal count
        count += 1
        if count == 50:
            await gate.wait()

    worker = rig.worker(handle)
    worker.start()
    await settle()
    assert count == 50
    stopping = asyncio.create_task(worker.stop(5))
    await settle()
    assert (await rig.stats()).in_flight == 1
    gate.set()
    await stopping
    left = await rig.store.take("orders", 100, visibility=30, limits=LIMITS)
    assert len(left) == 50 and {one.attempt for one in left} == {1}


async def test_what_does_not_finish_in_time_is_cancelled_and_given_back(rig: Rig) -> None:
    await rig.send("a", "b")
    gate = Gate()
    worker = rig.worker(gate)
    worker.start()
    await settle()
    await worker.stop(0.01)
    assert gate.begun == ["a"] and gate.ended == []
    assert [(one.id, one.attempt) for one in await rig.store.take("orders", 10, visibility=30, limits=LIMITS)] == [("a", 1), ("b", 1)]


async def test_cancelling_the_stop_ends_everything(rig: Rig) -> None:
    await rig.send("a")
    gate = Gate()
    worker = rig.worker(gate)
    worker.start()
    await settle()
    stopping = asyncio.create_task(worker.stop(60))
    await settle()
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled() and gate.ended == []


async def test_messages_that_come_after_a_take_met_the_end_of_the_last_one_are_handled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: a take begins while a verdict is on its way, and finds nothing after that has arrived."""
    real = rig.store.take

    async def take(*arguments: Any, **more: Any) -> list[Taken]:
        for _ in range(5):
            await asyncio.sleep(0)
        return await real(*arguments, **more)

    monkeypatch.setattr(rig.store, "take", take)
    seen: list[str] = []
    async with rig.working(lambda message: seen.append(message.id)):
        for id in "abc":
            await rig.send(id)
            await settle(100)
        assert seen == ["a", "b", "c"]


# — the store being away —


async def test_a_worker_goes_on_by_itself_when_the_store_is_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.store.away = {"take", "settle", "extend"}
    seen: list[str] = []
    async with rig.working(lambda message: seen.append(message.id)):
        await rig.send("a")
        await rig.clock.advance(60)
        assert seen == [] and len([record for record in caplog.records if "taking messages failed" in record.message]) == 1, "said once"
        rig.store.away = {"settle"}
        await rig.clock.advance(3)
        assert seen == ["a"] and (await rig.stats()).in_flight == 1
        rig.store.away = set()
        await rig.clock.advance(3)
        assert seen == ["a"] and await rig.stats() == EMPTY


async def test_an_error_that_nobody_thought_of_does_not_end_the_worker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rig.store.take

    async def take(*arguments: Any, **more: Any) -> list[Taken]:
        raise KeyError("what")

    monkeypatch.setattr(rig.store, "take", take)
    await rig.send("a")
    seen: list[str] = []
    async with rig.working(lambda message: seen.append(message.id)):
        await rig.clock.advance(5)
        monkeypatch.setattr(rig.store, "take", real)
        await rig.clock.advance(5)
        assert seen == ["a"]


async def test_stopping_while_the_store_is_away_ends_in_time(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.send("a")
    gate = Gate()
    gate.open.set()
    rig.store.away.add("settle")
    worker = rig.worker(gate)
    worker.start()
    await settle()
    async with asyncio.timeout(5):
        await worker.stop(0.01)
    assert "could not be given back" in caplog.text


async def test_a_handler_that_cannot_be_cancelled_does_not_hold_up_the_stop(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.05)
    await rig.send("stubborn", "b")
    gate, begun = asyncio.Event(), []

    async def handle(message: QueueMessage) -> None:
        begun.append(message.id)
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                if message.id != "stubborn":
                    raise

    worker = rig.worker(handle, concurrency=2)
    worker.start()
    await settle()
    asyncio.get_running_loop().call_later(2, gate.set)  # also where the test fails: a task that never ends would hold up its end
    async with asyncio.timeout(2):
        await worker.stop(0.01)
    assert begun == ["stubborn", "b"] and caplog.text.count("queue orders: handler 0: still running although cancelled") == 1
    assert [(one.id, one.attempt) for one in await rig.store.take("orders", 10, visibility=30, limits=LIMITS)] == [("b", 1)]
    gate.set()
    await settle()
    assert begun == ["stubborn", "b"]
