"""Two brokers as one: rooms declared `ephemeral` go to the one in memory, all others to the one that stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..backends.base import Broker, Draft, LoggedEvent, Page, Receipt, Receiver
from ..protocol.messages import Position


class SplitBroker:
    """See `backends.base.Broker`. `is_ephemeral(room)` must say the same of a room for as long as the process lives."""

    def __init__(self, *, durable: Broker, ephemeral: Broker, is_ephemeral: Callable[[str], bool]) -> None:
        self._durable = durable
        self._ephemeral = ephemeral
        self._is_ephemeral = is_ephemeral

    def attach(self, receiver: Receiver) -> None:
        self._durable.attach(receiver)
        self._ephemeral.attach(receiver)

    async def start(self) -> None:
        await self._ephemeral.start()
        await self._durable.start()

    async def stop(self) -> None:
        try:
            await self._durable.stop()
        finally:
            await self._ephemeral.stop()

    @property
    def is_available(self) -> bool:
        return self._durable.is_available

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        return (self._ephemeral if draft.ephemeral else self._durable).publish(draft)

    def send_volatile(self, event: LoggedEvent) -> None:
        self._of(event.room).send_volatile(event)

    async def position(self, room: str) -> Position:
        return await self._of(room).position(room)

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        return await self._of(room).read_after(room, after, limit)

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        return await self._of(room).read_before(room, before, limit)

    def _of(self, room: str) -> Broker:
        return self._ephemeral if self._is_ephemeral(room) else self._durable
