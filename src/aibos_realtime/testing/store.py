"""A store in memory, for tests: it keeps what a SQL store keeps, and its owner can have it fail in the ways in which one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..backends.base import Batch, Key, LoggedEvent, Refused, Stored
from ..backends.epochs import new_epoch
from ..errors import StoreUnavailable
from ..protocol.messages import Position


class MemoryStore:
    """See `base.EventStore`. What it holds outlives `close`: opened again, it is the store after a restart."""

    def __init__(self) -> None:
        self.rows: list[LoggedEvent] = []
        """By insertion; one without a payload has empty `data`."""
        self.ends: dict[str, Position] = {}
        self.epoch = new_epoch()
        self.batches: list[int] = []
        """How many events each transaction had."""
        self.poisoned: set[str] = set()
        """Ids of events that cannot be stored."""
        self.is_down = False
        """Every call fails."""
        self.loses_answers = False
        """An `append` is carried out, and then fails."""
        self.gate = asyncio.Event()
        """While it is not set, an `append` waits."""
        self.gate.set()

    async def open(self) -> tuple[str, dict[str, Position]]:
        self._check()
        return self.epoch, dict(self.ends)

    async def close(self) -> None:
        pass

    async def append(self, batch: Batch) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        self._check()
        keys = [_key(event) for event in batch.events]
        taken = {_key(row) for row in self.rows}
        if len(set(keys)) < len(keys) or not taken.isdisjoint(keys) or not self.poisoned.isdisjoint(event.id for event in batch.events):
            raise Refused("an id is taken, or a row is poisoned")
        for number, event in enumerate(batch.events):
            hollow = number in batch.hollow
            self.rows.append(
                LoggedEvent(event.room, event.event, b"" if hollow else event.data, event.id, event.epoch, event.offset, event.timestamp,
                            event.user_id, None if hollow else event.audience)
            )  # fmt: skip
        self.ends |= batch.heads
        self.batches.append(len(batch.events))
        if self.loses_answers:
            raise StoreUnavailable("The connection was lost.")

    async def heads(self, rooms: Iterable[str]) -> dict[str, Position]:
        self._check()
        return {room: self.ends[room] for room in rooms if room in self.ends}

    async def find(self, keys: Iterable[Key]) -> dict[Key, Stored]:
        self._check()
        wanted = set(keys)
        return {key: Stored(row.event, row.data or None, Position(row.epoch, row.offset)) for row in self.rows if (key := _key(row)) in wanted}

    async def read_after(self, room: str, after: Position, limit: int) -> list[LoggedEvent]:
        self._check()
        return sorted((row for row in self._of(room, after.epoch) if row.offset > after.offset), key=_offset)[:limit]

    async def read_before(self, room: str, before: Position, limit: int) -> list[LoggedEvent]:
        self._check()
        return sorted((row for row in self._of(room, before.epoch) if row.offset < before.offset), key=_offset)[-limit:]

    async def forget(self, rooms: Iterable[str], epoch: str) -> None:
        self._check()
        for room in rooms:
            self.ends.pop(room, None)
        self.epoch = epoch

    def _of(self, room: str, epoch: str) -> Iterable[LoggedEvent]:
        return (row for row in self.rows if row.room == room and row.epoch == epoch)

    def _check(self) -> None:
        if self.is_down:
            raise StoreUnavailable()


def _key(event: LoggedEvent) -> Key:
    return event.room, event.user_id or "", event.id


def _offset(event: LoggedEvent) -> int:
    return event.offset
