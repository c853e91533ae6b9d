"""The judge, in the style of Jepsen: compares what clients wrote down with one another, with the log, and with the store.

It knows nothing of faults, and believes nobody: an event is in the log where an acknowledgement, a reader, the log itself or a row says so.
A verdict names every fault by its kind and shows the first few of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.faults.journal import Acknowledged, Attempt, Delivered, Joined, Left, Record, Refused, Told, Unknown

Place = tuple[str, int]
"""(epoch, offset)"""
Rank = tuple[float, int]
"""A place as something to compare."""

SHOWN = 5
"""Examples of each kind of fault in a verdict."""

FAULTS = {
    "lost": "acknowledged after a subscriber had joined, and never read by it (before, between or after what it read)",
    "silent gap": "in the log, and passed over at a subscriber that was told nothing",
    "duplicate": "given to a callback twice",
    "inversion": "given to a callback after a later one of its epoch",
    "disorder": "read after a later event of the same publisher",
    "unexpected": "read, and never sent",
    "refused": "read, although it was refused for good",
    "moved": "acknowledged at one place, and found at another",
    "reused": "one place, two events",
    "unlogged": "acknowledged or read, and not in the log at the end",
    "unread": "in the log, and read by nobody",
    "unstored": "acknowledged, read or logged, and not in the store at the end",
    "unlogged row": "in the store, and not in the log",
    "stored twice": "one id, two rows",
    "hole": "an offset that no row of the store has, below one that does",
}


@dataclass(frozen=True)
class Entry:
    """One event as the log or the store has it."""

    room: str
    epoch: str
    offset: int
    id: str

    @property
    def place(self) -> Place:
        return self.epoch, self.offset


@dataclass
class History:
    """Everything that is known of a run. `log`, `store`: what was there at the end; None: not looked at."""

    records: list[Record]
    log: list[Entry] | None = None
    store: list[Entry] | None = None
    may_announce: bool = False
    """Whether a loss is none to a subscriber that was told of it in time."""
    may_be_late: bool = False
    """Whether what was given up may be published at any later time: a node that stood still goes on with what it had taken."""
    may_lack: Callable[[str, Place], bool] = lambda room, place: False
    """Whether what has this place of a room may be gone at the end, though it was acknowledged or read."""


@dataclass
class Verdict:
    """How often each kind of fault was found, examples, and figures that are no faults."""

    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        return not self.faults

    def add(self, fault: str, example: str) -> None:
        assert fault in FAULTS, fault
        self.faults[fault] += 1
        if len(self.examples[fault]) < SHOWN:
            self.examples[fault].append(example)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        faults = ", ".join(f"{name} {self.faults[name]}" for name in FAULTS if name in ("lost", "duplicate", "inversion", "silent gap"))
        lines = [counts, faults + ("; store = log = what was read" if self.is_clean else "")]
        for name, count in self.faults.items():
            lines.append(f"  {name}: {count} ({FAULTS[name]})")
            lines += [f"    {example}" for example in self.examples[name]]
        return "\n".join(lines)


def check(history: History) -> Verdict:
    """Judge a run."""
    verdict = Verdict()
    for room in sorted({record.room for record in history.records} | {entry.room for entry in (history.log or []) + (history.store or [])}):
        records = [record for record in history.records if record.room == room]
        log = None if history.log is None else [entry for entry in history.log if entry.room == room]
        store = None if history.store is None else [entry for entry in history.store if entry.room == room]
        _Room(room, records, log, store, history, verdict).judge()
    return verdict


@dataclass
class _View:
    """What one subscriber was told of the room, in order."""

    client: str
    records: list[Joined | Told | Delivered | Left]

    @property
    def start(self) -> Place | None:
        first = next((record for record in self.records if isinstance(record, Joined)), None)
        return None if first is None else (first.epoch, first.offset)

    @property
    def delivered(self) -> list[Delivered]:
        return [record for record in self.records if isinstance(record, Delivered)]

    @property
    def has_left(self) -> bool:
        return any(isinstance(record, Left) for record in self.records)


class _Room:
    """The records of one room on their way to a verdict."""

    def __init__(
        self, room: str, records: list[Record], log: list[Entry] | None, store: list[Entry] | None, history: History, verdict: Verdict
    ) -> None:
        self.room = room
        self.may_announce = history.may_announce
        self.may_be_late = history.may_be_late
        self.may_lack = partial(history.may_lack, room)
        self.log = log
        self.store = store
        self.verdict = verdict
        self.attempts = Counter(record.id for record in records if isinstance(record, Attempt))
        self.refused = {record.id for record in records if isinstance(record, Refused)}
        self.unknown = {record.id for record in records if isinstance(record, Unknown)}
        self.acknowledged: dict[str, Place] = {}
        views: dict[str, list[Joined | Told | Delivered | Left]] = defaultdict(list)
        self.known: dict[Place, str] = {}
        self.epochs: dict[str, float] = {}
        self.sent_order = {id: number for number, id in enumerate(dict.fromkeys(r.id for r in records if isinstance(r, Attempt)))}
        self.publisher = {record.id: record.client for record in records if isinstance(record, Attempt)}
        for record in records:
            if isinstance(record, Joined | Told | Delivered | Left):
                views[record.client].append(record)
            if isinstance(record, Acknowledged | Delivered | Joined | Told) and record.epoch is not None:
                self.epochs[record.epoch] = min(record.at, self.epochs.get(record.epoch, record.at))
            if isinstance(record, Acknowledged):
                self._note((record.epoch, record.offset), record.id, f"acknowledged to {record.client}")
                self.acknowledged.setdefault(record.id, (record.epoch, record.offset))
            elif isinstance(record, Delivered):
                self._note((record.epoch, record.offset), record.id, f"read by {record.client}")
        self.views = [_View(client, view) for client, view in views.items()]
        for name, entries in (("the log", log), ("the store", store)):
            for entry in entries or ():
                self.epochs.setdefault(entry.epoch, float("-inf"))
                self._note(entry.place, entry.id, f"in {name}")
        self.offsets: dict[str, list[int]] = defaultdict(list)
        self.where: dict[str, set[Place]] = defaultdict(set)
        for place in sorted(self.known):
            self.offsets[place[0]].append(place[1])
            self.where[self.known[place]].add(place)

    def judge(self) -> None:
        read = {record.id for view in self.views for record in view.delivered}
        counts = self.verdict.counts
        counts["sent"] += len(self.attempts)
        counts["acknowledged"] += len(self.acknowledged)
        counts["unknown"] += len(self.unknown - self.acknowledged.keys())
        counts["of these read"] += len((self.unknown - self.acknowledged.keys()) & read)
        counts["refused for good"] += len(self.refused)
        counts["delivered"] += sum(len(view.delivered) for view in self.views)
        counts["told of a gap"] += sum(isinstance(record, Told) for view in self.views for record in view.records)
        for view in self.views:
            self._judge_order(view)
            self._judge_losses(view)
            self._judge_gaps(view)
        for id in sorted(read - self.attempts.keys()):
            self._add("unexpected", id)
        for id in sorted(read & self.refused - self.unknown - self.acknowledged.keys()):
            self._add("refused", id)
        self._judge_places()
        self._judge_log()
        self._judge_store()

    # One subscriber.

    def _judge_order(self, view: _View) -> None:
        seen: dict[str, Place] = {}
        places: set[Place] = set()
        last: Rank = (float("-inf"), 0)
        newest: dict[str, int] = {}
        for record in view.delivered:
            place = (record.epoch, record.offset)
            if record.id in seen and place not in places and self.may_lack(seen[record.id]):
                self.verdict.counts["given again"] += 1  # where it was first is gone, and it was published again; a client that is new cannot know it
            elif record.id in seen or place in places:
                self._add("duplicate", f"{record.id} at {_show(place)}, to {view.client}")
                continue
            seen[record.id] = place
            places.add(place)
            if self._rank(place) < last:
                self._add("inversion", f"{record.id} at {_show(place)}, to {view.client}")
            last = max(last, self._rank(place))
            is_late = self.may_be_late and record.id not in self.acknowledged
            if self.attempts[record.id] == 1 and not is_late:  # one that was sent again by the application had its order chosen by it
                publisher, number = self.publisher[record.id], self.sent_order[record.id]
                if number < newest.get(publisher, -1):
                    self._add("disorder", f"{record.id} of {publisher}, to {view.client}")
                newest[publisher] = max(number, newest.get(publisher, -1))

    def _judge_losses(self, view: _View) -> None:
        start = view.start
        if start is None or view.has_left:
            return
        read = {record.id for record in view.delivered}
        ranks = [self._rank((record.epoch, record.offset)) for record in view.delivered]
        first, last = (min(ranks), max(ranks)) if ranks else (None, None)
        announced = self._find_announced(view) if self.may_announce else []
        for id, place in self.acknowledged.items():
            rank = self._rank(place)
            if id in read or rank <= self._rank(start):
                continue
            if any(after < rank <= end for after, end in announced):
                self.verdict.counts["announced"] += 1
                continue
            part = "after" if last is None or rank > last else "before" if first is not None and rank < first else "between"
            self.verdict.counts[f"lost {part}"] += 1
            self._add("lost", f"{id} at {_show(place)}, to {view.client}, {part} what it read")

    def _find_announced(self, view: _View) -> list[tuple[Rank, Rank]]:
        """(after what, up to where): the stretches that a subscriber was told of, before anything later."""
        found: list[tuple[Rank, Rank]] = []
        last: Rank = (float("-inf"), 0)
        is_open = False
        for record in view.records:
            if isinstance(record, Left) or record.epoch is None or record.offset is None:
                is_open = is_open or isinstance(record, Told)
                continue
            rank = self._rank((record.epoch, record.offset))
            if isinstance(record, Told) or is_open:
                found.append((last, rank))
                is_open = False
            last = max(last, rank)
        return found + ([(last, (float("inf"), 0))] if is_open else [])

    def _judge_gaps(self, view: _View) -> None:
        read = {record.id for record in view.delivered}
        for start, delivered, is_last in self._segments(view):
            epoch, offset = start
            have = {record.offset for record in delivered if record.epoch == epoch}
            there = self.offsets[epoch]
            end = len(there) if is_last else bisect_right(there, max(have, default=offset))
            missing = [(epoch, one) for one in there[bisect_right(there, offset) : end] if one not in have]
            if is_last:
                missing += [place for place in self.known if self._rank((place[0], 0)) > self._rank((epoch, 0))]
            for place in sorted(missing, key=self._rank):
                if self.known[place] in read and any(self.may_lack(other) for other in self.where[self.known[place]]):
                    continue  # published again, since where it was first is gone, and not given to the callback again
                self._add("silent gap", f"{self.known[place]} at {_show(place)}, to {view.client}")

    def _segments(self, view: _View) -> Iterator[tuple[Place, list[Delivered], bool]]:
        """(where it starts, what was delivered, whether it reaches to the end of the room): the stretches in which nothing was told."""
        start: Place | None = None
        delivered: list[Delivered] = []
        for record in view.records:
            if isinstance(record, Delivered):
                if start is not None and record.epoch != start[0]:
                    self._add("silent gap", f"a new epoch at {_show((record.epoch, record.offset))}, to {view.client}, who was told nothing")
                    yield start, delivered, False
                    start, delivered = None, []
                start = start or (record.epoch, record.offset - 1)
                delivered.append(record)
            elif isinstance(record, Joined | Told):
                if start is not None:
                    yield start, delivered, False
                delivered = []
                start = None if record.epoch is None or record.offset is None else (record.epoch, record.offset)
        if start is not None:
            yield start, delivered, not view.has_left

    # Everybody together.

    def _judge_places(self) -> None:
        for id, place in self.acknowledged.items():
            others = {other for other in self.where[id] - {place} if not self.may_lack(other)}
            if place not in self.where[id] or (others and not self.may_lack(place)):
                self._add("moved", f"{id}, acknowledged at {_show(place)}, is at {', '.join(map(_show, sorted(others)))}")

    def _judge_log(self) -> None:
        if self.log is None:
            return
        logged = {entry.place: entry.id for entry in self.log}
        read = {(record.epoch, record.offset) for view in self.views for record in view.delivered}
        said = read | set(self.acknowledged.values())
        for place in sorted(said - logged.keys(), key=self._rank):
            if self.may_lack(place):
                self.verdict.counts["gone"] += 1
            else:
                self._add("unlogged", f"{self.known[place]} at {_show(place)}")
        ids = {record.id for view in self.views for record in view.delivered}
        starts = [self._rank(view.start) for view in self.views if view.start is not None]
        for place in sorted(logged.keys() - read, key=self._rank):
            if starts and self._rank(place) > min(starts) and not self._is_excused(place, logged[place], ids):
                self._add("unread", f"{logged[place]} at {_show(place)}")

    def _is_excused(self, place: Place, id: str, read: set[str]) -> bool:
        """Whether nobody had to read what is at this place: it was read elsewhere, which is gone, or everybody was told of its loss."""
        if id in read and any(self.may_lack(other) for other in self.where[id]):
            return True
        rank = self._rank(place)
        return self.may_announce and all(any(after < rank <= end for after, end in self._find_announced(view)) for view in self.views)

    def _judge_store(self) -> None:
        if self.store is None:
            return
        stored = {entry.place: entry.id for entry in self.store}
        for place in sorted(self.known.keys() - stored.keys(), key=self._rank):
            if not self.may_lack(place):
                self._add("unstored", f"{self.known[place]} at {_show(place)}")
        if self.log is not None:
            for place in sorted(stored.keys() - {entry.place for entry in self.log}, key=self._rank):
                self._add("unlogged row", f"{stored[place]} at {_show(place)}")
        for id, count in Counter(entry.id for entry in self.store).items():
            if count > 1:
                self._add("stored twice", id)
        for epoch in {entry.epoch for entry in self.store}:
            offsets = {entry.offset for entry in self.store if entry.epoch == epoch}
            for offset in sorted(set(range(1, max(offsets))) - offsets):
                if not self.may_lack((epoch, offset)):
                    self._add("hole", _show((epoch, offset)))

    # Inside.

    def _note(self, place: Place, id: str, where: str) -> None:
        known = self.known.setdefault(place, id)
        if known != id:
            self._add("reused", f"{_show(place)} is {known}, and {id} {where}")

    def _rank(self, place: Place) -> Rank:
        return self.epochs.get(place[0], float("-inf")), place[1]

    def _add(self, fault: str, example: str) -> None:
        self.verdict.add(fault, f"{self.room}: {example}")


def _show(place: Place) -> str:
    return f"{place[0]}/{place[1]}"
