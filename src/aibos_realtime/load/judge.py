"""Whether every member of a room got every event once and in order.

A member counts along by the offsets of its room, which rise by one for each event, and adds up a number that is made of publisher, event and offset.
Those who publish add up the same of what was acknowledged. In the end both must agree: an event that was lost, doubled, altered, or that nobody
published cannot hide, and nothing has to be kept of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

_MASK = 2**64 - 1
_MOST_GAPS = 64
"""Gaps that a member remembers; what comes late out of an older one counts as doubled."""


def mark_of(publisher: int, number: int, offset: int) -> int:
    """What an event adds to the sum of its room; never 0. The same in each process."""
    return hash((publisher, number, offset)) & _MASK | 1


class Reception:
    """One room as one client gets it. `offset`: the last one seen. `is_whole`: nothing was missed that the server told of."""

    __slots__ = ("_gaps", "count", "doubled", "epoch", "is_whole", "lost", "offset", "reordered", "room", "sum")

    def __init__(self, room: str) -> None:
        self.room = room
        self.epoch = ""
        self.offset = -1
        """-1: not joined yet."""
        self.count = 0
        """Events of ours."""
        self.sum = 0
        self.lost = self.doubled = self.reordered = 0
        self.is_whole = True
        self._gaps: list[tuple[int, int]] = []

    def join(self, epoch: str, offset: int, *, is_continued: bool) -> None:
        """The server let us in. `is_continued`: what was missed follows; else reading begins at this place."""
        if self.offset < 0:
            self.offset = offset
        elif not is_continued:
            self.offset, self.is_whole = offset, False
        self.epoch = epoch

    def take(self, offset: int, mark: int) -> None:
        """An event. `mark`: by `mark_of`; 0 for one that is not of this run. Callers may do the ordinary case (the next offset) by themselves."""
        if offset > self.offset:
            if (missing := offset - self.offset - 1) and self.offset >= 0:
                self.lost += missing
                self._gaps = [*self._gaps[1 - _MOST_GAPS :], (self.offset + 1, offset - 1)]
            self.offset = offset
        elif self._fill(offset):
            self.lost -= 1
            self.reordered += 1
        else:
            self.doubled += 1
            return
        if mark:
            self.count += 1
            self.sum += mark

    def _fill(self, offset: int) -> bool:
        """Whether the offset was missing; from here on it is not."""
        for number, (first, last) in enumerate(self._gaps):
            if first <= offset <= last:
                parts = [(first, offset - 1), (offset + 1, last)]
                self._gaps[number : number + 1] = [part for part in parts if part[0] <= part[1]]
                return True
        return False


class Published:
    """What the publishers of one process had acknowledged in one room. `unknown`: publishes without an answer that says what became of them."""

    __slots__ = ("_last", "count", "disordered", "offset", "sum", "unknown")

    def __init__(self) -> None:
        self.count = self.sum = self.offset = self.unknown = self.disordered = 0
        self._last: dict[int, int] = {}

    def acknowledge(self, publisher: int, number: int, offset: int) -> None:
        """An event has its place. A publisher's later event at an earlier place counts as disordered."""
        self.count += 1
        self.sum += mark_of(publisher, number, offset)
        self.offset = max(self.offset, offset)
        if offset <= self._last.get(publisher, 0):
            self.disordered += 1
        self._last[publisher] = max(offset, self._last.get(publisher, 0))


class MembersRecord(Struct, frozen=True):
    """Members of one room who saw the very same; mostly all of a process. `is_there`: connected and joined at the end."""

    members: int
    offset: int
    count: int
    sum: int
    lost: int
    doubled: int
    reordered: int
    is_whole: bool
    is_there: bool


class RoomRecord(Struct, frozen=True):
    """One room in one process. Sums are modulo 2^64."""

    published: int
    sum: int
    offset: int
    unknown: int
    disordered: int
    groups: list[MembersRecord]


def to_record(published: Published, receptions: Iterable[tuple[Reception, bool]]) -> RoomRecord:
    """`receptions`: of the room's members in this process, each with whether it is still there."""
    seen = Counter(
        (one.offset, one.count, one.sum & _MASK, one.lost, one.doubled, one.reordered, one.is_whole, is_there) for one, is_there in receptions
    )
    groups = [MembersRecord(members, *what) for what, members in seen.items()]
    return RoomRecord(published.count, published.sum & _MASK, published.offset, published.unknown, published.disordered, groups)


class Verdict(Struct):
    """What became of the events, all rooms and members together. `expected`, `count`: deliveries."""

    expected: int = 0
    count: int = 0
    lost: int = 0
    """Neither received nor announced as missed."""
    doubled: int = 0
    reordered: int = 0
    altered: int = 0
    """Members whose events are not those that were acknowledged, though none is missing by the offsets."""
    announced: int = 0
    """Members who missed something and were told."""

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.reordered or self.altered)

    def judge(self, records: Iterable[RoomRecord]) -> None:
        """Add one room. `records`: of it, from every process."""
        records = list(records)
        published, unknown = sum(one.published for one in records), sum(one.unknown for one in records)
        whole_sum, last = sum(one.sum for one in records) & _MASK, max((one.offset for one in records), default=0)
        self.reordered += sum(one.disordered for one in records)
        for group in (group for one in records for group in one.groups):
            missing = max(0, last - group.offset) if group.is_there and group.is_whole else 0
            self.expected += group.members * published
            self.count += group.members * group.count
            self.lost += group.members * (group.lost + missing)
            self.doubled += group.members * group.doubled
            self.reordered += group.members * group.reordered
            self.announced += 0 if group.is_whole else group.members
            is_complete = group.is_there and group.is_whole and not (group.lost or group.doubled or missing or unknown)
            if is_complete and (group.count, group.sum) != (published, whole_sum):
                self.altered += group.members
