"""Retention: in the background, what is too old or too many goes, a thousand rows at a time. Nothing younger than five minutes is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from msgspec import Struct

from ..backends.sql import stretches
from ..backends.sql.database import Database
from ..backends.supervision import keep_going
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import BackendError
from ..logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy import Connection

P = ParamSpec("P")

logger = get_logger("aibos_realtime.retention")

SWEEP_EVERY = 60.0
"""Seconds from the end of one sweep to the next."""
ROWS_AT_ONCE = 1000
ROOMS_AT_ONCE = 1000
YOUNGEST = 300.0
"""Seconds for which an id must be found again: see the idempotency window."""

Forget = Callable[[Sequence[str]], Awaitable[object]]
"""Has the log forget where rooms end, those of them that nobody needs: in one step with a new epoch for rooms to come."""


class Swept(Struct, frozen=True):
    """What one sweep removed; `offered`: rooms that the log was asked to forget."""

    messages: int = 0
    dead_messages: int = 0
    offered: int = 0


class Retention:
    """Removes what is older than `duration` seconds, and in each room what is beyond the newest `max_messages`; None = without end.

    `forget`: for the process that writes the log; without it no room is forgotten.
    """

    def __init__(
        self,
        database: Database,
        *,
        duration: float | None,
        max_messages: int | None,
        clock: Clock = SYSTEM_CLOCK,
        forget: Forget | None = None,
    ) -> None:
        self._database = database
        self._duration = duration
        self._max_messages = max_messages
        self._clock = clock
        self._forget = forget
        self._seen = -1
        self._too_young: set[str] = set()
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep: now, and then every minute; returns at once. Idempotent."""
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().create_task(keep_going(self._keep_sweeping, "retention", clock=self._clock), name="retention")

    async def stop(self) -> None:
        """End it. Idempotent."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def sweep(self) -> Swept:
        """Remove everything that is due, now. Raises `StoreUnavailable`. Cancelling stops between two steps."""
        now = int(self._clock.now() * 1000)
        youngest = now - int(YOUNGEST * 1000)
        removed = dead = offered = 0
        if self._duration is not None:
            expired = min(youngest, now - int(self._duration * 1000))
            removed = await self._delete_expired(expired)
            dead = await self._delete_dead(expired)
            offered = await self._offer_rooms(expired)
        if self._max_messages is not None:
            removed += await self._delete_excess(self._max_messages, youngest)
        return Swept(removed, dead, offered)

    # — inside —

    async def _delete_expired(self, expired: int) -> int:
        removed, last = 0, ""
        while rooms := await self._database.read(stretches.read_rooms, last, ROOMS_AT_ONCE):
            for one in rooms:
                if one.oldest < expired:
                    removed += await self._delete(one.room, (expired, -1))
            last = rooms[-1].room
        return removed

    async def _delete_excess(self, keep: int, youngest: int) -> int:
        """Only rooms that grew since the last sweep can have too many, or had so and were too young."""
        removed = 0
        grown, seen = await self._database.read(stretches.read_grown, self._seen)
        rooms, self._too_young = self._too_young.union(grown), set()
        for room in rooms:
            excess = await self._database.read(stretches.find_excess, room, keep)
            if excess is not None:
                if excess[0] >= youngest:
                    self._too_young.add(room)
                removed += await self._delete(room, min(excess, (youngest, -1)))
        self._seen = seen
        return removed

    async def _delete(self, room: str, until: tuple[int, int]) -> int:
        removed = 0
        for last in await self._database.read(stretches.find_ends, room, until):
            removed += await self._repeat(stretches.delete_log_until, room, last, ROWS_AT_ONCE)
        return removed + await self._repeat(stretches.delete_until, room, until, ROWS_AT_ONCE)

    async def _delete_dead(self, expired: int) -> int:
        return await self._repeat(stretches.delete_dead, expired, ROWS_AT_ONCE)

    async def _repeat(self, delete: Callable[Concatenate[Connection, P], int], *arguments: P.args, **named: P.kwargs) -> int:
        """Delete in short transactions until nothing is left; how many rows there were."""
        removed = 0
        while rows := await self._database.write(delete, *arguments, **named):
            removed += rows
        return removed

    async def _offer_rooms(self, expired: int) -> int:
        if self._forget is None:
            return 0
        offered, last = 0, ""
        while rooms := await self._database.read(stretches.read_forgettable, expired, last, ROOMS_AT_ONCE):
            await self._forget(rooms)
            offered, last = offered + len(rooms), rooms[-1]
        return offered

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                swept = await self.sweep()
            except BackendError as error:
                logger.warning("retention waits: %s", error)
            except Exception:
                logger.exception("retention failed in itself")
            else:
                if swept.messages or swept.dead_messages:
                    logger.info("retention removed %d messages and %d dead ones", swept.messages, swept.dead_messages)
            await self._clock.sleep(SWEEP_EVERY)
