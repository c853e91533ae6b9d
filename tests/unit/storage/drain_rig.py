"""An intake and a lease in memory, whose owner can have them fail; and drainers on them that can be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aibos_realtime.backends.base import EventStore, LoggedEvent
from aibos_realtime.backends.intake import IntakeEntry
from aibos_realtime.clock import Clock
from aibos_realtime.errors import BrokerUnavailable, StoreUnavailable
from aibos_realtime.storage.drain import Drainer


class MemoryIntake:
    """See `backends.intake.Intake`. `dropped`: per shard the last entry that was dropped."""

    def __init__(self, clock: Clock, shards: int = 1) -> None:
        self.shards = shards
        self.lines: list[list[IntakeEntry]] = [[] for _ in range(shards)]
        self.dropped = ["" for _ in range(shards)]
        self.away: set[int] = set()
        """Shards that do not answer."""
        self.loses_drops = False
        """A `drop` is carried out, and then fails."""
        self.refuses_drops = False
        self.reads: list[int] = []
        """How many entries each read brought."""
        self._clock = clock
        self._number = 0
        self._is_asked = asyncio.Event()
        self._has_dropped = asyncio.Event()

    def put(self, event: LoggedEvent | None, shard: int = 0, *, keep: bool = True) -> None:
        self._number += 1
        self.lines[shard].append(IntakeEntry(f"{self._number:09}", event, keep))

    def ask(self) -> None:
        """Somebody waits for the store."""
        self._is_asked.set()

    @property
    def left(self) -> int:
        return sum(len(line) for line in self.lines)

    async def until_left(self, number: int) -> None:
        """Wait until no more than so many entries are left."""
        while self.left > number:
            self._has_dropped.clear()
            await self._has_dropped.wait()

    async def read(self, shard: int, after: str | None, count: int) -> Sequence[IntakeEntry]:
        await asyncio.sleep(0)
        self._check(shard)
        found = [entry for entry in self.lines[shard] if after is None or entry.id > after][:count]
        self.reads.append(len(found))
        return found

    async def drop(self, shard: int, up_to: str) -> None:
        await asyncio.sleep(0)
        self._check(shard)
        if self.refuses_drops:
            raise BrokerUnavailable()
        self.lines[shard] = [entry for entry in self.lines[shard] if entry.id > up_to]
        self.dropped[shard] = max(self.dropped[shard], up_to)
        self._has_dropped.set()
        if self.loses_drops:
            raise BrokerUnavailable()

    async def count(self) -> int:
        await asyncio.sleep(0)
        for shard in range(self.shards):
            self._check(shard)
        return self.left

    async def wait(self, timeout: float) -> None:
        asked = asyncio.ensure_future(self._is_asked.wait())
        slept = asyncio.ensure_future(self._clock.sleep(timeout))
        try:
            await asyncio.wait((asked, slept), return_when=asyncio.FIRST_COMPLETED)
            self._is_asked.clear()
        finally:
            asked.cancel()
            slept.cancel()
            await asyncio.gather(asked, slept, return_exceptions=True)

    def _check(self, shard: int) -> None:
        if shard in self.away:
            raise BrokerUnavailable()


class Holder:
    """What a lease in memory knows: who has it, and until when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.name = ""
        self.until = 0.0
        self.is_everybodys = False
        """Two have it at once, as when one stood still."""


class MemoryLease:
    """See `backends.intake.Lease`."""

    ttl = 5.0

    def __init__(self, holder: Holder, name: str) -> None:
        self._holder = holder
        self.name = name
        self.is_away = False
        self.released = 0

    async def hold(self) -> bool:
        await asyncio.sleep(0)
        if self.is_away:
            raise BrokerUnavailable()
        holder, now = self._holder, self._holder.clock.monotonic()
        if holder.name in ("", self.name) or now >= holder.until:
            holder.name, holder.until = self.name, now + self.ttl
        return holder.name == self.name or holder.is_everybodys

    async def release(self) -> None:
        if self.is_away:
            raise BrokerUnavailable()
        self.released += 1
        if self._holder.name == self.name:
            self._holder.name = ""


class Node:
    """A drainer, its lease and its end."""

    def __init__(
        self,
        name: str,
        intake: MemoryIntake,
        store: EventStore,
        holder: Holder,
        on_era: Callable[[str], Awaitable[object]] | None = None,
        **more: Any,
    ) -> None:
        self.lease = MemoryLease(holder, name)
        self.drainer = Drainer(intake, store, self.lease, on_era=on_era, clock=holder.clock, random=lambda: 1.0, **more)

    async def kill(self) -> None:
        """End it as a crash does: in the middle of anything, and without a word."""
        self.drainer._batches.give_up(StoreUnavailable())
        tasks = [*self.drainer._draining, *self.drainer._keeping]
        self.drainer._draining, self.drainer._keeping, self.drainer._held_until = [], [], 0.0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
