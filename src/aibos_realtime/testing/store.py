"""A store in memory, for tests: it keeps what a SQL store keeps, and its owner can have it fail in the ways in which one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from msgspec import structs

from ..backends.base import Batch, Key, LoggedEvent, Refused, Stored
from ..backends.epochs import new_epoch
from ..backends.shared_log import Remembered
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
        self.buried: list[tuple[LoggedEvent, str]] = []
        """The dead messages, with their reasons."""
        self.is_down = False
        """Every call fails."""
        self.loses_answers = False
        """An `append` is carried out, and then fails. So is `append_once`."""
        self.gate = asyncio.Event()
        """While it is not set, an `append` waits. So does `append_once`."""
        self.gate.set()
        self._era = ""

    async def open(self) -> tuple[str, dict[str, Position]]:
        self._check()
        self._era = ""
        return self.epoch, dict(self.ends)

    async def share(self) -> str:
        self._check()
        if not self._era:
            self.ends, self.epoch, self._era = {}, new_epoch(), new_epoch()
        return self._era

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
        self.ends |= batch.heads
        self._store(batch.events, batch.hollow)

    async def append_once(self, events: Sequence[LoggedEvent], hollow: frozenset[int]) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        self._check()
        if not self.poisoned.isdisjoint(event.id for event in events):
            raise Refused("a row is poisoned")
        places = {_place(row): row.id for row in self.rows}
        if any(places.get(_place(event), event.id) != event.id and not places[_place(event)].startswith("dead-") for event in events):
            raise Refused("another event has its place")
        fresh: list[LoggedEvent] = []
        bare: set[int] = set()
        for number, event in enumerate(events):
            if _place(event) in places:
                continue
            if number in hollow:
                bare.add(len(fresh))
            fresh.append(event)
            places[_place(event)] = event.id
        self._store(fresh, frozenset(bare))

    async def bury(self, event: LoggedEvent, reason: str, now: int) -> None:
        self._check()
        there = next((row.id for row in self.rows if _place(row) == _place(event)), None)
        if there is None:
            self.rows.append(structs.replace(event, event="dead", data=b"", id=f"dead-{new_epoch()}", user_id=None, audience=None))
        if there is None or not (there == event.id or there.startswith("dead-")):
            self.buried.append((event, reason))

    async def heads(self, rooms: Iterable[str]) -> dict[str, Position]:
        self._check()
        if self._era:
            return {room: last for room in rooms if (last := self._last(room)) is not None}
        return {room: self.ends[room] for room in rooms if room in self.ends}

    async def find(self, keys: Iterable[Key]) -> dict[Key, Stored]:
        self._check()
        wanted = set(keys)
        first_ones = reversed(self.rows)
        return {key: Stored(row.event, row.data or None, Position(row.epoch, row.offset)) for row in first_ones if (key := _key(row)) in wanted}

    async def recent_ids(self, room: str, since: int) -> list[Remembered]:
        self._check()
        rows = [row for row in reversed(self.rows) if row.room == room and row.timestamp >= since]
        return [Remembered(row.user_id or "", row.id, row.event, row.data or None, Position(row.epoch, row.offset)) for row in rows]

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

    def _store(self, events: Sequence[LoggedEvent], hollow: frozenset[int]) -> None:
        for number, event in enumerate(events):
            self.rows.append(structs.replace(event, data=b"", audience=None) if number in hollow else event)
        self.batches.append(len(events))
        if self.loses_answers:
            raise StoreUnavailable("The connection was lost.")

    def _last(self, room: str) -> Position | None:
        newest = max((row for row in self.rows if row.room == room), key=lambda row: row.timestamp, default=None)
        return Position(newest.epoch, max(row.offset for row in self._of(room, newest.epoch))) if newest is not None else None

    def _check(self) -> None:
        if self.is_down:
            raise StoreUnavailable()


def _key(event: LoggedEvent) -> Key:
    return event.room, event.user_id or "", event.id


def _place(event: LoggedEvent) -> tuple[str, str, int]:
    return event.room, event.epoch, event.offset


def _offset(event: LoggedEvent) -> int:
    return event.offset
