"""The broker inside the process: every room's log in memory, one node. What it promises ends with the process.

Offsets and epochs outlive a room's events and its members: they are forgotten only after a day without an event or a member, or where too many
rooms have none, and never reused.
"""

from __future__ import annotations

import asyncio

from ...clock import SYSTEM_CLOCK, Clock, Timer
from ...errors import IdempotencyConflict, UnrecoverablePosition
from ...protocol.messages import Position
from ..base import NOBODY, Draft, LoggedEvent, Page, Receipt, Receiver
from ..epochs import new_epoch
from ..hot_log import HotLog

IDEMPOTENCY_WINDOW = 300.0
FORGET_AFTER = 86_400.0
MOST_IDLE = 10_000
"""Logs without an event or a member that are remembered; past that the oldest are forgotten before their day is over."""
SWEEP_EVERY = 30.0


class RoomLog:
    """One room: where its log stands, its newest events, and the receipts of the ids that publishers chose."""

    __slots__ = ("epoch", "hot", "offset", "receipts", "touched")

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.offset = 0
        self.hot = HotLog()
        self.receipts: dict[tuple[str | None, str], tuple[float, str, bytes, Receipt]] = {}
        self.touched = now

    def trim(self, now: float) -> None:
        self.hot.trim(now)
        while self.receipts:
            key = next(iter(self.receipts))
            if self.receipts[key][0] > now:
                break
            del self.receipts[key]


class MemoryBroker:
    """See `base.Broker`. Everything happens on the spot, so nothing waits and nothing races."""

    is_available = True

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._logs: dict[str, RoomLog] = {}
        self._fresh_epoch = new_epoch()
        self._receiver: Receiver = NOBODY
        self._sweeping: Timer | None = None

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def start(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._clock.call_later(SWEEP_EVERY, self._sweep)

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._publish(draft))
        except IdempotencyConflict as error:
            future.set_exception(error)
        return future

    def _publish(self, draft: Draft) -> Receipt:
        now = self._clock.monotonic()
        log = self._logs.get(draft.room)
        if log is None:
            log = self._logs[draft.room] = RoomLog(self._fresh_epoch, now)
        key = (draft.user_id, draft.id)
        if draft.keyed and (known := log.receipts.get(key)) is not None and known[0] > now:
            if known[1:3] != (draft.event, draft.data):
                raise IdempotencyConflict()
            first = known[3]
            return Receipt(first.id, first.room, first.position, duplicate=True)
        log.offset += 1
        log.touched = now
        milliseconds = int(self._clock.now() * 1000)
        event = LoggedEvent(draft.room, draft.event, draft.data, draft.id, log.epoch, log.offset, milliseconds, draft.user_id, draft.audience)
        receipt = Receipt(draft.id, draft.room, Position(log.epoch, log.offset))
        if draft.keyed:
            log.receipts.pop(key, None)  # an expired one: the order of insertion must stay that of expiry
            log.receipts[key] = (now + IDEMPOTENCY_WINDOW, draft.event, draft.data, receipt)
        if draft.ephemeral:
            log.hot.clear()  # what was kept no longer reaches to the end
        else:
            log.hot.append(event, now, size=draft.history_size, ttl=draft.history_ttl)
        self._receiver.deliver(event)
        return receipt

    def send_volatile(self, event: LoggedEvent) -> None:
        """There are no other nodes."""

    async def position(self, room: str) -> Position:
        log = self._logs.get(room)
        return Position(log.epoch, log.offset) if log else Position(self._fresh_epoch, 0)

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        log = self._logs.get(room)
        epoch, top = (log.epoch, log.offset) if log else (self._fresh_epoch, 0)
        if after.epoch != epoch or not 0 <= after.offset <= top:
            raise UnrecoverablePosition()
        if log is None or after.offset == top:
            return Page(epoch, [], False, after.offset + 1, after.offset)
        log.trim(self._clock.monotonic())
        if not log.hot.reaches(after.offset):
            raise UnrecoverablePosition()
        events = log.hot.after(after.offset, limit)
        last = events[-1].offset
        return Page(epoch, events, last < top, after.offset + 1, last)

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        log = self._logs.get(room)
        epoch, top = (log.epoch, log.offset) if log else (self._fresh_epoch, 0)
        if before is not None and before.epoch != epoch:
            raise UnrecoverablePosition()
        if log is None:
            return Page(epoch, [], False, 1, 0)
        log.trim(self._clock.monotonic())
        end = top + 1 if before is None else before.offset
        events = log.hot.before(end, limit)
        if not events:
            return Page(epoch, [], False, end, end - 1)
        return Page(epoch, events, events[0].offset != log.hot.first_offset, events[0].offset, events[-1].offset)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        idle: list[tuple[float, str]] = []
        for room, log in self._logs.items():
            log.trim(now)
            if not log.hot and not self._receiver.is_watched(room):
                idle.append((log.touched, room))
        idle.sort()
        for number, (touched, room) in enumerate(idle):
            if touched + FORGET_AFTER > now and number >= len(idle) - MOST_IDLE:
                break
            # Whoever remembers a position of this room must not find it again under the same epoch.
            del self._logs[room]
            self._fresh_epoch = new_epoch()
        self._sweeping = self._clock.call_later(SWEEP_EVERY, self._sweep)
