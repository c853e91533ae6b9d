"""A node's view of the rooms that it follows in a shared log: each event once, in order, and a gap never silent.

What is heard is compared with what was delivered last. Where something is missing it is read from the log before anything else of the room goes on;
where it cannot be read, the members are told. Quiet rooms are compared with the log every few seconds: a subscription can be lost without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ..backends.base import NOBODY, LoggedEvent, Receiver
from ..backends.shared_log import SharedLog, Stretch
from ..clock import Clock, Timer
from ..errors import BackendError, BrokerUnavailable, RealtimeError, StoreUnavailable, UnrecoverablePosition
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.messages import Position
from .batch import MAX_BATCH, Batches
from .followed import Followed

logger = get_logger("aibos_realtime.log")

CHECK_EVERY = 1.0
"""Seconds between two looks at a third of the rooms."""
SLICES = 3
PAGE = 100
RETRY = 0.25
PATIENCE = 2.0
"""Seconds within which a room that somebody asks for must be heard, or caught up with."""


Begin = Callable[[str, str | None], Awaitable[Position]]


class Follower:
    """`begin(room, split)`: where a room ends, in a new epoch where it has none, or lost some of what this node knows of, or is still in the epoch
    `split`, of which two nodes know two histories. `read_after`: a page, wherever it is kept; raises `UnrecoverablePosition`."""

    def __init__(
        self,
        log: SharedLog,
        *,
        begin: Begin,
        read_after: Callable[[str, Position, int], Awaitable[Stretch]],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._log = log
        self._begin = begin
        self._read_after = read_after
        self._metrics = metrics
        self._clock = clock
        self.receiver: Receiver = NOBODY
        self._rooms: dict[str, Followed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heads: list[Batches[str, Position | None]] = [
            Batches(partial(log.heads, shard), weigh=len, name="log: heads") for shard in range(log.shards)
        ]
        self._doubtful: dict[str, None] = {}
        """Rooms of which something may have been missed, for certain if the log has it."""
        self._is_doubting = self._is_running = False
        self._lives: dict[int, str] = {}
        """By shard the life of the log in which its rooms were last found to be what this node knows."""
        self._checking: Timer | None = None
        self._slice = self._newest_slice = 0

    def __len__(self) -> int:
        return len(self._rooms)

    # — life —

    def start(self) -> None:
        self._is_running = True
        self._checking = self._clock.call_later(CHECK_EVERY, self._check)

    async def stop(self) -> None:
        self._is_running = False
        if self._checking is not None:
            self._checking.cancel()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for heads in self._heads:
            heads.give_up(BrokerUnavailable("The server stopped."))
        for followed in self._rooms.values():
            followed.fail(BrokerUnavailable("The server stopped."))
        self._rooms.clear()
        self._doubtful.clear()

    # — asking —

    def get(self, room: str) -> Followed | None:
        """The room, if it is followed, and it is known what was delivered of it."""
        followed = self._rooms.get(room)
        return followed if followed is not None and followed.epoch else None

    async def position(self, room: str) -> Position:
        """Where a room stands on this node, after it is followed; of a room that nobody watches, where it ends in the log."""
        if not self._is_running:
            raise BrokerUnavailable("The server does not run.")
        followed = self._rooms.get(room)
        if followed is None:
            if not self.receiver.is_watched(room):
                return await self._end(room)
            followed = self._follow(room)
        if not followed.epoch:
            await followed.wait(self._clock)
        return followed.position

    async def reach_end(self, followed: Followed) -> None:
        """Come to where a room ends in the log. Raises `BrokerUnavailable`, at the latest after 2 seconds."""
        if followed.is_live:
            self._repair(followed)
        await followed.wait(self._clock, PATIENCE)

    def _follow(self, room: str) -> Followed:
        self._newest_slice = (self._newest_slice + 1) % SLICES
        followed = self._rooms[room] = Followed(room, self._newest_slice)
        self._spawn(self._enter(followed))
        return followed

    async def _enter(self, followed: Followed) -> None:
        """Hear the room first and then ask where it stands, so that nothing can come in between."""
        room = followed.room
        try:
            heard = self._log.follow(room)
            timer = self._clock.call_later(PATIENCE, _give_up, heard)
            try:
                await heard
            finally:
                timer.cancel()
            position = await self._end(room)
        except (Exception, asyncio.CancelledError) as error:
            if self._rooms.get(room) is followed:
                del self._rooms[room]
                self._log.unfollow(room)
            followed.fail(error if isinstance(error, BackendError) else BrokerUnavailable())
            if not isinstance(error, RealtimeError):
                raise
            return
        followed.enter(position)
        await self._mend(followed)

    async def _end(self, room: str) -> Position:
        """Where a room ends in the log; those asked for at one moment are asked together."""
        return await self._heads[self._log.shard(room)].add(room) or await self._begin(room, None)

    def by_shard(self, rooms: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Rooms of one shard each, as many as are asked for at once."""
        shards: dict[int, list[str]] = {}
        for room in rooms:
            shards.setdefault(self._log.shard(room), []).append(room)
        for shard, found in shards.items():
            for start in range(0, len(found), MAX_BATCH):
                yield shard, found[start : start + MAX_BATCH]

    # — hearing —

    def heard(self, event: LoggedEvent) -> None:
        """An event, perhaps not the next one."""
        followed = self._rooms.get(event.room)
        if followed is None:
            return
        if not followed.is_live:
            followed.hold(event)
        elif event.offset == followed.offset + 1 and event.epoch == followed.epoch:
            followed.advance(event)
            self._hand_on(event)
        elif event.offset > followed.offset or event.epoch != followed.epoch:
            self._repair(followed)
        elif followed.is_other(event):
            followed.is_broken = True
            self._repair(followed)

    def followed(self, rooms: Iterable[str]) -> None:
        """These are heard from here on; what was missed since they were heard last is looked for at once."""
        for room in rooms:
            followed = self._rooms.get(room)
            if followed is not None and followed.is_live:
                self._doubtful[room] = None
            elif followed is not None:
                followed.hear_again()
        if self._doubtful and not self._is_doubting:
            self._is_doubting = True
            self._metrics.subscriptions_repaired += 1
            self._spawn(self._clear_doubts())

    async def compare(self) -> None:
        """Look at all rooms: whether the log still has what was delivered. Raises `BrokerUnavailable`."""
        if await self._compare_all([room for room, followed in self._rooms.items() if followed.is_live]):
            raise BrokerUnavailable()

    # — repairing —

    def _repair(self, followed: Followed) -> None:
        """Something is missing: read it before anything else of this room goes on."""
        followed.is_live = False
        self._spawn(self._mend(followed, must_read=True))

    async def _mend(self, followed: Followed, *, must_read: bool = False) -> None:
        before, is_told = followed.position, False
        while self._is_current(followed):
            try:
                await self._catch_up(followed, must_read)
            except Exception as error:
                if not isinstance(error, BackendError) and not is_told:
                    is_told = True
                    logger.exception("a room cannot be followed at present: something failed in itself")
                must_read = True
                await self._clock.sleep(RETRY)
            else:
                self._metrics.gaps_repaired += must_read and followed.position != before
                return

    async def _catch_up(self, followed: Followed, must_read: bool) -> None:
        """Read to the end of the room's log, deliver what was heard meanwhile if it comes right after that, and go live; else read on.

        The log has an event before anybody hears of it: what is held needs no other care.
        """
        while True:
            if must_read:
                followed.begin_reading()
                if not await self._read_up(followed):
                    return
            if (rest := followed.take_held()) is not None:
                break
            must_read = True
        for event in rest:
            followed.advance(event)
            self._hand_on(event)
        followed.go_live()

    async def _read_up(self, followed: Followed) -> bool:
        """False: it is followed no more."""
        while self._is_current(followed):
            if followed.is_broken:
                if await self._lose(followed):
                    return True  # what was heard since it was asked where the room ends comes right after that
                continue
            try:
                page = await self._read_after(followed.room, followed.position, PAGE)
            except (UnrecoverablePosition, StoreUnavailable):  # what is live does not wait for a store that is away
                followed.is_broken = True
                continue
            if not self._is_current(followed):
                break
            if not followed.stands_on(page.at):
                followed.break_off()
                continue
            for event in page.events:
                followed.advance(event)
                if event.data:
                    self._hand_on(event)
            if page.is_stored:
                followed.recent.clear()  # some ids are other ones there
            if page.head is None or followed.offset >= page.head.offset:
                return True
        return False

    def _hand_on(self, event: LoggedEvent) -> None:
        try:
            self.receiver.deliver(event)
        except Exception:
            logger.exception("an event was heard, but not delivered")

    async def _lose(self, followed: Followed) -> bool:
        """What is missing is nowhere: go on where the log can be read, and say so before anything later. Returns whether that is at its end."""
        room = followed.room
        head = start = await self._begin(room, followed.epoch if await self._is_split(followed) else None)
        if head.epoch != followed.epoch and head.offset:
            start = Position(head.epoch, 0)
            try:
                await self._read_after(room, start, 1)
            except (UnrecoverablePosition, StoreUnavailable):
                start = head
        if not self._is_current(followed):
            return False
        logger.warning(
            "continuity of the room %s was lost, and its members are told: what was published after offset %d is gone", room, followed.offset
        )
        followed.stand_at(start)
        self._metrics.gaps_lost += 1
        try:
            self.receiver.resync(room, start)
        except Exception:
            logger.exception("the members of a room could not be told that continuity was lost")
        return start == head

    async def _is_split(self, followed: Followed) -> bool:
        """Whether the log has another event where this room stands; False where it does not say."""
        if not followed.is_split and followed.recent:
            try:
                page = await self._read_after(followed.room, followed.position, 1)
            except (UnrecoverablePosition, BackendError):
                return False
            if not followed.stands_on(page.at):
                followed.break_off()
        return followed.is_split

    def _is_current(self, followed: Followed) -> bool:
        return self._rooms.get(followed.room) is followed

    # — looking after what is quiet —

    def _check(self) -> None:
        """Compare a third of the rooms with the log, and let go of those that nobody watches any more."""
        self._checking = self._clock.call_later(CHECK_EVERY, self._check)
        self._slice = (self._slice + 1) % SLICES
        kept: list[str] = []
        for room, followed in list(self._rooms.items()):
            if followed.slice != self._slice or not followed.epoch:
                continue
            followed.idle = 0 if self.receiver.is_watched(room) else followed.idle + 1
            if followed.idle > 1:
                del self._rooms[room]
                followed.fail(BrokerUnavailable())
                self._log.unfollow(room)
            elif followed.is_live:
                kept.append(room)
        if kept:
            self._spawn(self._compare_all(kept))

    async def _clear_doubts(self) -> None:
        """Compare rooms that may have missed something, until all have been."""
        lives: dict[int, str] = {}
        try:
            while self._doubtful:
                rooms, self._doubtful = list(self._doubtful), {}
                if left := await self._compare_all(rooms, lives):
                    self._doubtful |= dict.fromkeys(left)
                    await self._clock.sleep(RETRY)
            self._lives |= lives
        finally:
            self._is_doubting = False

    async def _compare_all(self, rooms: Sequence[str], lives: dict[int, str] | None = None) -> list[str]:
        """The rooms of which the log did not tell. `lives`: what the log has and was not heard will not be heard, and the lives of the shards are
        noted here; None: it may be on its way, and is looked at again."""
        left: list[str] = []
        for shard, some in self.by_shard(rooms):
            try:
                await self._compare(shard, some, lives)
            except BackendError:
                left += some
        return left

    async def _compare(self, shard: int, rooms: Sequence[str], lives: dict[int, str] | None) -> None:
        is_another = False
        if lives is not None:  # a copy may have as many events as this node knows of, and others
            lives[shard], _ = await self._log.committed(shard)
            is_another = lives[shard] != self._lives.get(shard)
        stood = [(followed, followed.position) for room in rooms if (followed := self.get(room)) is not None]
        if not stood:
            return
        heads = await self._log.heads(shard, [followed.room for followed, _ in stood])
        for (followed, before), head in zip(stood, heads, strict=True):
            if not self._is_current(followed) or not followed.is_live or followed.epoch != before.epoch:
                continue
            if head is None or head.epoch != before.epoch or head.offset < before.offset:
                self._repair(followed)
            elif head.offset <= followed.offset and not (is_another and followed.recent):
                followed.behind = 0
            elif lives is not None:
                self._repair(followed)
            elif followed.behind > followed.offset:
                self._log.unfollow(followed.room)  # it is deaf for this room alone
                self._log.follow(followed.room).add_done_callback(_take_notice)
                self._repair(followed)
            else:
                followed.behind = head.offset

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        if not self._is_running:
            coroutine.close()
            return
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("following a room failed in itself", exc_info=error)


def _give_up(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(BrokerUnavailable())
        future.exception()  # perhaps nobody waits


def _take_notice(done: asyncio.Future[None]) -> None:
    """Nobody waits for this one: `followed` will tell."""
    if not done.cancelled():
        done.exception()
