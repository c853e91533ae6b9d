"""The newest events of one room, in memory: without a gap up to the room's end, bounded by number and age."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from msgspec import structs

from .base import LoggedEvent


class HotLog:
    """Events by rising offset; appending is all that brings one in, and the oldest go first. Times are monotonic seconds."""

    __slots__ = ("_events", "_ttl", "bytes")

    def __init__(self) -> None:
        self._events: deque[tuple[float, LoggedEvent]] = deque()
        self._ttl = 0.0
        self.bytes = 0
        """Of the payloads that are here."""

    def __len__(self) -> int:
        return len(self._events)

    @property
    def first_offset(self) -> int | None:
        """The oldest offset that is here; None when none is."""
        return self._events[0][1].offset if self._events else None

    def append(self, event: LoggedEvent, now: float, *, size: int, ttl: float) -> None:
        """Add the room's newest event; keep `size` events, each for `ttl` seconds."""
        self._ttl = ttl
        events = self._events
        events.append((now, event))
        self.bytes += len(event.data)
        while len(events) > size:
            self.bytes -= len(events.popleft()[1].data)

    def clear(self) -> None:
        self._events.clear()
        self.bytes = 0

    def trim(self, now: float) -> None:
        """Drop what is too old."""
        events = self._events
        while events and events[0][0] + self._ttl <= now:
            self.bytes -= len(events.popleft()[1].data)

    def erase(self, is_meant: Callable[[LoggedEvent], bool]) -> None:
        """Take the payload, audience and user id from some events; their places stay, with empty `data`."""
        self._events = deque(
            (at, structs.replace(event, data=b"", audience=None, user_id=None)) if is_meant(event) else (at, event) for at, event in self._events
        )
        self.bytes = sum(len(event.data) for _, event in self._events)

    def reaches(self, offset: int) -> bool:
        """Whether everything after an offset is here."""
        return bool(self._events) and offset >= self._events[0][1].offset - 1

    def after(self, offset: int, limit: int) -> list[LoggedEvent]:
        """Up to `limit` events after an offset that the log reaches."""
        start = offset + 1 - self._events[0][1].offset
        return [event for _, event in islice(self._events, start, start + limit)]

    def before(self, offset: int, limit: int) -> list[LoggedEvent]:
        """The last events before an offset, up to `limit`."""
        if not self._events:
            return []
        stop = max(0, min(offset - self._events[0][1].offset, len(self._events)))
        return [event for _, event in islice(self._events, max(0, stop - limit), stop)]
