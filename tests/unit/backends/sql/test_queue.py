"""The queue's tables, beyond what `tests/contracts/test_queue.py` asks of every store: many workers at once, wake-ups, cost, leftovers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Table, select
from sqlalchemy import event as sqlalchemy_event

from aibos_realtime.backends.memory.queue import MemoryQueue
from aibos_realtime.backends.queue import QueueDraft, QueueLimits, Sent, Taken, Verdict
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.queue import SqlQueue
from aibos_realtime.backends.sql.queue_order import LOOKED_AT
from aibos_realtime.backends.sql.queue_rows import SWEEP_EVERY, QueueRows
from aibos_realtime.backends.sql.schema import queue_counts, queue_keys, queue_letters, queue_messages
from aibos_realtime.errors import QueueFull, StoreUnavailable
from aibos_realtime.testing.clock import ManualClock
from tests.servers.postgres import PostgresServer

UNBOUNDED = QueueLimits()
Open = Callable[[], Awaitable[SqlQueue]]


@pytest.fixture
async def make(store_url: str) -> AsyncIterator[Open]:
    """Opens stores on one database."""
    async with AsyncExitStack() as stack:

        async def opened() -> SqlQueue:
            store = SqlQueue(store_url)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield opened


def drafts(count: int, **more: Any) -> list[QueueDraft]:
    return [QueueDraft(f"m{number}", b"%d" % number, **more) for number in range(count)]


async def drain(store: SqlQueue, into: list[Taken], *, ordered: bool = False) -> None:
    """Take and settle until nothing is left, a few at a time."""
    while (await store.stats("q")).depth + (await store.stats("q")).in_flight:
        taken = await store.take("q", 7, visibility=30, limits=UNBOUNDED, ordered=ordered)
        into += taken
        await store.settle("q", [Verdict(one, "done") for one in taken], UNBOUNDED)


# — the same as in memory —


@pytest.mark.parametrize("seed", range(20))
async def test_it_does_what_the_queue_in_memory_does(seed: int) -> None:
    """A hundred random steps at both, and the same answers."""
    chance, clock = random.Random(seed), ManualClock()
    play = Play(chance, MemoryQueue(clock=clock), SqlQueue("sqlite://", clock=clock))
    await play.ours.open()
    try:
        for _ in range(100):
            await chance.choice([play.send, play.send, play.take, play.take, play.settle, play.settle, play.extend, play.requeue, play.purge])()
            if chance.random() < 0.2:
                await clock.advance(chance.choice([1, 4, 11, 301]))
            await play.compare()
    finally:
        await play.ours.close()


class Play:
    """Both stores, and what was taken from each. With keys no message has a delay: which of the two comes first is left open there."""

    def __init__(self, chance: random.Random, theirs: MemoryQueue, ours: SqlQueue) -> None:
        self.chance = chance
        self.theirs = theirs
        self.ours = ours
        self.limits = QueueLimits(max_size=chance.choice([None, 5, 20]), max_dead=4)
        self.ordered = chance.random() < 0.7
        self.hands: list[tuple[Taken, Taken]] = []
        self.sent = 0

    async def send(self) -> None:
        batch = []
        for _ in range(self.chance.randint(1, 4)):
            self.sent += 1
            key = self.chance.choice([None, "a", "b"])
            delay = 0.0 if key is not None else self.chance.choice([0.0, 0.0, 3.0])
            data, idempotency_key = b"%d" % self.chance.randint(0, 1), self.chance.choice([None, None, "i1", "i2"])
            batch.append(QueueDraft(f"m{self.sent}", data, key=key, delay=delay, idempotency_key=idempotency_key))
        theirs, ours = await self.theirs.send("q", batch, self.limits), await self.ours.send("q", batch, self.limits)
        assert [one if isinstance(one, Sent) else type(one) for one in ours] == [one if isinstance(one, Sent) else type(one) for one in theirs]

    async def take(self) -> None:
        theirs = await self.theirs.take("q", 1000, visibility=10, limits=self.limits, ordered=self.ordered)
        ours = {one.id: one for one in await self.ours.take("q", 1000, visibility=10, limits=self.limits, ordered=self.ordered)}
        assert {(one.id, one.attempt, one.data, one.key) for one in ours.values()} == {(one.id, one.attempt, one.data, one.key) for one in theirs}
        self.hands += [(one, ours[one.id]) for one in theirs]

    async def settle(self) -> None:
        chosen = self.chance.sample(self.hands, min(len(self.hands), 3))
        kinds: list[Any] = [self.chance.choice(["done", "done", "retry", "dead", "release"]) for _ in chosen]
        theirs = await self.theirs.settle("q", [Verdict(hand[0], kind, 2.0, "why") for hand, kind in zip(chosen, kinds, strict=True)], self.limits)
        ours = await self.ours.settle("q", [Verdict(hand[1], kind, 2.0, "why") for hand, kind in zip(chosen, kinds, strict=True)], self.limits)
        assert ours == theirs
        self.hands = [hand for hand in self.hands if hand not in chosen]

    async def extend(self) -> None:
        theirs = await self.theirs.extend("q", [hand[0] for hand in self.hands], 10)
        assert await self.ours.extend("q", [hand[1] for hand in self.hands], 10) == theirs

    async def requeue(self) -> None:
        ids = self.chance.choice([None, [f"m{number}" for number in range(self.sent // 2)]])
        assert await self.ours.requeue("q", ids, self.limits) == await self.theirs.requeue("q", ids, self.limits)

    async def purge(self) -> None:
        if self.chance.random() < 0.1:
            dead = self.chance.random() < 0.5
            assert await self.ours.purge("q", dead=dead) == await self.theirs.purge("q", dead=dead)

    async def compare(self) -> None:
        assert await self.ours.stats("q") == await self.theirs.stats("q")
        theirs, ours = await self.theirs.dead_letters("q", 10), await self.ours.dead_letters("q", 10)
        assert [(one.id, one.attempts, one.reason, one.key) for one in ours] == [(one.id, one.attempts, one.reason, one.key) for one in theirs]


# — many at once —


async def test_many_workers_get_every_message_once(make: Open) -> None:
    stores = [await make() for _ in range(4)]
    await stores[0].send("q", drafts(400), UNBOUNDED)
    taken: list[Taken] = []
    await asyncio.gather(*(drain(store, taken) for store in stores))
    assert sorted(int(one.data) for one in taken) == list(range(400))


async def test_many_workers_keep_the_order_of_each_key(make: Open) -> None:
    stores = [await make() for _ in range(4)]
    await stores[0].send("q", [QueueDraft(f"m{number}", b"%d" % number, key=f"k{number % 3}") for number in range(150)], UNBOUNDED)
    taken: list[Taken] = []
    await asyncio.gather(*(drain(store, taken, ordered=True) for store in stores))
    assert len(taken) == 150
    for key in ("k0", "k1", "k2"):
        numbers = [int(one.data) for one in taken if one.key == key]
        assert numbers == sorted(numbers)


async def test_many_workers_have_one_message_of_a_key_at_a_time_whatever_becomes_due(make: Open) -> None:
    """Two workers that look at the same moment, one just before a delay is over and one just after, must not both find the first of a key."""
    stores = [await make() for _ in range(4)]
    chance = random.Random(1)
    delays = [chance.choice([0.0, 0.0, chance.uniform(0.001, 0.5)]) for _ in range(200)]
    await stores[0].send("q", [QueueDraft(f"m{n}", b"%d" % n, key=f"k{n % 2}", delay=delay) for n, delay in enumerate(delays)], UNBOUNDED)
    busy: set[str | None] = set()
    handled: list[str] = []

    async def work(store: SqlQueue) -> None:
        while len(handled) < len(delays):
            for one in await store.take("q", 3, visibility=30, limits=UNBOUNDED, ordered=True):
                assert one.key not in busy
                busy.add(one.key)
                await store.extend("q", [one], 30)
                busy.remove(one.key)
                handled.append(one.id)
                kind: Any = "retry" if one.attempt == 1 and chance.random() < 0.1 else "done"
                if kind == "retry":
                    handled.pop()
                await store.settle("q", [Verdict(one, kind)], UNBOUNDED)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for store in stores:
            group.create_task(work(store))
    assert sorted(handled) == sorted(f"m{n}" for n in range(len(delays)))


async def test_many_senders_never_go_past_the_size(make: Open) -> None:
    stores = [await make() for _ in range(4)]
    limits = QueueLimits(max_size=50)
    batches = [[QueueDraft(f"{number}.{batch}.{one}", b"1") for one in range(3)] for number in range(4) for batch in range(10)]
    results = await asyncio.gather(*(stores[number % 4].send("q", batch, limits) for number, batch in enumerate(batches)))
    accepted = [result for batch in results for result in batch if isinstance(result, Sent)]
    refused = [result for batch in results for result in batch if isinstance(result, QueueFull)]
    assert (len(accepted), len(refused), (await stores[0].stats("q")).depth) == (50, 70, 50)


async def test_one_key_used_by_many_at_once_is_one_message(make: Open) -> None:
    stores = [await make() for _ in range(4)]
    keys = ["a", "b", "c", "d"]

    def batch(sender: int) -> list[QueueDraft]:
        order = keys[sender:] + keys[:sender]
        return [QueueDraft(f"{sender}{key}", b"1", idempotency_key=key) for key in order]

    results = await asyncio.gather(*(store.send("q", batch(sender), UNBOUNDED) for sender, store in enumerate(stores)))
    sent = [result for batch in results for result in batch if isinstance(result, Sent)]
    assert len(sent) == 16 and sum(not one.duplicate for one in sent) == 4
    assert {one.id for one in sent} == {one.id for one in sent if not one.duplicate}
    assert (await stores[0].stats("q")).depth == 4


async def test_a_key_that_others_keep_using_is_an_error_to_be_repeated(make: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await make()
    await store.send("q", [QueueDraft("a", b"1", idempotency_key="k")], UNBOUNDED)
    monkeypatch.setattr(QueueRows, "_find_keys", lambda *arguments: {})  # as if the other transaction came in between, each time
    with pytest.raises(StoreUnavailable, match="same idempotency keys"):
        await store.send("q", [QueueDraft("b", b"1", idempotency_key="k")], UNBOUNDED)
    assert (await store.stats("q")).depth == 1


# — waking up —


async def test_a_worker_is_woken_by_another_process(make: Open) -> None:
    worker, sender = await make(), await make()
    assert await worker.take("q", 10, visibility=30, limits=UNBOUNDED) == []
    for _ in range(3):
        waiting = asyncio.create_task(worker.wait("q", 60))
        await sender.send("q", drafts(1), UNBOUNDED)
        await asyncio.wait_for(waiting, 5)
        (taken,) = await worker.take("q", 10, visibility=30, limits=UNBOUNDED)
        await worker.settle("q", [Verdict(taken, "done")], UNBOUNDED)
        await worker.take("q", 10, visibility=30, limits=UNBOUNDED)


async def test_a_worker_hears_again_after_the_connection_was_lost(
    postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker, sender = SqlQueue(postgres_url), SqlQueue(postgres_url)
    await worker.open()
    await sender.open()
    try:
        await asyncio.wait_for(worker.wait("q", 60), 5)  # it rings when it hears: something may have come before
        name = postgres_url.partition("@/")[2].partition("?")[0]
        await worker.take("q", 10, visibility=30, limits=UNBOUNDED)
        waiting = asyncio.create_task(worker.wait("q", 60))
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = '{name}'")
        await asyncio.wait_for(waiting, 5)  # and when it hears again
        await worker.take("q", 10, visibility=30, limits=UNBOUNDED)
        waiting = asyncio.create_task(worker.wait("q", 60))
        await sender.send("q", drafts(1), UNBOUNDED)
        await asyncio.wait_for(waiting, 5)
        assert "no notices of messages" in caplog.text
    finally:
        await worker.close()
        await sender.close()


async def test_waiting_in_memory_needs_nobody_to_look() -> None:
    store = SqlQueue("sqlite://")
    await store.open()
    waiting = asyncio.create_task(store.wait("q", 60))
    await asyncio.sleep(0)
    await store.send("q", drafts(1), UNBOUNDED)
    await asyncio.wait_for(waiting, 5)
    await store.close()


# — cost —


async def test_a_long_line_is_looked_at_once(make: Open) -> None:
    """However long the line behind one key, others are reached, and no later take goes through it again."""
    store = await make()
    line = 2 * LOOKED_AT + 500
    await store.send("q", [QueueDraft(f"a{number}", b"1", key="a") for number in range(line)] + [QueueDraft("b", b"1", key="b")], UNBOUNDED)
    taken: list[Taken] = []
    while len(taken) < 2:
        taken += await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True)
        await asyncio.wait_for(store.wait("q", 60), 5)  # it has more to look at, so nobody is made to wait
    assert [one.id for one in taken] == ["a0", "b"]
    held = select(queue_messages.c.seq).where(queue_messages.c.due.is_(None))
    assert len(await store._database.read(lambda connection: connection.scalars(held).all())) == line - 1
    await store.settle("q", [Verdict(taken[0], "done")], UNBOUNDED)
    assert [one.id for one in await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True)] == ["a1"]


async def test_sending_counts_the_messages_only_where_it_has_to(tmp_path: Any) -> None:
    limits = QueueLimits(max_size=100)
    async with Database(f"sqlite:///{tmp_path}/q.db") as database:
        store = SqlQueue(database)
        await store.open()
        statements: list[str] = []
        counted = []
        engine = database._connections._writing.engine  # type: ignore[union-attr]
        sqlalchemy_event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        for number in range(100):
            statements.clear()
            assert isinstance((await store.send("q", [QueueDraft(f"m{number}", b"1")], limits))[0], Sent)
            counted += [number] if any("count(*)" in one for one in statements) else []
        assert isinstance((await store.send("q", drafts(1), limits))[0], QueueFull)
        assert counted == [0]
        await store.close()
        assert database.is_open


@pytest.mark.parametrize(
    ("does", "index"),
    [
        ("take", "realtime_queue_due (queue=? AND due=?)"),
        ("take in order", "realtime_queue_line (queue=? AND message_key=? AND line=?)"),
        ("settle", "INTEGER PRIMARY KEY (rowid=?)"),
    ],
)
async def test_no_statement_goes_through_the_whole_queue(does: str, index: str) -> None:
    """By SQLite's own plan: nothing is scanned or sorted but the list of values that a statement was given."""
    async with Database("sqlite://") as database:
        store = SqlQueue(database)
        await store.open()
        await store.send("q", drafts(10, key="a"), UNBOUNDED)
        asked: list[tuple[str, Any]] = []
        engine = database._connections._writing.engine  # type: ignore[union-attr]
        sqlalchemy_event.listen(engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        taken = await store.take("q", 2, visibility=30, limits=QueueLimits(ttl=60), ordered=does == "take in order")
        if does == "settle":
            asked.clear()
            await store.settle("q", [Verdict(taken[0], "done"), Verdict(taken[1], "retry")], UNBOUNDED)
        plan = await database.read(partial(_explain, asked=list(asked)))
        assert any(index in line for line in plan), plan
        assert [line for line in plan if _is_long(line)] == []
        await store.close()


def _is_long(line: str) -> bool:
    """Whether a step of a plan takes the longer, the more messages there are."""
    is_scan = line.startswith("SCAN") and "VIRTUAL TABLE" not in line
    return is_scan or line.endswith("realtime_queue_due (queue=?)") or "TEMP B-TREE FOR ORDER BY" in line


def _explain(connection: Connection, asked: list[tuple[str, Any]]) -> list[str]:
    plan = []
    for statement, parameters in asked:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            given = parameters[0] if isinstance(parameters, list) else parameters
            plan += [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)]
    return plan


# — what expires in a line —


@pytest.fixture
async def timed() -> AsyncIterator[tuple[SqlQueue, ManualClock]]:
    """A store whose time the test moves."""
    clock = ManualClock()
    store = SqlQueue("sqlite://", clock=clock)
    await store.open()
    yield store, clock
    await store.close()


async def test_what_expires_behind_another_lets_nobody_past_that_one(timed: tuple[SqlQueue, ManualClock]) -> None:
    store, clock = timed
    sent = [QueueDraft("late", b"1", key="k", delay=2), QueueDraft("first", b"1", key="k"), QueueDraft("short", b"1", key="k", ttl=1)]
    await store.send("q", sent, UNBOUNDED)
    (first,) = await store.take("q", 10, visibility=3, limits=UNBOUNDED, ordered=True)
    await clock.advance(2.5)
    assert await store.take("q", 10, visibility=3, limits=UNBOUNDED, ordered=True) == []
    full = QueueLimits(max_size=3)
    assert isinstance((await store.send("q", drafts(1), full))[0], Sent)  # room is made by removing what expired
    assert (await store.stats("q")).expired == 1
    await clock.advance(1)
    assert [one.id for one in await store.take("q", 10, visibility=3, limits=UNBOUNDED, ordered=True)] == ["first", "m0"]
    assert await store.settle("q", [Verdict(first, "done")], UNBOUNDED) == [False]


async def test_what_came_last_and_expires_lets_nobody_past_the_first(timed: tuple[SqlQueue, ManualClock]) -> None:
    store, clock = timed
    await store.send("q", [QueueDraft("late", b"1", key="k", delay=2), QueueDraft("first", b"1", key="k")], UNBOUNDED)
    (first,) = await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True)
    await clock.advance(2.5)
    assert await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True) == []
    await store.send("q", [QueueDraft("last", b"1", key="k", ttl=1)], UNBOUNDED)
    await clock.advance(2)
    assert await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True) == []
    assert (await store.stats("q")).expired == 1
    await store.settle("q", [Verdict(first, "retry")], UNBOUNDED)
    assert [one.id for one in await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True)] == ["first"]


async def test_a_line_that_expired_makes_way(timed: tuple[SqlQueue, ManualClock]) -> None:
    store, clock = timed
    await store.send("q", [*drafts(5, key="k", ttl=1), QueueDraft("last", b"1", key="k")], UNBOUNDED)
    (first,) = await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True)
    await clock.advance(2)
    await store.settle("q", [Verdict(first, "retry")], UNBOUNDED)
    taken: list[Taken] = []
    while not taken:
        taken = await store.take("q", 10, visibility=60, limits=UNBOUNDED, ordered=True)
        await asyncio.wait_for(store.wait("q", 0), 5)
    assert [one.id for one in taken] == ["last"]
    assert (await store.stats("q")).expired == 5


# — what is left over —


async def test_nothing_is_left_of_what_is_finished(store_url: str) -> None:
    async with Database(store_url) as database:
        clock = ManualClock()
        store = SqlQueue(database, clock=clock)
        await store.open()
        short = QueueLimits(idempotency_window=0.001)
        await store.send("q", [QueueDraft("a", b"1", key="k", idempotency_key="i"), QueueDraft("b", b"1")], short)
        taken = await store.take("q", 10, visibility=30, limits=short, ordered=True)
        await store.settle("q", [Verdict(taken[0], "done"), Verdict(taken[1], "dead", reason="no")], short)
        await store.purge("q", dead=True)
        await clock.advance(SWEEP_EVERY)
        await store.take("q", 10, visibility=30, limits=short)
        for table in (queue_messages, queue_letters, queue_keys, queue_counts):
            assert await database.read(partial(_read, table=table)) == []
        await store.close()


def _read(connection: Connection, table: Table) -> list[Any]:
    return list(connection.execute(table.select()))


async def test_a_place_is_never_used_twice(make: Open) -> None:
    """What somebody still says about a message that was purged means no other one."""
    store = await make()
    await store.send("q", drafts(1), UNBOUNDED)
    (old,) = await store.take("q", 1, visibility=30, limits=UNBOUNDED)
    await store.purge("q")
    await store.send("q", drafts(1), UNBOUNDED)
    (new,) = await store.take("q", 1, visibility=30, limits=UNBOUNDED)
    assert await store.settle("q", [Verdict(old, "done")], UNBOUNDED) == [False]
    assert await store.settle("q", [Verdict(new, "done")], UNBOUNDED) == [True]


async def test_a_late_word_about_a_handing_out_before_counts_for_nothing(make: Open) -> None:
    """After it was given back the attempt has the same number again."""
    store = await make()
    await store.send("q", drafts(1), UNBOUNDED)
    (first,) = await store.take("q", 1, visibility=30, limits=UNBOUNDED)
    await store.settle("q", [Verdict(first, "release")], UNBOUNDED)
    (second,) = await store.take("q", 1, visibility=30, limits=UNBOUNDED)
    assert (first.attempt, second.attempt) == (1, 1)
    assert await store.settle("q", [Verdict(first, "done")], UNBOUNDED) == [False]
    assert await store.extend("q", [first, second], 30) == [False, True]


# — its life —


async def test_before_open_and_after_close_it_is_not_there() -> None:
    store = SqlQueue("sqlite://")
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.send("q", drafts(1), UNBOUNDED)
    await store.open()
    await store.open()
    await store.send("q", drafts(1), UNBOUNDED)
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.stats("q")


async def test_many_dead_letters_are_moved_and_removed(make: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice at a time, so that others get their turn."""
    monkeypatch.setattr("aibos_realtime.backends.sql.queue_overview.SLICE", 3)
    store = await make()
    await store.send("q", drafts(10), UNBOUNDED)
    taken = await store.take("q", 10, visibility=30, limits=UNBOUNDED)
    await store.settle("q", [Verdict(one, "dead", reason="no") for one in taken], UNBOUNDED)
    assert await store.requeue("q", None, UNBOUNDED) == 10
    assert [one.id for one in await store.take("q", 20, visibility=30, limits=UNBOUNDED)] == [f"m{number}" for number in range(10)]
    assert await store.purge("q") == 10
