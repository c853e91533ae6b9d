"""The broker of one of several nodes: a shared log above, a store below, and between them what this node follows.

What is published at one moment goes to the log together, one batch per shard at a time, so the order of the calls is the order of the positions.
Members hear an event when it comes back from the log, on every node alike.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from ..backends.base import Ack, Draft, EventStore, LoggedEvent, Page, Receipt, Receiver
from ..backends.epochs import new_epoch
from ..backends.shared_log import Append, Appended, Remembered, SharedLog, Stretch
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import BackendError, BrokerUnavailable, IdempotencyConflict, Overloaded, UnrecoverablePosition, ValidationError
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.messages import Position
from .commits import Commits
from .following import Follower
from .lane import Lane, Submission
from .prober import Prober

T = TypeVar("T")

logger = get_logger("aibos_realtime.log")

IDEMPOTENCY_WINDOW = 300.0
RETRY = 0.25
ROOMS_REMEMBERED = 20_000
"""Of rooms that are published to and not followed: the highest position that was given out."""
MAX_OFFSET = 2**53
BEGINNINGS = 3
"""How often a batch is tried again for rooms that had to begin an epoch first."""


class SharedBroker:
    """See `backends.base.Broker`. `store`: what keeps events beyond the log, already open; None: nothing does. `ack`: unless a draft says."""

    def __init__(
        self, log: SharedLog, *, store: EventStore | None = None, ack: Ack = "queued", metrics: Metrics | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._log = log
        self._store = store
        self._ack: Ack = ack if store is not None else "queued"
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._follower = Follower(log, begin=self._begin, read_after=self._read_on, metrics=self._metrics, clock=clock)
        self.prober = Prober(log, on_answered=self._settle, clock=clock)
        self._commits = Commits(log, clock=clock)
        self._lanes = [Lane(shard, self._append, self._metrics) for shard in range(log.shards)]
        self._told: OrderedDict[str, Position] = OrderedDict()
        self._notice: Callable[[str, bytes], None] = lambda room, payload: None
        self._is_open = self._is_interrupted = self._is_unsettled = False
        self._settling: asyncio.Task[None] | None = None
        self._interruptions = 0
        log.attach(self)

    def attach(self, receiver: Receiver) -> None:
        self._follower.receiver = receiver

    def on_notice(self, callback: Callable[[str, bytes], None]) -> None:
        """Call (room, payload) with what the directory of rooms tells the nodes of a room that is followed here."""
        self._notice = callback

    @property
    def is_available(self) -> bool:
        return self._is_open and self.prober.is_answered and (not self._is_interrupted or self._log.is_connected)

    @property
    def probe_lag(self) -> float:
        """Seconds that the last probe of the log which came back was on its way; or longer, for as long as one does not come back."""
        return self.prober.delay

    async def start(self) -> None:
        """Connect. Raises `ConfigurationError`, `BrokerUnavailable`."""
        if self._is_open:
            return
        await self._log.start()
        self._is_open = True
        self._follower.start()
        await self.prober.probe()
        self.prober.start()

    async def stop(self) -> None:
        """Send what waits, then let go of the log. Cancelling gives up what waits."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            for lane in self._lanes:
                await lane.drain()
        finally:
            for lane in self._lanes:
                await lane.stop(BrokerUnavailable("The server stopped before this was published."))
            if self._settling is not None:
                self._settling.cancel()
                await asyncio.gather(self._settling, return_exceptions=True)
            await self._commits.stop()
            await self.prober.stop()
            await self._follower.stop()
            await self._log.stop()

    # — publishing —

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        if not self._is_open:
            receipt.set_exception(BrokerUnavailable("The server does not run: it publishes between its start and its stop."))
        else:
            self._lanes[self._log.shard(draft.room)].submit(Submission(draft, receipt))
        return receipt

    async def _append(self, shard: int, batch: Sequence[Submission]) -> None:
        """Have a batch appended; rooms without an epoch get one first, with what the store remembers of them."""
        for _ in range(BEGINNINGS):
            now = int(self._clock.now() * 1000)
            events = [Append(draft, now, self._known(draft.room)) for draft, _ in batch]
            is_awaited = any((draft.ack or self._ack) == "committed" for draft, _ in batch)
            interruptions = self._interruptions
            outcomes = await self._log.append(shard, events, is_awaited=is_awaited)
            again: list[Submission] = []
            for submission, outcome in zip(batch, outcomes, strict=True):
                if outcome.status == "begin":
                    again.append(submission)
                else:
                    self._answer(shard, submission, outcome)
            if self._interruptions != interruptions:
                self._settle()  # this may be known to nobody else
            if not again:
                return
            await _all(self._begin(room) for room in {draft.room for draft, _ in again})
            batch = again
        raise BrokerUnavailable("The rooms of the shared log could not be begun: try again later.")

    def _answer(self, shard: int, submission: Submission, outcome: Appended) -> None:
        draft, receipt = submission
        position = outcome.position
        if position is not None and outcome.status == "appended":
            self._note(draft.room, position)
        if receipt.done():
            return
        if outcome.status == "full":
            self._metrics.publishes_refused += 1
            receipt.set_exception(Overloaded("More events wait to be stored than allowed: try again later."))
        elif outcome.status == "refused":
            self._metrics.publishes_refused += 1
            receipt.set_exception(ValidationError("This event is nothing that can be kept, or too large with those whom it is for."))
        elif not outcome.is_same:
            receipt.set_exception(IdempotencyConflict())
        else:
            done = Receipt(draft.id, draft.room, position, duplicate=outcome.status == "again")
            if outcome.entry and self._store is not None and (draft.ack or self._ack) == "committed":
                self._commits.wait(shard, outcome.life, outcome.entry, receipt, done)
            else:
                receipt.set_result(done)

    async def _begin(self, room: str, split: str | None = None) -> Position:
        """Where a room ends, in an epoch that has all that was seen: the last one, or else a new one.

        In a new one the ids of the last minutes are known too, by what the store has of them, if the log may have lost any. `split`: an epoch of
        which there are two histories (the log was taken over by a copy while some node went on with the original): whoever has a position of it
        may mean either, so it ends.
        """
        seen = self._known(room)
        if split is not None:
            return await self._begin_anew(room, [*seen, Position(split, MAX_OFFSET)])
        end = await self._log.end(room, seen)
        while end.doubt is not None:
            seen += await self._stored_beyond(room, end.position)
            await self._clock.sleep(end.doubt)
            end = await self._log.end(room, seen, is_settled=True)
        return end.position or await self._begin_anew(room, seen)

    async def _begin_anew(self, room: str, seen: Sequence[Position]) -> Position:
        remembered: Sequence[Remembered] = ()
        if self._store is not None and (seen or await self._log.age(self._log.shard(room)) < IDEMPOTENCY_WINDOW):
            remembered = await self._store.recent_ids(room, int((self._clock.now() - IDEMPOTENCY_WINDOW) * 1000))
        return await self._log.begin(room, new_epoch(), seen, remembered)

    async def _stored_beyond(self, room: str, end: Position | None) -> list[Position]:
        """Where a room ends in the store, if that is further in the same epoch. A store that is away is not waited for."""
        try:
            stored = await self._last_stored(room)
        except BackendError:
            return []
        return [stored] if stored is not None and end is not None and stored.epoch == end.epoch and stored.offset > end.offset else []

    def _known(self, room: str) -> list[Position]:
        """How far a room came, as this node knows: by what was delivered, and by what it was told of its own events."""
        followed, told = self._follower.get(room), self._told.get(room)
        if followed is None:
            return [told] if told is not None else []
        if told is None or (told.epoch == followed.epoch and told.offset <= followed.offset):
            return [followed.position]
        return [told] if told.epoch == followed.epoch else [followed.position, told]

    def _note(self, room: str, position: Position) -> None:
        self._told[room] = position
        self._told.move_to_end(room)
        if len(self._told) > ROOMS_REMEMBERED:
            self._told.popitem(last=False)

    def send_volatile(self, event: LoggedEvent) -> None:
        if self._is_open:
            self._log.send_volatile(event)

    # — reading —

    async def position(self, room: str) -> Position:
        return await self._follower.position(room)

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        followed = self._follower.get(room)
        if followed is not None:
            if after.epoch == followed.epoch and followed.offset < after.offset <= MAX_OFFSET:
                await self._follower.reach_end(followed)  # perhaps another node was faster
            if after.epoch != followed.epoch or not 0 <= after.offset <= followed.offset:
                raise UnrecoverablePosition()
            if after.offset == followed.offset:
                return Page(after.epoch, [], False, after.offset + 1, after.offset)
        stretch = await self._read_on(room, after, limit)
        assert stretch.head is not None
        top = stretch.head.offset
        if (followed := self._follower.get(room)) is not None and followed.epoch == after.epoch:
            top = min(top, followed.offset)  # what is beyond has not been delivered here, and will be
        last = min(stretch.last, top)
        events = [event for event in stretch.events if event.data and event.offset <= last]
        return Page(after.epoch, events, last < top, after.offset + 1, last)

    async def _read_on(self, room: str, after: Position, limit: int) -> Stretch:
        """What comes right after a position: from the log, or where that was trimmed, from the store. Raises `UnrecoverablePosition`."""
        if not 0 <= after.offset <= MAX_OFFSET:
            raise UnrecoverablePosition()
        stretch = await _in_task(self._log.read_after(room, after, limit))
        head = stretch.head
        if head is None or head.epoch != after.epoch or after.offset > head.offset:
            raise UnrecoverablePosition()
        if after.offset == head.offset or stretch.events:
            return stretch
        rows = await _in_task(self._store.read_after(room, after, limit)) if self._store is not None else []
        if not rows or rows[-1].offset - after.offset != len(rows):
            raise UnrecoverablePosition()
        return Stretch(head, rows, after.offset + 1, rows[-1].offset, is_stored=True)

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        offset = None if before is None else min(max(before.offset, 1), MAX_OFFSET)
        present = await _in_task(self._log.read_before(room, offset, limit))
        head = present.head or await self._begin(room)
        if before is not None and before.epoch != head.epoch:
            return await self._stored_before(room, before, limit)
        end = head.offset + 1 if offset is None else min(offset, head.offset + 1)
        rows, first = (present.events, present.first) if present.events else ([], end)
        if self._store is not None and first > 1 and len(rows) < limit and not present.is_cut:
            older = await self._store_before(room, Position(head.epoch, first), limit - len(rows))
            if older and first - older[0].offset == len(older):  # else it has not come so far yet
                rows, first = older + rows, older[0].offset
        if not rows and before is None and (last := await self._last_stored(room)) is not None and last.epoch != head.epoch:
            return await self._stored_before(room, Position(last.epoch, last.offset + 1), limit)  # a young epoch: what was before it
        return _page(head.epoch, rows, first, end, first > 1 and (len(rows) >= limit or present.is_cut))

    async def _stored_before(self, room: str, before: Position, limit: int) -> Page:
        rows = await self._store_before(room, before, limit)
        if not rows:
            raise UnrecoverablePosition()
        return _page(before.epoch, rows, rows[0].offset, before.offset, len(rows) >= limit and rows[0].offset > 1)

    async def _store_before(self, room: str, before: Position, limit: int) -> list[LoggedEvent]:
        return await _in_task(self._store.read_before(room, before, limit)) if self._store is not None else []

    async def _last_stored(self, room: str) -> Position | None:
        return (await self._store.heads((room,))).get(room) if self._store is not None else None

    # — backends.shared_log.Listener —

    def heard(self, event: LoggedEvent) -> None:
        self._follower.heard(event)

    def heard_volatile(self, event: LoggedEvent) -> None:
        self._follower.receiver.deliver_volatile(event)

    def heard_notice(self, room: str, payload: bytes) -> None:
        self._notice(room, payload)

    def heard_probe(self, shard: int, token: str) -> None:
        self.prober.heard(shard, token)

    def heard_committed(self, shard: int, life: str, entry: str) -> None:
        self._commits.reached(shard, life, entry)

    def followed(self, rooms: Sequence[str]) -> None:
        if self._is_interrupted and self._log.is_connected:
            self._is_interrupted = False
            self.prober.forget()
            self._settle()
        self._follower.followed(rooms)

    def interrupted(self) -> None:
        self._is_interrupted = True
        self._interruptions += 1
        self.prober.forget()
        self._settle()

    # — after a start of the log, or a fail-over —

    def _settle(self) -> None:
        """The log may have lost what came last. Where it lacks what this node saw, begin anew, before others go on without that."""
        self._is_unsettled = True
        if self._settling is None and self._is_open:
            self._settling = asyncio.get_running_loop().create_task(self._say_what_was_seen())

    async def _say_what_was_seen(self) -> None:
        try:
            while self._is_unsettled:
                self._is_unsettled = False
                try:
                    await self._follower.compare()
                    for shard, rooms in self._follower.by_shard(self._told):
                        heads = await self._log.heads(shard, rooms)
                        await _all(self._defend(room) for room, head in zip(rooms, heads, strict=True) if self._may_lack(room, head))
                except BackendError:
                    self._is_unsettled = True
                    await self._clock.sleep(RETRY)
        except Exception:
            logger.exception("looking at what the shared log may have lost failed in itself")
        finally:
            self._settling = None

    async def _defend(self, room: str) -> None:
        """Begin a room anew if the log lacks some of it; at once, since the others wait only for a while."""
        seen = self._known(room)
        if (await self._log.end(room, seen)).position is None:
            await self._begin_anew(room, seen)

    def _may_lack(self, room: str, head: Position | None) -> bool:
        return head is not None and any(head.epoch != seen.epoch or head.offset < seen.offset for seen in self._known(room))


def _page(epoch: str, rows: list[LoggedEvent], first: int, end: int, more: bool) -> Page:
    return Page(epoch, [event for event in rows if event.data], more, first, end - 1)


def _in_task(reading: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The road runs a broker's first step without a task, and time limits need one."""
    return asyncio.get_running_loop().create_task(reading)


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    """All at once. Raises the first error, when all have ended."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
