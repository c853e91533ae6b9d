"""For tests of the shared log in Redis: a log with somebody who writes down what it tells, and whole brokers on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aibos_realtime import Position
from aibos_realtime.backends.base import Draft, LoggedEvent
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.log import RedisLog
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.backends.shared_log import Append, Appended
from aibos_realtime.metrics import Metrics
from aibos_realtime.storage.shared_broker import SharedBroker
from tests.receiver import Recorder

NOW = 1_700_000_000_000
PATIENCE = 10.0

_ids = itertools.count(1)


def draft(room: str = "lobby", data: bytes = b"1", **more: Any) -> Draft:
    return Draft(room, more.pop("event", "note"), data, more.pop("id", "") or f"id{next(_ids)}", **more)


class Ears:
    """See `backends.shared_log.Listener`: it writes down what it hears."""

    def __init__(self) -> None:
        self.events: list[LoggedEvent] = []
        self.volatile: list[LoggedEvent] = []
        self.notices: list[tuple[str, bytes]] = []
        self.probes: list[tuple[int, str]] = []
        self.commits: list[tuple[int, str]] = []
        self.rooms: list[str] = []
        self.interruptions = 0
        self._news = asyncio.Event()

    def heard(self, event: LoggedEvent) -> None:
        self.events.append(event)
        self._news.set()

    def heard_volatile(self, event: LoggedEvent) -> None:
        self.volatile.append(event)
        self._news.set()

    def heard_notice(self, room: str, payload: bytes) -> None:
        self.notices.append((room, payload))
        self._news.set()

    def heard_probe(self, shard: int, token: str) -> None:
        self.probes.append((shard, token))
        self._news.set()

    def heard_committed(self, shard: int, life: str, entry: str) -> None:
        self.commits.append((shard, entry))
        self._news.set()

    def followed(self, rooms: Sequence[str]) -> None:
        self.rooms += rooms
        self._news.set()

    def interrupted(self) -> None:
        self.interruptions += 1
        self._news.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, which changes no more often than this hears something."""
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                self._news.clear()
                await self._news.wait()


class Bench:
    """One node's log, and what it hears."""

    def __init__(self, log: RedisLog, ears: Ears, metrics: Metrics) -> None:
        self.log = log
        self.ears = ears
        self.metrics = metrics

    async def command(self, *words: Any) -> Any:
        return await self.log.client.command(*words)

    def key(self, name: str, room: str = "lobby") -> str:
        return self.log.layout.of_room(room, name)

    def shard_key(self, name: str) -> str:
        return self.log.layout.of_shard(0, name)

    async def append(self, *drafts: Draft, seen: Sequence[Position] = (), now: int = NOW) -> list[Appended]:
        return await self.log.append(0, [Append(one, now, seen) for one in drafts], is_awaited=False)

    async def begin(self, room: str = "lobby", epoch: str = "e1") -> Position:
        return await self.log.begin(room, epoch, (), ())

    async def fill(self, count: int, room: str = "lobby", epoch: str = "e1", **more: Any) -> list[Position]:
        """Begin a room, and append so many events."""
        await self.begin(room, epoch)
        outcomes = await self.append(*(draft(room, **more) for _ in range(count)))
        return [outcome.position for outcome in outcomes if outcome.position is not None]


@asynccontextmanager
async def log_on(url: str, prefix: str, *, node: str = "a", has_store: bool = False, **more: Any) -> AsyncIterator[Bench]:
    """A log without a broker."""
    client = Client(read_url(url))
    await client.open()
    metrics, ears = Metrics(), Ears()
    log = RedisLog(client, prefix=prefix, node=node, has_store=has_store, metrics=metrics, **more)
    log.attach(ears)
    await log.start()
    try:
        yield Bench(log, ears, metrics)
    finally:
        await log.stop()
        await client.close()


class Member:
    """One node: a broker, and a receiver that checks what it is told."""

    def __init__(self, broker: SharedBroker, log: RedisLog, metrics: Metrics) -> None:
        self.broker = broker
        self.log = log
        self.metrics = metrics
        self.receiver = Recorder()
        broker.attach(self.receiver)

    async def watch(self, *rooms: str) -> list[Position]:
        self.receiver.watched |= set(rooms)
        return [await self.broker.position(room) for room in rooms]

    async def publish(self, room: str = "lobby", **more: Any) -> Position:
        receipt = await self.broker.publish(draft(room, **more))
        assert receipt.position is not None
        return receipt.position

    def events(self, room: str = "lobby") -> list[LoggedEvent]:
        return [event for event in self.receiver.delivered if event.room == room]

    def resyncs(self, room: str = "lobby") -> list[Position]:
        return [position for name, position, _ in self.receiver.resyncs if name == room]

    async def until_at(self, position: Position, patience: float = PATIENCE) -> None:
        """Wait until everything up to a position was delivered."""
        await self.receiver.until(
            lambda: any((event.epoch, event.offset) == (position.epoch, position.offset) for event in self.receiver.delivered), patience
        )


@asynccontextmanager
async def members_on(url: str, prefix: str, count: int = 2) -> AsyncIterator[list[Member]]:
    """So many nodes, each with connections of its own."""
    members = []
    clients = []
    try:
        for number in range(count):
            client = Client(read_url(url))
            clients.append(client)
            await client.open()
            metrics = Metrics()
            log = RedisLog(client, prefix=prefix, node=f"node{number}", has_store=False, metrics=metrics)
            member = Member(SharedBroker(log, metrics=metrics), log, metrics)
            members.append(member)
            await member.broker.start()
        yield members
    finally:
        for member in members:
            await member.broker.stop()
        for client in clients:
            await client.close()
