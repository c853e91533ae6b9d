"""One node's connections to a `MemoryLog`: what they deliver, lose, double, delay and put out of order is up to the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..backends.base import LoggedEvent
from ..backends.shared_log import Append, Appended, End, Listener, Remembered, Stretch
from ..errors import BrokerUnavailable
from ..protocol.messages import Position

if TYPE_CHECKING:
    from .shared_log import MemoryLog

T = TypeVar("T")

FIRST_DELAY, NEXT_DELAY = 0.05, 0.25
"""Seconds until a lost connection is tried again for the first time, unless `away` says otherwise, and after that."""


class LogNode:
    """See `backends.shared_log.SharedLog`."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self.name = name
        self.shards = log.shards
        self.shard = log.shard
        self.is_cut_off = False
        """Its calls fail."""
        self.replies_lost = 0
        """Of how many calls to come nothing is heard, though they are carried out."""
        self.is_deaf = False
        """It hears nothing, without a word, until it connects anew."""
        self.deaf_rooms: set[str] = set()
        """Rooms of which it hears nothing, until it follows them anew."""
        self.fate: Callable[[], Sequence[float]] | None = None
        """The seconds after which each copy of the next message arrives: none is a loss. None: one copy, at once."""
        self.turns: Callable[[], int] = lambda: 1
        """How many turns of the loop a call takes to the log, and its reply back."""
        self.away = FIRST_DELAY
        """Seconds for which a lost connection stays away, at least."""
        self.reconnects = 0
        self._log = log
        self._listener: Listener | None = None
        self._followed: dict[str, list[asyncio.Future[None]]] = {}
        self._heard: set[str] = set()
        self._connection = 0
        self._is_up = False

    @property
    def is_connected(self) -> bool:
        return self._is_up and len(self._heard) == len(self._followed)

    def attach(self, listener: Listener) -> None:
        self._listener = listener

    async def start(self) -> None:
        self._come_back(self._connection)

    async def stop(self) -> None:
        self._is_up = False
        self._connection += 1
        for waiting in self._followed.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(BrokerUnavailable())
                    future.exception()
        self._followed.clear()
        self._heard.clear()

    # — calls —

    async def append(self, shard: int, events: Sequence[Append], *, is_awaited: bool) -> list[Appended]:
        return await self._call(partial(self._log.append, shard, events, is_awaited))

    async def age(self, shard: int) -> float:
        return await self._call(self._log.age)

    async def end(self, room: str, seen: Sequence[Position], *, is_settled: bool = False) -> End:
        return await self._call(partial(self._log.end, room, seen, is_settled))

    async def begin(self, room: str, epoch: str, seen: Sequence[Position], ids: Sequence[Remembered]) -> Position:
        return await self._call(partial(self._log.begin, room, epoch, seen, ids))

    async def enter_era(self, era: str) -> None:
        await self._call(partial(self._log.enter_era, era))

    async def heads(self, shard: int, rooms: Sequence[str]) -> list[Position | None]:
        def read() -> list[Position | None]:
            return [Position(head.epoch, head.offset) if (head := self._log.head(room)) is not None else None for room in rooms]

        return await self._call(read)

    async def read_after(self, room: str, after: Position, limit: int) -> Stretch:
        return await self._call(partial(self._log.read_after, room, after, limit))

    async def read_before(self, room: str, before: int | None, limit: int) -> Stretch:
        return await self._call(partial(self._log.read_before, room, before, limit))

    async def committed(self, shard: int) -> tuple[str, str]:
        return await self._call(lambda: (self._log.life, self._log.stored[shard]))

    async def probe(self, shard: int, token: str) -> bool:
        def send() -> bool:
            self._tell(partial(self._hear_probe, shard, token))
            return self._is_up

        return await self._call(send)

    async def _call(self, act: Callable[[], T]) -> T:
        await self._turn()
        await self._log.answer()
        if self.is_cut_off:
            raise BrokerUnavailable()
        result = act()
        await self._turn()
        if self.replies_lost:
            self.replies_lost -= 1
            raise BrokerUnavailable()
        return result

    async def _turn(self) -> None:
        for _ in range(self.turns()):
            await asyncio.sleep(0)

    # — hearing —

    def follow(self, room: str) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._followed.setdefault(room, []).append(future)
        if self._is_up:
            loop.call_soon(self._confirm, self._connection, room)
        return future

    def unfollow(self, room: str) -> None:
        self._heard.discard(room)
        self.deaf_rooms.discard(room)
        for future in self._followed.pop(room, ()):
            future.cancel()

    def reconnect(self) -> None:
        self.reconnects += 1
        self.lose_connection()

    def lose_connection(self) -> None:
        """Hear nothing for a while, and know it."""
        if self._is_up:
            self._is_up = False
            self._connection += 1
            self._heard.clear()
            assert self._listener is not None
            self._listener.interrupted()
            self._log.clock.call_later(self.away, self._come_back, self._connection)

    def _come_back(self, connection: int) -> None:
        if connection != self._connection or self._is_up:
            return
        if self._log.is_down or self._log.is_hung or self.is_cut_off:
            self._log.clock.call_later(NEXT_DELAY, self._come_back, connection)
            return
        self._is_up, self.is_deaf = True, False
        for room in self._followed:
            self._confirm(connection, room)
        if not self._followed and self._listener is not None:
            self._listener.followed([])

    def _confirm(self, connection: int, room: str) -> None:
        if connection != self._connection or room not in self._followed:
            return
        self._heard.add(room)
        waiting, self._followed[room] = self._followed[room], []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        assert self._listener is not None
        asyncio.get_running_loop().call_soon(self._listener.followed, [room])

    def send_volatile(self, event: LoggedEvent) -> None:
        for node in self._log.nodes:
            if node is not self:
                node.tell_volatile(event)

    # — what the log sends —

    def tell_event(self, event: LoggedEvent) -> None:
        assert self._listener is not None
        if event.room in self._heard and event.room not in self.deaf_rooms:
            self._tell(partial(self._listener.heard, event))

    def tell_volatile(self, event: LoggedEvent) -> None:
        assert self._listener is not None
        if event.room in self._heard:
            self._tell(partial(self._listener.heard_volatile, event))

    def tell_notice(self, room: str, payload: bytes) -> None:
        assert self._listener is not None
        if room in self._heard:
            self._tell(partial(self._listener.heard_notice, room, payload))

    def tell_committed(self, shard: int, life: str, entry: str) -> None:
        assert self._listener is not None
        self._tell(partial(self._listener.heard_committed, shard, life, entry))

    def _hear_probe(self, shard: int, token: str) -> None:
        assert self._listener is not None
        self._listener.heard_probe(shard, token)

    def _tell(self, hear: Callable[[], Any]) -> None:
        if not self._is_up or self.is_deaf:
            return
        for delay in (0.0,) if self.fate is None else self.fate():
            if delay > 0:
                self._log.clock.call_later(delay, self._arrive, self._connection, hear)
            else:
                asyncio.get_running_loop().call_soon(self._arrive, self._connection, hear)

    def _arrive(self, connection: int, hear: Callable[[], Any]) -> None:
        if connection == self._connection and self._is_up and not self.is_deaf:
            hear()
