"""A publisher and a subscriber that write down everything. They are the project's own client, and come back by themselves whatever happens.

They follow the documented rules and no others: a publish that fails in a retryable way is repeated under its id until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from aibos_realtime import Event, Position, RealtimeClient, RealtimeError, WebSocketAuth
from aibos_realtime.client.room import HistoryPage
from aibos_realtime.clock import SYSTEM_CLOCK
from tests.faults.journal import Acknowledged, Attempt, Delivered, Joined, Journal, Record, Refused, Told, Unknown
from tests.faults.server_program import SECRET

T = TypeVar("T")

EVENT = "tick"
PATIENCE = 12.0
"""Seconds in which everybody has to get going again after a fault, and to be done in the end."""

Moment = Literal["acknowledgement", "delivery"]
Notice = Callable[[Moment], None]

pause = SYSTEM_CLOCK.sleep


def issue_token(user_id: str) -> str:
    """A token for the rig's server."""
    return WebSocketAuth(jwt_secret=SECRET).issue(user_id=user_id, expires_in="24h")


def make_client(url: str | Sequence[str], user_id: str, chance: random.Random, *, haste: float = 0.003, **options: Any) -> RealtimeClient:
    """A client that is back within milliseconds, however often it was lost. `haste`: what it waits, as a share of what others do."""
    return RealtimeClient(url, token=issue_token(user_id), random=lambda: chance.random() * haste, **options)


class Publisher:
    """Publishes to its rooms in turn: `window` at a time, `pace` seconds apart on average.

    `patience`: seconds after which it gives an event up and goes on, never to know what became of it; None: it repeats until it knows.
    """

    def __init__(
        self, name: str, client: RealtimeClient, rooms: list[str], journal: Journal, chance: random.Random,
        *, window: int = 1, pace: float = 0.01, patience: float | None = None, notice: Notice,
    ) -> None:  # fmt: skip
        self.name = name
        self.client = client
        self.sent = 0
        self.acknowledged = 0
        self.errors: Counter[str] = Counter()
        self.waits: list[float] = []
        """Seconds until each retryable error was heard."""
        self._rooms = rooms
        self.journal = journal
        self._chance = chance
        self._window = asyncio.Semaphore(window)
        self._pace = pace
        self._patience = patience
        self.gives_up = patience is not None
        self._notice = notice
        self._news = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop, and until everything sent is answered."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await self._window.acquire()
                self.sent += 1
                group.create_task(self._publish(self._rooms[self.sent % len(self._rooms)], f"{self.name}.{self.sent}"))
                await pause(self._chance.expovariate(1 / self._pace))

    async def until_acknowledged(self, count: int) -> None:
        """Wait until so many were acknowledged from now on."""
        goal = self.acknowledged + count
        while self.acknowledged < goal:
            self._news.clear()
            await self._news.wait()

    async def until_refused(self, code: str) -> None:
        """Wait until one was refused with this code from now on."""
        before = self.errors[code]
        while self.errors[code] == before:
            self._news.clear()
            await self._news.wait()

    async def _publish(self, room: str, id: str) -> None:
        data = {"id": id, "text": "x" * self._chance.randrange(200)}
        try:
            while True:
                self.journal.write(Attempt(self.name, room, id), flush=True)
                began = SYSTEM_CLOCK.monotonic()
                try:
                    receipt = await self.client.send_message(EVENT, data, room=room, id=id, timeout=self._patience)
                except RealtimeError as error:
                    self.errors[error.code] += 1
                    self._news.set()
                    if not error.retryable:
                        self.journal.write(Refused(self.name, room, id, error.code))
                        return
                    self.waits.append(SYSTEM_CLOCK.monotonic() - began)
                    self.journal.write(Unknown(self.name, room, id, error.code))
                    if self._patience is not None:
                        return
                    await pause(0.05)
                else:
                    self._notice("acknowledgement")
                    self.journal.write(Acknowledged(self.name, room, id, receipt.position.epoch, receipt.position.offset))
                    self.acknowledged += 1
                    self._news.set()
                    return
        finally:
            self._window.release()


class Subscriber:
    """Follows its rooms and writes down what its callbacks are told."""

    def __init__(
        self,
        name: str,
        url: str | Sequence[str],
        rooms: list[str],
        journal: Journal,
        chance: random.Random,
        notice: Notice,
        options: Mapping[str, Any],
    ) -> None:
        self._notice = notice
        self.name = name
        self.rooms = rooms
        self.told = 0
        self.errors: Counter[str] = Counter()
        self._url = url
        self.journal = journal
        self._chance = chance
        self._options = options
        self._early: dict[str, list[Record]] = {room: [] for room in rooms}
        self._newest: dict[str, int] = {}
        """By publisher the number of what was given last."""
        self._news = asyncio.Event()
        self.client = self._make()

    async def start(self) -> None:
        """Connect, and join every room."""
        await self.client.connect()
        for room in self.rooms:
            state = await self.client.join_room(room)
            self.journal.write(Joined(self.name, room, state.position.epoch, state.position.offset))
            for record in self._early.pop(room):  # its callback may be quicker than whoever awaits the join
                self.journal.write(record)

    async def until_at(self, ends: Mapping[str, Position]) -> None:
        """Wait until the callbacks are done with everything up to these places."""
        while any(self.client.position(room) != ends[room] for room in self.rooms):
            self._news.clear()
            await self._news.wait()

    async def until_given(self, publisher: str, after: int) -> None:
        """Wait until a callback got an event of this publisher that was sent after its first `after`."""
        while self._newest.get(publisher, 0) <= after:
            self._news.clear()
            await self._news.wait()

    async def wander(self, stop: asyncio.Event) -> None:
        """Leave for good now and then, and come back as a new client with the places that the old one had reached."""
        while not stop.is_set():
            await pause(self._chance.uniform(0.05, 0.5))
            await self.client.close()
            places = {room: self.client.position(room) for room in self.rooms}
            await pause(self._chance.uniform(0.0, 0.1))
            self.client = self._make()
            await self.client.connect()
            for room, place in places.items():
                await ask_again(partial(self.client.join_room, room, recover=place))
            self._news.set()

    def _make(self) -> RealtimeClient:
        client = make_client(self._url, self.name, self._chance, **self._options)
        client.on(EVENT, self._take)
        client.on("resync", self._take_resync)
        client.on("error", self._take_error)
        return client

    def _take(self, data: Any, event: Event) -> None:
        self._notice("delivery")
        assert event.epoch is not None and event.offset is not None
        publisher, _, number = event.id.rpartition(".")
        self._newest[publisher] = int(number)
        self._write(event.room, Delivered(self.name, event.room, event.epoch, event.offset, event.id))

    def _take_resync(self, resynced: Any) -> None:
        if resynced.room in self.rooms:
            self.told += 1
            place = resynced.position
            self._write(resynced.room, Told(self.name, resynced.room, place and place.epoch, place and place.offset))

    def _take_error(self, error: Exception) -> None:
        self.errors[getattr(error, "code", type(error).__name__)] += 1

    def _write(self, room: str, record: Record) -> None:
        if room in self._early:
            self._early[room].append(record)
        else:
            self.journal.write(record)
        self._news.set()


async def read_history(client: RealtimeClient, room: str, **options: Any) -> HistoryPage:
    """A page, asked for again where the server says that it may be."""
    async with asyncio.timeout(PATIENCE):
        return await ask_again(partial(client.history, room, **options))


async def ask_again(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again after every retryable error."""
    while True:
        try:
            return await ask()
        except RealtimeError as error:
            if not error.retryable:
                raise
            await pause(0.1)
