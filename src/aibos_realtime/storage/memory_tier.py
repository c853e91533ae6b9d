"""The upper tier of the log: the newest events of all rooms in memory, bounded per room by number and age, and in all by bytes.

What is not here any more is in the store: letting go of something costs a query, not an event.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backends.base import LoggedEvent
from ..backends.hot_log import HotLog
from ..clock import Clock

ROOMS_AT_ONCE = 2000
"""Rooms that are swept in one turn of the event loop."""


class MemoryTier:
    """`max_bytes`: of payloads, in all rooms."""

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._rooms: dict[str, HotLog] = {}
        self._unswept: list[str] = []
        self.bytes = 0

    def append(self, event: LoggedEvent, *, size: int, ttl: float) -> None:
        """Add a room's newest event."""
        hot = self._rooms.get(event.room)
        if hot is None:
            hot = self._rooms[event.room] = HotLog()
        before = hot.bytes
        hot.append(event, self._clock.monotonic(), size=size, ttl=ttl)
        self.bytes += hot.bytes - before
        if self.bytes > self._max_bytes:
            self._make_room()

    def get(self, room: str) -> HotLog | None:
        """What is here of a room, without what is too old; None for nothing."""
        hot = self._rooms.get(room)
        if hot is None:
            return None
        before = hot.bytes
        hot.trim(self._clock.monotonic())
        self.bytes += hot.bytes - before
        return hot or None

    def fill(self, room: str, rows: list[LoggedEvent]) -> list[LoggedEvent]:
        """Rows of the store, those without a payload replaced by what is here."""
        hot = self.get(room)
        if hot is None:
            return rows
        return [hot.after(row.offset - 1, 1)[0] if not row.data and hot.reaches(row.offset - 1) else row for row in rows]

    def erase(self, is_meant: Callable[[LoggedEvent], bool]) -> None:
        """Take the content of some events."""
        for hot in self._rooms.values():
            before = hot.bytes
            hot.erase(is_meant)
            self.bytes += hot.bytes - before

    def drop(self, room: str) -> None:
        """Let go of a room."""
        hot = self._rooms.pop(room, None)
        if hot is not None:
            self.bytes -= hot.bytes

    def clear(self) -> None:
        self._rooms.clear()
        self.bytes = 0

    def sweep(self) -> bool:
        """Drop what is too old, in some rooms at a time; whether there are further ones to go on with."""
        rooms = self._unswept or list(self._rooms)
        rooms, self._unswept = rooms[:ROOMS_AT_ONCE], rooms[ROOMS_AT_ONCE:]
        for room in rooms:
            if self.get(room) is None:
                self.drop(room)
        return bool(self._unswept)

    def _make_room(self) -> None:
        """Let go of whole rooms, those first that came first, until half of the memory is free."""
        for room in list(self._rooms):
            if self.bytes <= self._max_bytes // 2:
                break
            self.drop(room)
