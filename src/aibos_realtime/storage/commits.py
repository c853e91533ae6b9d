"""Publishers who wait until the store has their event: each is answered when it is told that the store has come so far."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count

from ..backends.base import Receipt
from ..backends.shared_log import SharedLog
from ..clock import Clock, Timer
from ..errors import BackendError, StoreUnavailable

LOOK_EVERY = 0.25
"""Seconds after which it is asked how far the store is: being told may fail."""
PATIENCE = 2.0
"""Seconds after which a publisher is told that nobody knows: as long as Redis has for an answer. Repeating with the same id waits again."""
LENGTH = 40
"""Characters of an entry, at most."""

Entry = tuple[int, int]
Line = tuple[int, str]
"""(shard, life)"""


class Commits:
    """Per shard and life of its memory the receipts that wait, by their entry in what waits for the store.

    A life that has ended tells no more: whether the store has what came last in it nobody knows, and who waits for that is told so in time.
    """

    def __init__(self, log: SharedLog, *, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._waiting: dict[Line, list[tuple[Entry, int, float, asyncio.Future[Receipt], Receipt]]] = {}
        self._reached: dict[int, tuple[str, Entry]] = {}
        self._numbers = count()
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None

    def wait(self, shard: int, life: str, entry: str, receipt: asyncio.Future[Receipt], done: Receipt) -> None:
        """Answer `receipt` with `done` once the store has this entry; after 2 seconds with `StoreUnavailable`."""
        place = read_entry(entry)
        if place <= self._reach(shard, life):
            receipt.set_result(done)
            return
        until = self._clock.monotonic() + PATIENCE
        heappush(self._waiting.setdefault((shard, life), []), (place, next(self._numbers), until, receipt, done))
        if self._timer is None:
            self._timer = self._clock.call_later(LOOK_EVERY, self._look)

    def reached(self, shard: int, life: str, entry: str) -> None:
        """The store has everything up to here."""
        place = read_entry(entry)
        if not life or place <= self._reach(shard, life):
            return
        self._reached[shard] = (life, place)
        waiting = self._waiting.get((shard, life), [])
        while waiting and waiting[0][0] <= place:
            _, _, _, receipt, done = heappop(waiting)
            if not receipt.done():
                receipt.set_result(done)

    def _reach(self, shard: int, life: str) -> Entry:
        known, place = self._reached.get(shard, ("", (0, 0)))
        return place if known == life else (0, 0)

    async def stop(self) -> None:
        """Nobody is told any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._waiting.values():
            for _, _, _, receipt, _ in waiting:
                _give_up(receipt)
        self._waiting.clear()
        self._reached.clear()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for line, waiting in list(self._waiting.items()):
            for _, _, until, receipt, _ in waiting:
                if until <= now:
                    _give_up(receipt)
            waiting[:] = [one for one in waiting if not one[3].done()]
            heapify(waiting)
            if not waiting:
                del self._waiting[line]
        if self._waiting:
            self._timer = self._clock.call_later(LOOK_EVERY, self._look)
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        try:
            for shard in {shard for shard, _ in self._waiting}:
                self.reached(shard, *await self._log.committed(shard))
        except BackendError:
            pass
        finally:
            self._looking = None


def read_entry(entry: str) -> Entry:
    """The place of an entry, as something to compare; (0, 0) for what is none."""
    first, _, second = entry.partition("-")
    is_entry = len(entry) <= LENGTH and first.isascii() and first.isdigit() and second.isascii() and second.isdigit()
    return (int(first), int(second)) if is_entry else (0, 0)


def _give_up(receipt: asyncio.Future[Receipt]) -> None:
    if not receipt.done():
        receipt.set_exception(StoreUnavailable("The database has not taken this in time: whether it will is unknown."))
