"""The broker inside the process: every room's log in memory, one node. What it promises ends with the process.

Offsets and epochs outlive a room's events and its members: they are forgotten only after a day without an event, and never reused.
"""

from __future__ import annotations

import secrets
from collections import deque
from datetime import UTC, datetime

from ...clock import SYSTEM_CLOCK, Clock, Timer
from ...errors import IdempotencyConflict, UnrecoverablePosition
from ...protocol.messages import Position
from ..base import Deliver, Draft, LoggedEvent, Page, Receipt

IDEMPOTENCY_WINDOW = 300.0
FORGET_AFTER = 86_400.0
SWEEP_EVERY = 30.0


class RoomLog:
    """One room's log: where it stands, and the events that can still be read, without a gap up to `offset`."""

    __slots__ = ("epoch", "events", "offset", "receipts", "touched", "ttl")

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.offset = 0
        self.events: deque[tuple[float, LoggedEvent]] = deque()
        self.receipts: dict[tuple[str | None, str], tuple[float, str, bytes, Receipt]] = {}
        self.touched = now
        self.ttl = 0.0

    @property
    def first_offset(self) -> int:
        """The oldest offset that can be read; `offset + 1` when none can."""
        return self.events[0][1].offset if self.events else self.offset + 1

    def trim(self, now: float) -> None:
        while self.events and self.events[0][0] + self.ttl <= now:
            self.events.popleft()
        while self.receipts:
            key = next(iter(self.receipts))
            if self.receipts[key][0] > now:
                break
            del self.receipts[key]


class MemoryBroker:
    """See `base.Broker`. Everything happens on the spot, so nothing waits and nothing races."""

    is_immediate = True

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._logs: dict[str, RoomLog] = {}
        self._fresh_epoch = _new_epoch()
        self._deliver: Deliver = lambda event: None
        self._sweeping: Timer | None = None
        self._stamp: tuple[int, str] = (0, "")

    def attach(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def start(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._clock.call_later(SWEEP_EVERY, self._sweep)

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    async def publish(self, draft: Draft) -> Receipt:
        now = self._clock.monotonic()
        log = self._logs.get(draft.room)
        if log is None:
            log = self._logs[draft.room] = RoomLog(self._fresh_epoch, now)
        key = (draft.publisher, draft.id)
        if draft.keyed and (known := log.receipts.get(key)) is not None and known[0] > now:
            if known[1:3] != (draft.event, draft.data):
                raise IdempotencyConflict()
            first = known[3]
            return Receipt(first.id, first.room, first.position, duplicate=True)
        log.offset += 1
        log.touched = now
        event = LoggedEvent(draft.room, draft.event, draft.data, draft.id, log.epoch, log.offset, self._timestamp(), draft.user_id, draft.audience)
        receipt = Receipt(draft.id, draft.room, Position(log.epoch, log.offset))
        if draft.keyed:
            log.receipts.pop(key, None)  # an expired one: the order of insertion must stay that of expiry
            log.receipts[key] = (now + IDEMPOTENCY_WINDOW, draft.event, draft.data, receipt)
        if draft.ephemeral:
            log.events.clear()  # what was kept no longer reaches to the end
        else:
            log.ttl = draft.history_ttl
            log.events.append((now, event))
            while len(log.events) > draft.history_size:
                log.events.popleft()
        self._deliver(event)
        return receipt

    async def position(self, room: str) -> Position:
        log = self._logs.get(room)
        return Position(log.epoch, log.offset) if log else Position(self._fresh_epoch, 0)

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        log = self._logs.get(room)
        epoch, top = (log.epoch, log.offset) if log else (self._fresh_epoch, 0)
        if log:
            log.trim(self._clock.monotonic())
        if after.epoch != epoch or not 0 <= after.offset <= top or (log and after.offset < log.first_offset - 1):
            raise UnrecoverablePosition()
        if log is None or after.offset == top:
            return Page(epoch, [], False)
        start = after.offset + 1 - log.first_offset
        events = [log.events[i][1] for i in range(start, min(start + limit, len(log.events)))]
        return Page(epoch, events, start + limit < len(log.events))

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        log = self._logs.get(room)
        if log is None:
            if before is not None and before.epoch != self._fresh_epoch:
                raise UnrecoverablePosition()
            return Page(self._fresh_epoch, [], False)
        log.trim(self._clock.monotonic())
        if before is not None and before.epoch != log.epoch:
            raise UnrecoverablePosition()
        stop = len(log.events) if before is None else max(0, min(before.offset - log.first_offset, len(log.events)))
        start = max(0, stop - limit)
        return Page(log.epoch, [log.events[i][1] for i in range(start, stop)], start > 0)

    def _timestamp(self) -> str:
        milliseconds = int(self._clock.now() * 1000)
        second, rest = divmod(milliseconds, 1000)
        if self._stamp[0] != second:
            self._stamp = (second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        return f"{self._stamp[1]}.{rest:03d}Z"

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for room, log in list(self._logs.items()):
            log.trim(now)
            if log.touched + FORGET_AFTER <= now and not log.events:
                # Whoever remembers a position of this room must not find it again under the same epoch.
                del self._logs[room]
                self._fresh_epoch = _new_epoch()
        self._sweeping = self._clock.call_later(SWEEP_EVERY, self._sweep)


def _new_epoch() -> str:
    return secrets.token_urlsafe(9)
