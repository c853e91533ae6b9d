"""Who a broker hands its events to, in tests: it writes down what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aibos_realtime import Position
from aibos_realtime.backends.base import LoggedEvent

PATIENCE = 5.0


@dataclass
class Recorder:
    """See `backends.base.Receiver`. `watched`: the rooms whose events are wanted."""

    delivered: list[LoggedEvent] = field(default_factory=list)
    volatile: list[LoggedEvent] = field(default_factory=list)
    resyncs: list[tuple[str, Position, int]] = field(default_factory=list)
    """(room, position, how many events had been delivered before)."""
    watched: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, event: LoggedEvent) -> None:
        self.delivered.append(event)
        self.news.set()

    def deliver_volatile(self, event: LoggedEvent) -> None:
        self.volatile.append(event)
        self.news.set()

    def resync(self, room: str, position: Position) -> None:
        self.resyncs.append((room, position, len(self.delivered)))
        self.news.set()

    def is_watched(self, room: str) -> bool:
        return room in self.watched

    async def until(self, is_so: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until something is so, which changes no more often than this is told something. Raises `TimeoutError`."""
        async with asyncio.timeout(patience):
            while not is_so():
                self.news.clear()
                await self.news.wait()
