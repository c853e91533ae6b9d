"""The consumption of one queue: takes messages, gives them to the handler, and tells the store what became of each.

It keeps no message: what it has taken and not settled when the process ends is handed to another worker when the lease has run out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ..backends.queue import QueueLimits, QueueStore, Taken, Verdict
from ..clock import Clock
from ..errors import BackendError
from ..logs import get_logger
from ..protocol.backoff import Backoff
from .handling import Handling, ProcessOptions, QueueHandler

logger = get_logger("aibos_realtime.queue")

MAX_AHEAD = 500
"""Messages that a worker has taken at most beyond those that its handlers are busy with."""
MAX_UNSETTLED = 2000
"""Verdicts that may wait for the store before no further message is begun."""
MAX_SETTLED_AT_ONCE = 500
IDLE_WAIT = 1.0
"""Seconds after which a worker that waits looks anyway: the end of another worker's lease is told to nobody."""
GRACE = 2.0
"""Seconds for what was cancelled to end."""
LAST_WORDS = 5.0
"""Seconds for the store to hear of handlers that were cancelled."""
TURN = 0.005
"""Seconds of handlers that never wait, after which the loop gets a turn."""
BRISK, SLUGGISH = 0.05, 0.2
"""Seconds between two takes below which more is taken ahead, and above which less is."""


class Held:
    """A message in this worker's hands. `until`: how long surely so, by the monotonic clock."""

    __slots__ = ("is_begun", "taken", "taken_at", "until")

    def __init__(self, taken: Taken, now: float, visibility: float) -> None:
        self.taken = taken
        self.taken_at = now
        self.until = now + visibility
        self.is_begun = False


class Worker:
    """One queue's handler at work. `start` once, `stop` once."""

    def __init__(
        self,
        queue: str,
        handler: QueueHandler,
        options: ProcessOptions,
        *,
        store: QueueStore,
        limits: QueueLimits,
        max_message_bytes: int,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.queue = queue
        self._handling = Handling(queue, handler, options, max_message_bytes=max_message_bytes, random=random)
        self._options = options
        self._store = store
        self._limits = limits
        self._clock = clock
        self._random = random
        self._held: dict[str, Held] = {}
        """By lease: everything from its taking to the store's answer to its verdict."""
        self._ahead: deque[Held] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        """One for each runner that waits for a message."""
        self._verdicts: deque[Verdict] = deque()
        self._changed = asyncio.Event()
        """Something was begun, finished or settled."""
        self._has_verdicts = asyncio.Event()
        self._take_limit = options.concurrency
        self._is_full = False
        """Whether the last take gave as many as it was asked for."""
        self._pause: asyncio.Task[None] | None = None
        """What the fetching waits for: ends early when stopping."""
        self._turn_ends = 0.0
        self._is_turn_planned = False
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._runners: list[asyncio.Task[None]] = []

    # — life —

    def start(self) -> None:
        """Begin. Needs a running loop; the store is open."""
        loops = {"fetch": self._fetch, "settle": self._settle, "extend": self._extend}
        self._tasks = [asyncio.create_task(loop(), name=f"queue {self.queue}: {name}") for name, loop in loops.items()]
        runners = range(self._options.concurrency)
        self._runners = [asyncio.create_task(self._run(), name=f"queue {self.queue}: handler {number}") for number in runners]

    async def stop(self, drain: float) -> None:
        """Take no more, give back what is not begun, and let running handlers finish for up to `drain` seconds; then they are cancelled.

        What was cancelled is given back too, and its attempt does not count. Cancelling this ends everything at once.
        Ends at most 7 seconds after the drain, whatever handlers and store do.
        """
        self._is_stopping = True
        try:
            async with asyncio.timeout(drain):
                await self._end_fetching()
                while any(held.is_begun for held in self._held.values()) or self._verdicts:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            await _cancel(self._runners)
            await self._settle_rest()
        finally:
            await _cancel([*self._runners, *self._tasks])

    async def _end_fetching(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._changed.set()
        await asyncio.wait(self._tasks[:1])
        self._release_ahead()

    def _release_ahead(self) -> None:
        while self._ahead:
            self._conclude(Verdict(self._ahead.popleft().taken, "release"))

    async def _settle_rest(self) -> None:
        """One more try for what was cancelled; what does not reach the store is taken over when its lease has run out."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await _cancel(self._tasks)
                self._release_ahead()
                while self._verdicts:
                    await self._settle_batch()
        except TimeoutError:
            logger.warning("queue %s: %d messages could not be given back within %g seconds", self.queue, len(self._verdicts), LAST_WORDS)
        except Exception as error:
            trace = not isinstance(error, BackendError)
            logger.warning("queue %s: %d messages could not be given back: %s", self.queue, len(self._verdicts), error, exc_info=trace)

    # — taking —

    async def _fetch(self) -> None:
        backoff = self._new_outage_backoff()
        last = self._clock.monotonic()
        while not self._is_stopping:
            if (room := self._room()) <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            now = self._clock.monotonic()
            self._pace(now - last)
            last = now
            unsettled = len(self._verdicts)
            try:
                taken = await self._take(room)
                backoff.attempts = 0
                if not taken and unsettled:
                    await self._until_settled()  # that may make room for the next ones of their keys
                elif not taken:
                    await self._rest(self._store.wait(self.queue, IDLE_WAIT))
            except Exception as error:
                await self._rest(self._bear("taking messages", error, backoff))

    def _room(self) -> int:
        """How many to take now: none while a handler's place is filled and half of what may be taken is there, so that takes are few and full."""
        unsettled = len(self._verdicts)
        held = len(self._held) - unsettled
        enough = max(self._options.concurrency - 1, self._take_limit // 2)
        return self._take_limit - held if held <= enough and unsettled < MAX_UNSETTLED else 0

    def _pace(self, since_last: float) -> None:
        """Take more ahead while messages are handled as fast as they come, and none at all of what is handled slowly: others may have time."""
        if since_last < BRISK and self._is_full:
            self._take_limit = min(self._take_limit * 2, self._options.concurrency + MAX_AHEAD)
        elif since_last > SLUGGISH:
            self._take_limit = max(self._take_limit // 2, self._options.concurrency)

    async def _take(self, room: int) -> list[Taken]:
        now, visibility = self._clock.monotonic(), self._options.visibility_timeout
        taken = await self._store.take(self.queue, room, visibility=visibility, limits=self._limits, ordered=self._options.ordered)
        self._is_full = len(taken) == room
        for one in taken:
            held = self._held[one.lease] = Held(one, now, visibility)
            self._ahead.append(held)
            self._wake_runner()
        return taken

    async def _rest(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait, unless stopping. Raises what the waiting raises."""
        pause = self._pause = asyncio.create_task(waiting, name=f"queue {self.queue}: pause")
        try:
            await asyncio.wait([pause])
        finally:
            self._pause = None
            pause.cancel()
        if not pause.cancelled() and (error := pause.exception()) is not None:
            raise error

    async def _until_settled(self) -> None:
        if self._verdicts:
            self._changed.clear()
            await self._changed.wait()

    # — handling —

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_stopping:
            while loop.time() > self._turn_ends:
                if not self._is_turn_planned:
                    self._is_turn_planned = True
                    loop.call_soon(self._begin_turn, loop)
                await asyncio.sleep(0)
            held = await self._next()
            try:
                verdict = await self._handling.handle(held.taken)
            except asyncio.CancelledError:
                self._conclude(Verdict(held.taken, "release"))
                raise
            self._conclude(verdict)

    def _begin_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handlers that never wait share the time between two turns of the loop, however many they are."""
        self._is_turn_planned = False
        self._turn_ends = loop.time() + TURN

    async def _next(self) -> Held:
        while True:
            while not self._ahead or self._is_stopping or len(self._verdicts) >= MAX_UNSETTLED:
                idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
            held = self._ahead.popleft()
            if held.until > self._clock.monotonic():
                held.is_begun = True
                self._changed.set()
                return held
            # The lease ran out unused (the process stood still): another worker may have the message.
            self._conclude(Verdict(held.taken, "release"))

    def _wake_runner(self) -> None:
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return

    # — settling —

    def _conclude(self, verdict: Verdict) -> None:
        self._verdicts.append(verdict)
        self._has_verdicts.set()
        self._changed.set()

    async def _settle(self) -> None:
        backoff = self._new_outage_backoff()
        while True:
            await self._has_verdicts.wait()
            try:
                await self._settle_batch()
                backoff.attempts = 0
            except Exception as error:
                await self._bear("settling messages", error, backoff)

    async def _settle_batch(self) -> None:
        """Say what became of the oldest ones. Repeating is safe, so they stay until the store has answered."""
        batch = [self._verdicts[index] for index in range(min(len(self._verdicts), MAX_SETTLED_AT_ONCE))]
        counted = await self._store.settle(self.queue, batch, self._limits)
        for verdict in batch:
            self._verdicts.popleft()
            self._held.pop(verdict.taken.lease, None)
        lost = sum(not did_count and verdict.kind != "release" for verdict, did_count in zip(batch, counted, strict=True))
        if lost:
            logger.warning("queue %s: %d messages were taken over by other workers, or removed, before they were done here", self.queue, lost)
        if not self._verdicts:
            self._has_verdicts.clear()
        self._changed.set()
        for _ in batch if self._ahead else ():
            self._wake_runner()

    # — keeping —

    async def _extend(self) -> None:
        """Three times per visibility time-out; what was not begun since the last time is given back for others to take."""
        visibility = self._options.visibility_timeout
        interval = visibility / 3
        while True:
            await self._clock.sleep(interval)
            now = self._clock.monotonic()
            while self._ahead and self._ahead[0].taken_at <= now - interval / 2:
                self._take_limit = self._options.concurrency
                self._conclude(Verdict(self._ahead.popleft().taken, "release"))
            held = list(self._held.values())
            try:
                kept = await self._store.extend(self.queue, [one.taken for one in held], visibility) if held else []
            except Exception as error:
                logger.warning("queue %s: leases could not be extended: %s", self.queue, error, exc_info=not isinstance(error, BackendError))
                continue
            for one, is_kept in zip(held, kept, strict=True):
                one.until = now + visibility if is_kept else 0.0

    # — the store being away —

    def _new_outage_backoff(self) -> Backoff:
        return Backoff(random=self._random, first=0.1, limit=2.0)

    async def _bear(self, what: str, error: Exception, backoff: Backoff) -> None:
        if backoff.attempts == 0:
            trace = not isinstance(error, BackendError)
            logger.warning("queue %s: %s failed, and is tried again: %s", self.queue, what, error, exc_info=error if trace else None)
        await self._clock.sleep(backoff.next_delay(at_least=0.05))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel what was not cancelled before, and wait for it."""
    fresh = [task for task in tasks if not task.done() and not task.cancelling()]
    for task in fresh:
        task.cancel()
    if fresh and (left := (await asyncio.wait(fresh, timeout=GRACE))[1]):
        logger.warning("%s: still running although cancelled", ", ".join(sorted(task.get_name() for task in left)))
