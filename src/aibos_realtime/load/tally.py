"""What one process counts, and the clock that it counts by."""

from __future__ import annotations

import time
from collections import Counter

from .histogram import Histogram
from .judge import Published, Reception


class Tally:
    """Counts and histograms of one process. `base`: see `plan.Plan`."""

    def __init__(self, base: int, rooms: list[str]) -> None:
        self._base = base
        self.opened = self.sent = self.answered = self.unanswered = self.unsent = self.reconnects = self.resyncs = 0
        self.errors: Counter[str] = Counter()
        """By code."""
        self.closes: Counter[str] = Counter()
        """By close code, of connections that were open."""
        self.refusals: Counter[str] = Counter()
        """By `Refused.kind`, of attempts to open one."""
        self.words: dict[str, list[str]] = {}
        """What was said with each of these, a few times."""
        self.opening = Histogram()
        """From the first packet of the attempt that succeeded until the last room was joined."""
        self.answer = Histogram()
        """From the moment that a message was due to its answer."""
        self.delivery = Histogram()
        """From the moment that an event was due to one member's reading."""
        self.late = Histogram()
        self.published = {room: Published() for room in rooms}
        self.receptions: dict[str, list[tuple[Reception, Presence]]] = {room: [] for room in rooms}

    def now(self) -> int:
        """Microseconds since the base."""
        return (time.monotonic_ns() - self._base) // 1000

    def moment(self, at: int) -> int:
        """The same moment by `time.monotonic_ns`."""
        return self._base + at * 1000

    def note(self, counts: Counter[str], kind: str, words: str) -> None:
        """Count an error, a close or a refusal, and keep what was said."""
        counts[kind] += 1
        said = self.words.setdefault(kind, [])
        if words not in said and len(said) < 4:
            said.append(words[:300])

    @property
    def delivered(self) -> int:
        return sum(one.count for receptions in self.receptions.values() for one, _ in receptions)

    def is_behind(self, room: str, allowed: int) -> bool:
        """Whether a member of this process has more than so many events before him that another one has read, or that were acknowledged."""
        there = [one.offset for one, presence in self.receptions[room] if presence.is_open]
        return bool(there) and max(max(there), self.published[room].offset) - min(there) > allowed


class Presence:
    """Whether a client is connected and has joined its rooms."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = False
