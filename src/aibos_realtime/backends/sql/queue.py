"""Queues in tables of a SQL store, for where there is no Redis. Any number of processes may send and work on one database.

The rows are the business of `queue_rows.py` and `queue_overview.py`; here is when a worker looks at them: on PostgreSQL whenever somebody
notifies, on SQLite whenever this process sends, and ten times a second for what other processes did.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import IdempotencyConflict, QueueFull, StoreUnavailable
from ...logs import get_logger
from ...protocol.backoff import Backoff
from ..queue import QueueDraft, QueueLimits, QueueStats, Sent, StoredLetter, Taken, Verdict
from ..supervision import keep_going
from .database import Database, Work

if TYPE_CHECKING:
    from .queue_overview import QueueOverview
    from .queue_rows import QueueRows

logger = get_logger("aibos_realtime.queue")

LOOK_EVERY = 0.1
"""Seconds between two looks at what other processes have put into a file of SQLite."""
RACES = 5
"""How often a `send` begins anew because another process used the same idempotency key at the same moment."""
LISTEN_AGAIN = 10.0
"""Seconds between two attempts to listen, at most."""


class Bell:
    """What wakes those who wait for messages of one queue. `due`: when the next delay or lease is over, by the monotonic clock; None: none known."""

    __slots__ = ("due", "rung", "waiting")

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.due: float | None = None
        self.waiting = 0


class SqlQueue:
    """See `queue.QueueStore`. `database`: a URL, or a `Database` that others use too, which is then neither opened nor closed here."""

    def __init__(self, database: str | Database, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = Database(database) if isinstance(database, str) else database
        self._is_owner = isinstance(database, str)
        self._clock = clock
        self._rows: QueueRows | None = None
        self._overview: QueueOverview | None = None
        self._bells: defaultdict[str, Bell] = defaultdict(Bell)
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if self._is_owner:
            await self._database.open()
        if self._rows is None:
            from .queue_overview import QueueOverview
            from .queue_rows import QueueRows

            self._rows, self._overview = QueueRows(self._clock), QueueOverview(self._clock)

    async def close(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        self._rows = self._overview = None
        if self._is_owner:
            await self._database.close()

    async def send(self, queue: str, drafts: Sequence[QueueDraft], limits: QueueLimits) -> list[Sent | QueueFull | IdempotencyConflict]:
        from .queue_rows import KeyRace

        work = partial(self._opened().send, queue=queue, drafts=drafts, limits=limits)
        for _ in range(RACES):
            with suppress(KeyRace):
                results = await self._database.write(work)
                self._ring(queue)
                return results
        raise StoreUnavailable("Others use the same idempotency keys at this moment: try again later.")

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        bell, started = self._bells[queue], self._clock.monotonic()
        bell.rung.clear()  # before the look: what rings during it must count
        work = partial(self._opened().take, queue=queue, limit=limit, visibility=visibility, limits=limits, ordered=ordered)
        handed = await self._database.write(work)
        bell.due = None if handed.rest is None else started + handed.rest
        return handed.taken

    async def wait(self, queue: str, timeout: float) -> None:
        self._watch()
        bell = self._bells[queue]
        rest = timeout if bell.due is None else min(timeout, bell.due - self._clock.monotonic())
        if bell.rung.is_set() or rest <= 0:
            return
        timer = self._clock.call_later(rest, bell.rung.set)
        bell.waiting += 1
        try:
            await bell.rung.wait()
        finally:
            bell.waiting -= 1
            timer.cancel()

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        counted = await self._database.write(partial(self._opened().settle, queue=queue, verdicts=verdicts, limits=limits))
        if any(verdict.kind in ("retry", "release") or verdict.taken.key is not None for verdict in verdicts):
            self._ring(queue)
        return counted

    async def extend(self, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        return await self._database.write(partial(self._opened().extend, queue=queue, taken=taken, visibility=visibility))

    async def stats(self, queue: str) -> QueueStats:
        return await self._database.read(partial(self._looked_at().stats, queue=queue))

    async def names(self) -> list[str]:
        return await self._database.read(self._looked_at().names)

    async def dead_letters(self, queue: str, limit: int, before: str | None = None) -> list[StoredLetter]:
        return await self._database.read(partial(self._looked_at().dead_letters, queue=queue, limit=limit, before=before))

    async def requeue(self, queue: str, ids: Sequence[str] | None, limits: QueueLimits) -> int:
        overview = self._looked_at()
        last = await self._database.read(partial(overview.find_last_letter, queue=queue))
        moved = await self._repeat(partial(overview.requeue, queue=queue, ids=ids, limits=limits, last=last))
        self._ring(queue)
        return moved

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        return await self._repeat(partial(self._looked_at().purge, queue=queue, dead=dead))

    # — inside —

    def _opened(self) -> QueueRows:
        if self._rows is None:
            raise StoreUnavailable("The queue is not open.")
        return self._rows

    def _looked_at(self) -> QueueOverview:
        if self._overview is None:
            raise StoreUnavailable("The queue is not open.")
        return self._overview

    async def _repeat(self, work: Work[int]) -> int:
        """One slice a transaction, so that others get their turn; how many rows it were in all."""
        total = 0
        while done := await self._database.write(work):
            total += done
        return total

    def _watch(self) -> None:
        """Look out for what other processes do, from the first wait on: whoever only sends needs no connection for it."""
        if self._watching is None:
            watch = self._listen if self._database.dialect == "postgresql" else self._look
            self._watching = asyncio.create_task(keep_going(watch, "queue-watch", clock=self._clock), name="queue-watch")

    async def _listen(self) -> None:
        from .queue_values import CHANNEL

        backoff = Backoff(random=random.random, first=0.2, limit=LISTEN_AGAIN)
        while True:
            since = self._clock.monotonic()
            backoff.connected(since)
            try:
                await self._database.listen(CHANNEL, self._ring_all)
            except Exception as error:
                logger.warning("no notices of messages in queues until the database answers again, so they are found later: %s", error)
            backoff.lost(self._clock.monotonic())
            await self._clock.sleep(backoff.next_delay(at_least=0.1))

    def _ring(self, queue: str) -> None:
        if (bell := self._bells.get(queue)) is not None:
            bell.rung.set()

    def _ring_all(self) -> None:
        for bell in self._bells.values():
            bell.rung.set()

    async def _look(self) -> None:
        while self._database.file is not None:
            await self._clock.sleep(LOOK_EVERY)
            for queue, bell in list(self._bells.items()):
                if bell.waiting and not bell.rung.is_set() and self._rows is not None:
                    try:
                        if await self._database.read(partial(self._rows.has_due, queue=queue)):
                            bell.rung.set()
                    except Exception:
                        bell.rung.set()  # the next take meets the same, and is the one to say so
