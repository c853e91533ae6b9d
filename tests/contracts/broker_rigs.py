"""For the contract of brokers: one of each kind, with what a test needs to know of it, and its time in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aibos_realtime import Position
from aibos_realtime.backends.base import Broker, EventStore, LoggedEvent
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.intake import RedisIntake
from aibos_realtime.backends.redis.lease import RedisLease
from aibos_realtime.backends.redis.log import RedisLog
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.storage.drain import Drainer
from aibos_realtime.storage.shared_broker import SharedBroker
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.shared_log import MemoryLog
from aibos_realtime.testing.store import MemoryStore
from tests.receiver import Recorder

IN_MEMORY = ("memory", "stored", "shared", "shared+store")
PATIENCE = 5.0
TICKING = 10.0
"""Seconds of a longer time in which timers run."""

Age = Callable[[float], Awaitable[None]]
Step = Callable[[], Awaitable[None]]


async def nothing() -> None: ...


@dataclass
class Bench:
    """`age`: have so many seconds go by. `until_stored`: wait until the store has what was published."""

    broker: Broker
    clock: ManualClock
    age: Age
    until_stored: Step = nothing
    keeps_events: bool = False
    """For longer than the recovery window."""
    keeps_ids: bool = False
    """For longer than five minutes."""
    receiver: Recorder = field(default_factory=Recorder)

    @property
    def delivered(self) -> list[LoggedEvent]:
        return self.receiver.delivered

    @property
    def watched(self) -> set[str]:
        return self.receiver.watched

    @property
    def is_shared(self) -> bool:
        """It delivers what comes back from the log: of rooms that are watched, some time after the receipt."""
        return isinstance(self.broker, SharedBroker)

    async def watch(self, room: str) -> Position:
        """Have the events of a room delivered, as from the returned position on."""
        if self.is_shared:
            self.watched.add(room)
        return await self.broker.position(room)

    async def until_delivered(self, *positions: Position | None) -> None:
        """Wait until all of these events were delivered."""
        wanted = {position for position in positions if position is not None}
        await self.receiver.until(lambda: wanted <= {Position(event.epoch, event.offset) for event in self.delivered})


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    """Attach and start the broker, and stop it."""
    bench.broker.attach(bench.receiver)
    await bench.broker.start()
    try:
        yield bench
    finally:
        await bench.broker.stop()


@asynccontextmanager
async def rig_in_memory(kind: str) -> AsyncIterator[Bench]:
    clock = ManualClock()
    if kind == "memory":
        bench = Bench(MemoryBroker(clock=clock), clock, clock.advance)
    elif kind == "stored":
        bench = Bench(StoredBroker(MemoryStore(), clock=clock), clock, clock.advance, keeps_events=True, keeps_ids=True)
    else:
        async with _shared_in_memory(clock, has_store=kind == "shared+store") as bench, running(bench):
            yield bench
        return
    async with running(bench):
        yield bench


@asynccontextmanager
async def _shared_in_memory(clock: ManualClock, *, has_store: bool) -> AsyncIterator[Bench]:
    log = MemoryLog(clock=clock, has_store=has_store)
    store = MemoryStore() if has_store else None
    broker = SharedBroker(log.node("a"), store=store, clock=clock)

    async def age(seconds: float) -> None:
        """What is in the log lives so much shorter. Most of it goes by at once: there are many timers in a second."""
        await clock.advance(min(seconds, TICKING))
        if seconds > TICKING:
            clock.jump(seconds - TICKING)
            log.age_by(seconds - TICKING)

    if store is None:
        yield Bench(broker, clock, age)
        return
    drainer = Drainer(log.intake, store, MemoryLease(), clock=clock)
    await drainer.start()

    async def until_stored() -> None:
        for _ in range(200):
            if not any(log.waiting):
                return
            log.somebody_waits.set()
            await settle()
        raise TimeoutError(f"{log.waiting}, {drainer.is_holder}, {drainer.is_store_available}")

    yield Bench(broker, clock, age, until_stored, keeps_events=True)
    await drainer.stop()


@asynccontextmanager
async def rig_stored(url: str) -> AsyncIterator[Bench]:
    """The broker of one node, on a database."""
    database, clock = Database(url), ManualClock()
    async with running(Bench(StoredBroker(SqlEventStore(database), clock=clock), clock, clock.advance, keeps_events=True, keeps_ids=True)) as bench:
        yield bench
    await database.close()


@asynccontextmanager
async def rig_redis(url: str, prefix: str, database_url: str | None = None) -> AsyncIterator[Bench]:
    """The broker of one of several nodes. The nodes' time is the test's, that of Redis and of the drainer passes by itself."""
    async with AsyncExitStack() as stack:
        client = Client.from_options(RedisOptions(url=url))
        await client.open()
        stack.push_async_callback(client.close)
        log = RedisLog(client, prefix=prefix, node="a", has_store=database_url is not None)
        clock = ManualClock()

        async def age(seconds: float) -> None:
            """What is in Redis lives so much shorter."""
            await clock.advance(min(seconds, TICKING))
            clock.jump(max(0.0, seconds - TICKING))
            for key in await client.scan(f"{prefix}:*"):
                left = await client.command("PTTL", key)
                if left >= 0:
                    await client.command("PEXPIRE", key, left - int(seconds * 1000))

        if database_url is None:
            bench = Bench(SharedBroker(log, clock=clock), clock, age)
        else:
            database = Database(database_url)
            stack.push_async_callback(database.close)
            store: EventStore = SqlEventStore(database)
            intake = TellingIntake(log)
            drainer = Drainer(intake, store, RedisLease(client, log.layout, "store", "a"), on_era=log.enter_era)
            await drainer.start()
            stack.push_async_callback(store.close)
            stack.push_async_callback(drainer.stop)
            broker = SharedBroker(log, store=store, clock=clock)

            async def until_stored() -> None:
                async with asyncio.timeout(PATIENCE):
                    for shard in range(log.shards):
                        intake.has_dropped.clear()
                        while await client.command("XLEN", log.layout.of_shard(shard, "intake")):
                            await intake.has_dropped.wait()
                            intake.has_dropped.clear()

            bench = Bench(broker, clock, age, until_stored, keeps_events=True)
        await stack.enter_async_context(running(bench))
        yield bench


class TellingIntake(RedisIntake):
    """It tells when something of it went to the store."""

    def __init__(self, log: RedisLog) -> None:
        super().__init__(log)
        self.has_dropped = asyncio.Event()

    async def drop(self, shard: int, up_to: str) -> None:
        await super().drop(shard, up_to)
        self.has_dropped.set()


class MemoryLease:
    """See `backends.intake.Lease`; always free."""

    ttl = 5.0

    async def hold(self) -> bool:
        return True

    async def release(self) -> None: ...
