"""From what the log acknowledged to the store. Every node has a drainer, and the one that holds the lease drains.

Storing is repeatable, so nothing depends on the lease: two that drain at once, or one that ends between storing and dropping, only do work twice.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ..backends.base import EventStore, LoggedEvent, Refused
from ..backends.intake import Intake, IntakeEntry, Lease
from ..backends.supervision import keep_going
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import BackendError, StoreUnavailable
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.backoff import Backoff
from .batch import Batches
from .lines import BATCH_BYTES, Line, cut, weigh

logger = get_logger("aibos_realtime.drain")

READ_BYTES = 512 * 1024
"""Of payloads that one read may bring where there are many shards."""
FIRST_READS = 64
"""Entries that the first reads of all shards bring together; what later ones bring follows from that."""
IDLE, MOST_IDLE = 0.1, 0.5
"""Seconds from one look at what was empty to the next, about, while nobody waits; doubling while nothing comes."""
ASK_AGAIN = 0.5
"""Seconds after which a node without the lease asks for it again."""
STAND_BACK = 1.0
"""Seconds for which a node does not ask for the lease that it gave up, since the store did not answer it: others have asked meanwhile."""
MOST_OUTAGE, LONGEST_OUTAGE = 1.0, 10.0
"""Seconds for which the store may fail the node that drains before another one is given a try; doubling while it goes on."""
COUNT_EVERY = 1.0
"""Seconds after which the node that drains counts what waits."""
CHECK_EVERY = 5.0
"""Seconds after which a node makes sure that it may still write to the store."""
GRACE = 2.0
"""Seconds that a batch which is on its way gets when the drainer stops."""


class Drainer:
    """Stores what waits, each shard in its order, and what several shards bring at one moment as one.

    `store` is shared by `start`, and closed by `stop`. `on_era`: called with the name of the store's era, at first and when there is a new one,
    until it returns without an error: what the log remembers of another era is no continuity.
    """

    def __init__(
        self,
        intake: Intake,
        store: EventStore,
        lease: Lease,
        *,
        on_era: Callable[[str], Awaitable[object]] | None = None,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._intake = intake
        self._store = store
        self._lease = lease
        self._on_era = on_era
        self._metrics = metrics or Metrics()
        self._clock = clock
        first = max(1, FIRST_READS // intake.shards)
        self._lines = [Line(shard, first, Backoff(random=random, first=0.1, limit=1.0)) for shard in range(intake.shards)]
        self._most = max(BATCH_BYTES // intake.shards, READ_BYTES)
        self._batches: Batches[list[IntakeEntry], None] = Batches(self._take_in, weigh=weigh, name="drain: store")
        self._held_until = self._asks_from = 0.0
        self._failing_since: float | None = None
        """When the store was asked for the first time of those that have failed since."""
        self._most_outage = MOST_OUTAGE
        self._held = asyncio.Event()
        self._pulse = asyncio.Event()
        """Set, and replaced, when it is time to look at what was empty."""
        self._pause = IDLE
        self._is_stopping = self._is_emptying = False
        self._draining: list[asyncio.Task[None]] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._is_outage = self._is_refusing = False
        """The store does not answer; it took nothing when it was given something."""
        self._unreadable: set[int] = set()
        self._waiting: int | None = None
        self._counted_at = -COUNT_EVERY
        self.era = ""
        self.is_store_available = False
        """Whether the store took, or would take, what is drained."""
        self.entries = 0
        """Events that were taken to the store, those that it had already included."""
        self.batches = 0
        self.failures = 0
        """How often the store, or what waits for it, did not answer."""
        self.buried = 0
        """Events that the store refused."""
        self.foreign = 0
        """Entries that were none of ours."""

    @property
    def is_holder(self) -> bool:
        """Whether this node holds the lease, as far as it can be sure."""
        return self._clock.monotonic() < self._held_until

    @property
    def oldest_age(self) -> float:
        """Seconds for which the oldest event that was seen last has been waiting; 0 where nothing waited, or another node drains."""
        return max(line.age for line in self._lines) if self.is_holder else 0.0

    @property
    def waiting(self) -> int | None:
        """How many events waited, a second ago at most; None where another node drains, or the log did not say."""
        return self._waiting if self.is_holder else None

    # — life —

    async def start(self) -> None:
        """Share the store, and begin. Raises `ConfigurationError`, `StoreUnavailable`, and what `on_era` raises. Idempotent."""
        if self._draining:
            return
        try:
            await self._share()
        except BaseException:
            await self._store.close()
            raise
        self._note_store(None)
        self._is_stopping = self._is_emptying = False
        self._held, self._pulse, self._pause = asyncio.Event(), asyncio.Event(), IDLE
        self._keeping = [self._spawn("lease", self._keep_lease), self._spawn("look", self._look), self._spawn("check", self._keep_checking)]
        self._draining = [self._spawn(f"shard {line.shard}", partial(self._drain, line)) for line in self._lines]

    def _spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(keep_going(work, f"drain: {name}", clock=self._clock, metrics=self._metrics), name=f"drain: {name}")

    async def stop(self, drain: float = 0.0) -> None:
        """Let the batch that is on its way end, and give back the lease. Idempotent. Cancelling gives up what is on its way.

        `drain`: seconds to drain what is there first, for the last node; without effect while another node has the lease.
        """
        if not self._draining or self._is_stopping:
            return
        self._is_stopping = True
        try:
            if drain > 0 and await self._ask_for_lease():
                self._is_emptying = True
                self._wake()
                await asyncio.wait(self._draining, timeout=drain)
                self._is_emptying = False
            working = [task for task, line in zip(self._draining, self._lines, strict=True) if line.is_working]
            if working:
                await asyncio.wait(working, timeout=GRACE)
        finally:
            self._batches.give_up(StoreUnavailable("The server stopped before this was stored."))
            tasks = [*self._keeping, *self._draining]
            self._keeping, self._draining = [], []
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._give_back()
            await self._store.close()

    # — the lease —

    async def _keep_lease(self) -> None:
        while True:
            if (rest := self._asks_from - self._clock.monotonic()) > 0:
                await self._clock.sleep(rest)
            await self._ask_for_lease()
            is_eager = self.is_store_available and not self.is_holder  # who could do nothing with it leaves it to others for the moment
            await self._clock.sleep(min(ASK_AGAIN, self._lease.ttl / 3) if is_eager else self._lease.ttl / (3 if self.is_holder else 1))

    async def _ask_for_lease(self) -> bool:
        """Get or renew it; whether it is held. What nobody answers leaves it as it was, for as long as it lasts."""
        began = self._clock.monotonic()
        try:
            is_held = await self._lease.hold()
            self._held_until = began + self._lease.ttl if is_held and began >= self._asks_from - STAND_BACK else 0.0
            self._is_refusing = self._is_refusing and is_held  # whether it would take something is no longer found out here
        except Exception as error:
            _tell_of_fault("asking for the lease of the store", error)
        if self.is_holder:
            self._held.set()
        else:
            self._held.clear()
        return self.is_holder

    async def _stand_back(self) -> None:
        """Give up the lease for a while: the store does not answer this node, and may answer another one."""
        now = self._clock.monotonic()
        if not self._is_stopping and self.is_holder and self._failing_since is not None and now - self._failing_since >= self._most_outage:
            self._failing_since, self._asks_from = None, now + STAND_BACK
            self._most_outage = min(2 * self._most_outage, LONGEST_OUTAGE)
            await self._give_back()

    async def _give_back(self) -> None:
        self._held_until = 0.0
        try:
            await self._lease.release()
        except Exception as error:
            _tell_of_fault("giving back the lease of the store", error)

    # — the store —

    async def _keep_checking(self) -> None:
        """On every node: one that only stands by must not lose its right unnoticed."""
        while True:
            await self._clock.sleep(CHECK_EVERY)
            try:
                await self._share()
            except Exception as error:
                self._note_store(error)
            else:
                if not self._is_refusing:
                    self._note_store(None)

    async def _share(self) -> None:
        era = await self._store.share()
        if era != self.era:
            if self._on_era is not None:
                await self._on_era(era)
            self.era = era

    def _note_store(self, error: Exception | None) -> None:
        if error is not None:
            self.failures += 1
            self._metrics.commit_failures += 1
            if not self._is_outage:
                logger.error("the store takes nothing; events wait for it in the shared log: %s", error, exc_info=_trace(error))
        elif self._is_outage:
            logger.warning("the store takes events again")
        self._is_outage, self.is_store_available = error is not None, error is None

    async def _take_in(self, parts: list[list[IntakeEntry]]) -> list[None]:
        """Store what several shards bring."""
        began = self._clock.monotonic()
        try:
            if not self.is_store_available:
                await self._share()
            for batch in cut([entry for part in parts for entry in part]):
                await self._store_batch(batch)
        except Exception as error:
            self._is_refusing = True
            if self._failing_since is None:
                self._failing_since = began
            self._note_store(error)
            raise (error if isinstance(error, StoreUnavailable) else StoreUnavailable()) from error
        self._is_refusing, self._failing_since, self._most_outage = False, None, MOST_OUTAGE
        self._note_store(None)
        return [None] * len(parts)

    async def _store_batch(self, batch: Sequence[tuple[LoggedEvent, bool]]) -> None:
        """Store events; where they are refused, each half by itself, down to the one that is meant."""
        began = self._clock.monotonic()
        try:
            await self._store.append_once([event for event, _ in batch], frozenset(n for n, (_, keep) in enumerate(batch) if not keep))
        except Refused as refusal:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._store_batch(batch[:half])
                await self._store_batch(batch[half:])
            else:
                await self._bury(batch[0][0], str(refusal))
        else:
            self.batches += 1
            self._metrics.commits += 1
            self._metrics.commit_times.note(self._clock.monotonic() - began)
            self.entries += len(batch)

    async def _bury(self, event: LoggedEvent, reason: str) -> None:
        try:
            await self._store.bury(event, reason, int(self._clock.now() * 1000))
        except Refused:
            logger.error("the store refused an event of the shared log, and even its place: %s", reason)
        else:
            logger.error("the store refused an event of the shared log, which is now among the dead messages: %s", reason)
        self.buried += 1

    # — what waits —

    async def _drain(self, line: Line) -> None:
        """Take one shard to the store, until the drainer stops."""
        while self._is_emptying or not self._is_stopping:
            if not self.is_holder:
                self._held.clear()
                await self._held.wait()
            pulse = self._pulse
            try:
                taken = await self._drain_once(line)
            except Exception as error:
                self._note_line(line, error)
                await self._stand_back()
                await self._clock.sleep(line.backoff.next_delay(at_least=0.05))
                continue
            self._note_line(line, None)
            if taken:
                self._pause = IDLE
            elif self._is_emptying:
                return
            else:
                await pulse.wait()

    async def _drain_once(self, line: Line) -> bool:
        """Read, store and drop one stretch; whether there was one."""
        entries = await self._intake.read(line.shard, None, line.count)
        if not entries:
            line.age = 0.0
            return False
        line.adapt(len(entries), weigh(entries), self._most)
        foreign = sum(entry.event is None for entry in entries)
        oldest = next((entry.event.timestamp for entry in entries if entry.event is not None), None)
        line.age = max(0.0, self._clock.now() - oldest / 1000) if oldest is not None else 0.0
        if not self.is_holder:  # it took that long
            return True
        line.is_working = True
        try:
            await self._batches.add(list(entries))
            await self._intake.drop(line.shard, entries[-1].id)
        finally:
            line.is_working = False
        if foreign:
            self.foreign += foreign
            self._metrics.foreign_records += foreign
            logger.warning("%d entries of what waits for the store were none of ours, and were dropped", foreign)
        return True

    def _note_line(self, line: Line, error: Exception | None) -> None:
        if error is None:
            line.backoff.attempts = 0
            if line.shard in self._unreadable:
                self._unreadable.remove(line.shard)
                if not self._unreadable:
                    logger.info("what waits for the store can be read again")
            return
        line.count = max(1, line.count // 2)  # it may have been too much for the time it has
        if not isinstance(error, StoreUnavailable):
            self.failures += 1
            if not self._unreadable:
                logger.error("what waits for the store cannot be read; it waits: %s", error, exc_info=_trace(error))
            self._unreadable.add(line.shard)

    async def _look(self) -> None:
        """Have the shards looked at: soon, and at once when somebody waits."""
        while True:
            await self._held.wait()
            try:
                await self._intake.wait(self._pause)
            except Exception as error:
                _tell_of_fault("waiting for those who wait for the store", error)
                await self._clock.sleep(IDLE)
            self._pause = min(self._pause * 2, MOST_IDLE)
            self._wake()
            await self._count()

    async def _count(self) -> None:
        now = self._clock.monotonic()
        if self.is_holder and now - self._counted_at >= COUNT_EVERY:
            self._counted_at = now
            try:
                self._waiting = await self._intake.count()
            except Exception as error:
                self._waiting = None
                _tell_of_fault("counting what waits for the store", error)

    def _wake(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()


def _trace(error: Exception) -> Exception | None:
    """An error that is none of a server's is a fault of ours."""
    return None if isinstance(error, BackendError) else error


def _tell_of_fault(what: str, error: Exception) -> None:
    """A server that does not answer is told of by others."""
    if not isinstance(error, BackendError):
        logger.error("%s failed in itself", what, exc_info=error)
