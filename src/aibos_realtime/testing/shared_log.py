"""A shared log in memory, for tests: what Redis would hold, and the nodes' views of it, which fail in the ways in which a network and a server do.

`MemoryLog` is the server, `MemoryLog.node(name)` one node's connections to it (`testing.log_node`). Time is the clock's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from zlib import crc32

from msgspec import Struct, structs

from ..backends.base import LoggedEvent
from ..backends.epochs import new_epoch
from ..backends.intake import IntakeEntry
from ..backends.shared_log import Append, Appended, End, Remembered, Stretch
from ..clock import Clock
from ..errors import BrokerUnavailable
from ..protocol.messages import Position
from .log_node import LogNode

WINDOW = 300.0
HEAD_LIFE = 30 * 86_400.0
SETTLING = 1.0
UNDONE = 1000
"""Writes that a fail-over may forget, at most."""


class LogHead(Struct):
    """Where a room ends, and its newest events. `until`, `log_until`: when the head and the events are forgotten, by the monotonic clock."""

    epoch: str
    offset: int
    time: int
    before: tuple[str, ...]
    run: str
    era: str
    until: float
    events: list[LoggedEvent]
    log_until: float = 0.0
    is_lacking: bool = False
    """A node was found to have seen more."""


class Known(Struct, frozen=True):
    """What became of an id."""

    until: float
    position: Position
    entry: str
    content: tuple[str, bytes | None]


class MemoryLog:
    """The state. `has_store`: what is appended waits in `waiting`, until a drainer takes it through `intake`."""

    def __init__(self, *, clock: Clock, shards: int = 1, has_store: bool = False, max_waiting: int = 100_000) -> None:
        self.clock = clock
        self.shards = shards
        self.heads: dict[str, LogHead] = {}
        self.ids: dict[tuple[str, str, str], Known] = {}
        self.waiting: list[list[IntakeEntry]] = [[] for _ in range(shards)]
        self.stored = [""] * shards
        self.is_down = False
        """Every call fails at once."""
        self.is_hung = False
        """Every call fails after two seconds."""
        self.nodes: list[LogNode] = []
        self.intake = MemoryIntake(self)
        self.somebody_waits = asyncio.Event()
        self._max_waiting = max_waiting if has_store else None
        self._run, self._era = new_epoch(), ""
        self._since: float | None = None
        """When the present run was noticed."""
        self._entries = 0
        self._flushes = 0
        self._undo: deque[Callable[[], None]] = deque(maxlen=UNDONE)

    def node(self, name: str) -> LogNode:
        """A node's connections to this log."""
        node = LogNode(self, name)
        self.nodes.append(node)
        return node

    @property
    def life(self) -> str:
        """Of its memory."""
        return f"{self._run}:{self._flushes}"

    def shard(self, room: str) -> int:
        return crc32(room.encode()) % self.shards

    async def answer(self) -> None:
        """Take a call, or not."""
        if self.is_hung:
            await self.clock.sleep(2.0)
        if self.is_down or self.is_hung:
            raise BrokerUnavailable()

    # — faults —

    def restart(self) -> None:
        """The server comes back with all that it had."""
        self._run, self._since = new_epoch(), None
        self._undo.clear()
        for node in self.nodes:
            node.lose_connection()

    def fail_over(self, lost: int) -> None:
        """Another server takes over, which lacks the last writes."""
        for _ in range(min(lost, len(self._undo))):
            self._undo.pop()()
        self.restart()

    def forget_all(self) -> None:
        """Somebody empties the server."""
        self.heads.clear()
        self.ids.clear()
        self.waiting = [[] for _ in range(self.shards)]
        self.stored = [""] * self.shards
        self._since, self._era = None, ""
        self._flushes += 1
        self._undo.clear()

    def age_by(self, seconds: float) -> None:
        """Everything is forgotten so much earlier, as if that time had gone by."""
        for head in self.heads.values():
            head.until -= seconds
            head.log_until -= seconds
        self.ids = {key: structs.replace(known, until=known.until - seconds) for key, known in self.ids.items()}

    # — what the server does: each of these is one step —

    def append(self, shard: int, events: Sequence[Append], is_awaited: bool) -> list[Appended]:
        if is_awaited:
            self.somebody_waits.set()
        return [self._append(shard, event) for event in events]

    def _append(self, shard: int, event: Append) -> Appended:
        draft, room, now = event.draft, event.draft.room, self.clock.monotonic()
        key = (room, draft.user_id or "", draft.id)
        known = self.ids.get(key)
        if draft.keyed and known is not None and known.until > now:
            is_same = known.content[0] == draft.event and known.content[1] in (draft.data, None)
            return Appended("again", known.position, known.entry, self.life, is_same)
        head = self.head(room)
        if head is None or head.run != self._run or head.era != self._era or _lacks(head, event.seen):
            return Appended("begin")
        line = self.waiting[shard]
        if self._max_waiting is not None and not draft.ephemeral and len(line) >= self._max_waiting:
            return Appended("full")
        before = (head.offset, head.time)
        head.offset, head.time = head.offset + 1, max(head.time, event.timestamp)
        head.until = now + HEAD_LIFE
        logged = LoggedEvent(room, draft.event, draft.data, draft.id, head.epoch, head.offset, head.time, draft.user_id, draft.audience)
        entry = self._wait_for_store(line, logged, draft.persist) if self._max_waiting is not None and not draft.ephemeral else ""
        if draft.ephemeral:
            head.events = []  # what was kept no longer reaches to the end
        else:
            self._keep(head, logged, draft.history_size, draft.history_ttl)
        if draft.keyed:
            self.ids[key] = Known(now + WINDOW, Position(head.epoch, head.offset), entry, (draft.event, draft.data))

        def undo() -> None:
            head.offset, head.time = before
            head.events = [one for one in head.events if one is not logged]
            self.waiting[shard] = [one for one in self.waiting[shard] if not entry or one.id != entry]
            if draft.keyed:
                self.ids.pop(key, None)  # gone already, where the same id was given two places and both are undone

        self._undo.append(undo)
        for node in self.nodes:
            node.tell_event(logged)
        return Appended("appended", Position(head.epoch, head.offset), entry, self.life)

    def _wait_for_store(self, line: list[IntakeEntry], event: LoggedEvent, keep: bool) -> str:
        self._entries += 1
        line.append(IntakeEntry(f"{int(self.clock.now() * 1000)}-{self._entries}", event, keep))
        return line[-1].id

    def _keep(self, head: LogHead, event: LoggedEvent, size: int, ttl: float) -> None:
        self._forget_old(head)
        head.events.append(event)
        oldest = event.timestamp - int(ttl * 1000)
        head.events = [one for one in head.events if one.timestamp > oldest][-size:] if size else []
        head.log_until = self.clock.monotonic() + ttl

    def _forget_old(self, head: LogHead) -> None:
        if head.log_until <= self.clock.monotonic():
            head.events = []

    def head(self, room: str) -> LogHead | None:
        """What is kept of a room."""
        head = self.heads.get(room)
        if head is not None and head.until <= self.clock.monotonic():
            del self.heads[room]
            return None
        return head

    def age(self) -> float:
        if self._since is None:
            self._since = self.clock.monotonic()
        return self.clock.monotonic() - self._since

    def end(self, room: str, seen: Sequence[Position], is_settled: bool) -> End:
        head = self.head(room)
        if head is None or head.era != self._era:
            return End()
        if _lacks(head, seen):
            head.is_lacking = True
            return End()
        if head.run != self._run:
            left = round(max(0.0, SETTLING - self.age()), 3)  # whole milliseconds, as Redis tells it
            if left > 0 or not is_settled:
                return End(Position(head.epoch, head.offset), left)
            head.run = self._run
        return End(Position(head.epoch, head.offset))

    def begin(self, room: str, epoch: str, seen: Sequence[Position], ids: Sequence[Remembered]) -> Position:
        self.age()
        old = self.head(room)
        if old is not None and old.run == self._run and old.era == self._era and not _lacks(old, seen):
            return Position(old.epoch, old.offset)
        past = [*old.before, old.epoch] if old is not None else []
        before = (*(one.epoch for one in seen if one.epoch not in past), *past)
        time = old.time if old is not None else 0
        self.heads[room] = LogHead(epoch, 0, time, before[-8:], self._run, self._era, self.clock.monotonic() + HEAD_LIFE, [])
        keys = {(room, one.user_id, one.id): one for one in ids}
        replaced = {key: self.ids.get(key) for key in keys}
        for key, one in keys.items():
            self.ids[key] = Known(self.clock.monotonic() + WINDOW, one.position, "", (one.event, one.data))

        def undo() -> None:
            self.heads.pop(room, None)
            if old is not None:
                self.heads[room] = old
            for key, known in replaced.items():
                self.ids.pop(key, None)
                if known is not None:
                    self.ids[key] = known

        self._undo.append(undo)
        return Position(epoch, 0)

    def enter_era(self, era: str) -> None:
        self._era = era

    def read_after(self, room: str, after: Position, limit: int) -> Stretch:
        head = self.head(room)
        if head is None:
            return Stretch(None, [])
        self._forget_old(head)
        end = Position(head.epoch, head.offset)
        kept = {one.offset: one for one in head.events} if head.epoch == after.epoch else {}
        events: list[LoggedEvent] = []
        while len(events) < limit and (event := kept.get(after.offset + 1 + len(events))) is not None:
            events.append(event)
        at = kept.get(after.offset)
        return Stretch(end, events, after.offset + 1, after.offset + len(events), at.id if at is not None else None)

    def read_before(self, room: str, before: int | None, limit: int) -> Stretch:
        head = self.head(room)
        if head is None:
            return Stretch(None, [])
        self._forget_old(head)
        top = head.offset if before is None else min(before - 1, head.offset)
        kept = {one.offset: one for one in head.events}
        events: list[LoggedEvent] = []
        while len(events) < limit and (event := kept.get(top - len(events))) is not None:
            events.insert(0, event)
        return (
            Stretch(Position(head.epoch, head.offset), events, top + 1 - len(events), top)
            if events
            else Stretch(Position(head.epoch, head.offset), [])
        )


class MemoryIntake:
    """See `backends.intake.Intake`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.shards = log.shards

    async def read(self, shard: int, after: str | None, count: int) -> Sequence[IntakeEntry]:
        await self._log.answer()
        line = self._log.waiting[shard]
        start = next((number + 1 for number, entry in enumerate(line) if entry.id == after), 0)
        return line[start : start + count]

    async def drop(self, shard: int, up_to: str) -> None:
        await self._log.answer()
        line = self._log.waiting[shard]
        count = next((number + 1 for number, entry in enumerate(line) if entry.id == up_to), 0)
        self._log.waiting[shard] = line[count:]
        self._log.stored[shard] = up_to
        for node in self._log.nodes:
            node.tell_committed(shard, self._log.life, up_to)

    async def count(self) -> int:
        await self._log.answer()
        return sum(map(len, self._log.waiting))

    async def wait(self, timeout: float) -> None:
        waiting = [asyncio.ensure_future(self._log.clock.sleep(timeout)), asyncio.ensure_future(self._log.somebody_waits.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        self._log.somebody_waits.clear()


def _lacks(head: LogHead, seen: Sequence[Position]) -> bool:
    return head.is_lacking or any(one.epoch not in head.before and (head.epoch != one.epoch or head.offset < one.offset) for one in seen)
