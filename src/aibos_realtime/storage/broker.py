"""The broker on one node with a store: each room's log in two tiers, memory and SQL, under one position.

Group commit, then delivery: what is published while one batch is being committed makes up the next one. Nobody sees an event, and no publisher is
told its position, before the store has it; so after a crash the log goes on where the store ends, under the same epoch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from ..backends.base import NOBODY, Batch, Draft, EventStore, Key, LoggedEvent, Page, Receipt, Receiver, Refused, Stored
from ..backends.epochs import new_epoch
from ..clock import SYSTEM_CLOCK, Clock, Timer
from ..errors import BackendError, IdempotencyConflict, Overloaded, StoreUnavailable, UnrecoverablePosition, ValidationError
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.messages import Position
from .batch import MAX_BATCH, fail
from .memory_tier import MemoryTier

logger = get_logger("aibos_realtime.log")

BATCH_BYTES = 4 * 1024 * 1024
"""Of payloads in one transaction, and at most `MAX_BATCH` events: it has to end within the statement time-out of a slow disk too."""
WAITING = 10_000
WAITING_BYTES = 64 * 1024 * 1024
"""Of events that wait for their commit; then publishing is refused."""
MEMORY_BYTES = 256 * 1024 * 1024
"""Of payloads that all rooms together keep in memory."""
SWEEP_EVERY, SWEEP_PAUSE = 30.0, 0.05
SETTLE_EVERY = 1.0
AT_ONCE = 1.0
"""Seconds within which a commit that failed is tried once more: after longer ones the publishers have waited enough."""


class Submission(NamedTuple):
    """A draft, and who waits for its receipt."""

    draft: Draft
    receipt: asyncio.Future[Receipt]

    @property
    def key(self) -> Key:
        return self.draft.room, self.draft.user_id or "", self.draft.id


class StoredBroker:
    """See `backends.base.Broker`. It is the only one that writes to its store."""

    def __init__(
        self,
        store: EventStore,
        *,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
        waiting: int = WAITING,
        waiting_bytes: int = WAITING_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._store = store
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._limits = (waiting, waiting_bytes)
        self._receiver: Receiver = NOBODY
        self._fresh_epoch = ""
        self._heads: dict[str, Position] = {}
        self._memory = MemoryTier(memory_bytes, clock)
        self._latest = 0
        self._waiting: deque[Submission] = deque()
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._in_doubt: list[tuple[Submission, LoggedEvent]] = []
        self._timers: dict[str, Timer] = {}
        self._is_open = False
        self._is_down = False

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    @property
    def is_available(self) -> bool:
        return self._is_open and not self._is_down

    async def start(self) -> None:
        """Open the store. Raises `ConfigurationError`, `StoreUnavailable`."""
        if self._is_open:
            return
        self._fresh_epoch, self._heads = await self._store.open()
        self._is_open = True
        self._timers["sweep"] = self._clock.call_later(SWEEP_EVERY, self._sweep)

    async def stop(self) -> None:
        """Commit what waits, then close the store. Cancelling gives up what waits."""
        if not self._is_open:
            return
        self._is_open = False
        for timer in self._timers.values():
            timer.cancel()
        try:
            while self._writing is not None:
                await asyncio.wait((self._writing,))
        finally:
            self._refuse_waiting(StoreUnavailable("The server stopped before this was stored."))
            self._memory.clear()
            self._in_doubt, self._is_down = [], False
            await self._store.close()

    # — publishing —

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        limit, limit_bytes = self._limits
        if not self._is_open:
            receipt.set_exception(StoreUnavailable("The server does not run: it stores events between its start and its stop."))
        elif self._is_down:
            receipt.set_exception(StoreUnavailable())
        elif len(self._waiting) >= limit or self._waiting_bytes >= limit_bytes:  # whatever its size: what is refused must not be overtaken
            self._metrics.publishes_refused += 1
            receipt.set_exception(Overloaded("More events wait to be stored than allowed: try again later."))
        else:
            self._waiting.append(Submission(draft, receipt))
            self._waiting_bytes += len(draft.data)
            if self._writing is None:
                self._writing = asyncio.get_running_loop().create_task(self._write())
        return receipt

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                async with self._turn:
                    await self._commit(batch)
        finally:
            self._writing = None

    def _next_batch(self) -> list[Submission]:
        batch: list[Submission] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].draft.data)
        self._waiting_bytes -= size
        return batch

    async def _commit(self, batch: list[Submission], *, is_first: bool = True) -> bool:
        """Store a batch and hand it on; where the store takes no such batch, find out what of it can be stored.

        False: the store failed, and the batch was refused, in part or as a whole. What was published later must not overtake it.
        """
        began = self._clock.monotonic()
        events, heads = self._events_of(batch)
        hollow = frozenset([number for number, (draft, _) in enumerate(batch) if not draft.persist])
        try:
            await self._store.append(Batch(events, hollow, heads))
        except Refused as refusal:
            return await self._sort_out(batch, refusal)
        except Exception as error:
            is_worth_another_try = is_first and self._clock.monotonic() - began < AT_ONCE
            return await self._fail(batch, events, error, is_worth_another_try)
        self._metrics.commits += 1
        self._metrics.commit_times.note(self._clock.monotonic() - began)
        for submission, event in zip(batch, events, strict=True):
            self._hand_on(submission, event)
        return True

    def _events_of(self, batch: list[Submission]) -> tuple[list[LoggedEvent], dict[str, Position]]:
        events: list[LoggedEvent] = []
        offsets: dict[str, tuple[str, int]] = {}
        now = self._latest = max(self._latest, int(self._clock.now() * 1000))  # a clock that is set back makes no later event an earlier one
        for draft, _ in batch:
            room = draft.room
            epoch, offset = offsets.get(room) or self._head(room)
            offset += 1
            offsets[room] = (epoch, offset)
            events.append(LoggedEvent(room, draft.event, draft.data, draft.id, epoch, offset, now, draft.user_id, draft.audience))
        return events, {room: Position(*head) for room, head in offsets.items()}

    def _head(self, room: str) -> tuple[str, int]:
        head = self._heads.get(room)
        return (head.epoch, head.offset) if head is not None else (self._fresh_epoch, 0)

    def _hand_on(self, submission: Submission, event: LoggedEvent) -> None:
        """The store has it: now it is an event."""
        draft, receipt = submission
        position = Position(event.epoch, event.offset)
        self._heads[event.room] = position
        self._memory.append(event, size=draft.history_size, ttl=draft.history_ttl)
        try:
            self._receiver.deliver(event)
        except Exception:
            logger.exception("an event was stored, but not delivered")
        if not receipt.done():
            receipt.set_result(Receipt(event.id, event.room, position))

    async def _sort_out(self, batch: list[Submission], refusal: Refused) -> bool:
        """Answer what was published before, and halve the rest until what cannot be stored stands alone."""
        first: dict[Key, Submission] = {}
        again: list[Submission] = []
        for submission in batch:
            if submission.key in first:
                again.append(submission)
            else:
                first[submission.key] = submission
        try:
            known = await self._store.find(first)
        except Exception as error:
            known_error = _as_backend_error(error)
            _refuse(batch, known_error)
            self._refuse_waiting(known_error)
            return False
        for key, stored in known.items():
            self._answer_again(first.pop(key), stored)
        fresh = list(first.values())
        if known or again:
            parts = [fresh, again]
        elif len(fresh) == 1:
            self._metrics.publishes_refused += 1
            logger.error("the store refused an event of the room's log: %s", refusal)
            _refuse(fresh, ValidationError("This event is nothing that can be stored."))
            return True
        else:
            parts = [fresh[: len(fresh) // 2], fresh[len(fresh) // 2 :]]
        is_fine = True
        for part in parts:
            if not is_fine:
                _refuse(part, StoreUnavailable())
            elif part:
                is_fine = await self._commit(part)
        return is_fine

    def _answer_again(self, submission: Submission, stored: Stored) -> None:
        draft, receipt = submission
        if receipt.done():
            return
        position = stored.position
        data = stored.data if stored.data is not None or position is None else self._data_in_memory(draft.room, position)
        if position is None:
            receipt.set_exception(IdempotencyConflict("This id is that of a message which was stored beside the room's log."))
        elif stored.event != draft.event or (data is not None and data != draft.data):
            receipt.set_exception(IdempotencyConflict())
        else:
            receipt.set_result(Receipt(draft.id, draft.room, position, duplicate=True))

    # — when the store fails —

    async def _fail(self, batch: list[Submission], events: list[LoggedEvent], error: Exception, is_worth_another_try: bool) -> bool:
        """Nobody knows whether the store has this batch. Until that is known, no other one is stored."""
        self._metrics.commit_failures += 1
        error = _as_backend_error(error)
        self._in_doubt = list(zip(batch, events, strict=True))
        if is_worth_another_try and (was_stored := await self._settle()) is not None:
            # The connection was lost, and there is another one: no publisher need hear of that.
            return was_stored or await self._commit(batch, is_first=False)
        self._is_down = True
        _refuse(batch, error)
        self._refuse_waiting(error)
        if await self._settle() is None:
            logger.error("the store does not answer; publishing is refused until it does")
            self._settle_later()
        return False

    def _settle_later(self) -> None:
        if self._is_open:
            self._timers["settle"] = self._clock.call_later(SETTLE_EVERY, self._start_settling)

    def _start_settling(self) -> None:
        if self._writing is not None:
            self._settle_later()
        elif self._is_open:
            self._writing = asyncio.get_running_loop().create_task(self._settle_alone())

    async def _settle_alone(self) -> None:
        try:
            async with self._turn:
                if await self._settle() is None:
                    self._settle_later()
                else:
                    logger.warning("the store answers again")
        finally:
            self._writing = None

    async def _settle(self) -> bool | None:
        """Whether the batch in doubt was stored, of which one room tells, and hand it on if so; None where the store does not say."""
        last = self._in_doubt[-1][1]
        try:
            head = (await self._store.heads((last.room,))).get(last.room)
        except Exception:
            return None
        in_doubt, self._in_doubt, self._is_down = self._in_doubt, [], False
        was_stored = head == Position(last.epoch, last.offset)
        if was_stored:
            for submission, event in in_doubt:
                self._hand_on(submission, event)
        return was_stored

    def _refuse_waiting(self, error: Exception) -> None:
        waiting, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        _refuse(waiting, error)

    # — reading —

    def send_volatile(self, event: LoggedEvent) -> None:
        """There are no other nodes."""

    async def position(self, room: str) -> Position:
        return self._heads.get(room) or Position(self._fresh_epoch, 0)

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        epoch, top = self._head(room)
        if after.epoch != epoch or not 0 <= after.offset <= top:
            raise UnrecoverablePosition()
        if after.offset == top:
            return Page(epoch, [], False, top + 1, top)
        hot = self._memory.get(room)
        if hot is not None and hot.reaches(after.offset):
            rows = hot.after(after.offset, limit)
        else:
            rows = await _in_task(self._store.read_after(room, after, limit))
            top = self._head(room)[1]
            rows = self._memory.fill(room, [row for row in rows if row.offset <= top])  # the store may have what is not handed on yet
            if not rows or rows[-1].offset - after.offset != len(rows):
                raise UnrecoverablePosition()  # the beginning was trimmed away
        last = rows[-1].offset
        return Page(epoch, [event for event in rows if event.data], last < self._head(room)[1], after.offset + 1, last)

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        epoch, top = self._head(room)
        end = top + 1
        if before is not None:
            epoch, end = before.epoch, min(before.offset, top + 1) if before.epoch == epoch else before.offset
        hot = self._memory.get(room)
        if epoch == self._head(room)[0] and hot is not None and len(rows := hot.before(end, limit)) == limit:
            return Page(epoch, [event for event in rows if event.data], rows[0].offset > 1, rows[0].offset, rows[-1].offset)
        rows = await _in_task(self._store.read_before(room, Position(epoch, end), limit))
        if not rows and epoch != self._head(room)[0]:
            raise UnrecoverablePosition()
        if epoch == self._head(room)[0]:
            rows = self._memory.fill(room, rows)
        events = [event for event in rows if event.data]
        first = rows[0].offset if rows else end
        return Page(epoch, events, len(rows) == limit and first > 1, first, end - 1)

    def _data_in_memory(self, room: str, position: Position) -> bytes | None:
        hot, (epoch, top) = self._memory.get(room), self._head(room)
        if hot is None or position.epoch != epoch or position.offset > top or not hot.reaches(position.offset - 1):
            return None
        return hot.after(position.offset - 1, 1)[0].data or None

    # — forgetting —

    async def forget(self, rooms: Iterable[str]) -> None:
        """Forget where rooms end of which the store keeps nothing any more. Those with something in memory, or with somebody in them, stay."""
        async with self._turn:
            gone = [room for room in rooms if room in self._heads and not self._memory.get(room) and not self._receiver.is_watched(room)]
            if not gone or self._in_doubt:
                return
            # Whoever remembers a position of these rooms must not find it again under the same epoch.
            epoch = new_epoch()
            await self._store.forget(gone, epoch)
            self._fresh_epoch = epoch
            for room in gone:
                self._heads.pop(room, None)
                self._memory.drop(room)

    async def settle(self) -> None:
        """Wait until what was published so far is stored, or refused."""
        async with self._turn:  # after the batch that is on its way
            last = [submission.receipt for submission in self._waiting][-1:]
        for receipt in last:
            await asyncio.wait((receipt,))

    async def erase(self, is_meant: Callable[[LoggedEvent], bool]) -> None:
        """Take the content of some events out of memory; out of the store others have taken it already."""
        async with self._turn:  # what is being committed is in memory afterwards
            self._memory.erase(is_meant)

    def _sweep(self) -> None:
        self._timers["sweep"] = self._clock.call_later(SWEEP_PAUSE if self._memory.sweep() else SWEEP_EVERY, self._sweep)


def _in_task(reading: Coroutine[Any, Any, list[LoggedEvent]]) -> asyncio.Task[list[LoggedEvent]]:
    """The road runs a broker's first step without a task, and a store's time limits need one."""
    return asyncio.get_running_loop().create_task(reading)


def _as_backend_error(error: Exception) -> BackendError:
    """What publishers are told: a fault of the store's own code is for the log."""
    if isinstance(error, BackendError):
        return error
    logger.error("the store failed in itself", exc_info=error)
    return StoreUnavailable()


def _refuse(submissions: Iterable[Submission], error: Exception) -> None:
    fail((submission.receipt for submission in submissions), error)
