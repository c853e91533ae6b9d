"""What waits in a node's stores: messages of its queues, events of its outbox. Asked of the stores when somebody wants to know, not more often than
every few seconds, and never waited for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from ..backends.queue import QueueStats
from ..clock import Clock
from ..errors import RealtimeError
from ..logs import get_logger
from ..storage.queue import MessageQueue
from ..storage.relay import Backlog

logger = get_logger("aibos_realtime")

KEEP = 5.0
"""Seconds for which an answer is good, and after which stores that did not give one are asked again."""
LIMIT = 0.5
"""Seconds that the stores have for all their answers together: less than other nodes wait for this one's metrics."""
MOST_QUEUES = 100


class Backlogs(Struct, frozen=True):
    """`queues`: by name, those that are declared or have a handler here. `outbox`: None where there is none."""

    queues: dict[str, QueueStats] = {}
    outbox: Backlog | None = None


class BacklogReader:
    """`outbox()`: what waits in the outbox; None where there is none. `is_running()`: whether the stores are open.

    `failures`: how often the stores did not answer in time.
    """

    def __init__(self, *, queue: MessageQueue, outbox: Callable[[], Awaitable[Backlog]] | None, is_running: Callable[[], bool], clock: Clock) -> None:
        self._queue = queue
        self._outbox = outbox
        self._is_running = is_running
        self._clock = clock
        self._asked_at: float | None = None
        self._last = Backlogs()
        self.failures = 0

    async def read(self) -> Backlogs:
        """What waits, as of five seconds ago at the most; empty where the stores did not answer. Raises nothing. Cancelling is safe."""
        now = self._clock.monotonic()
        if self._is_running() and (self._asked_at is None or now - self._asked_at >= KEEP):
            self._asked_at = now  # before the answer: whoever asks meanwhile does not ask the stores too
            try:
                async with asyncio.timeout(LIMIT):
                    self._last = await self._read()
            except (RealtimeError, TimeoutError) as error:
                self._last = Backlogs()
                self.failures += 1
                logger.warning("what waits in the stores could not be read: %s", error if isinstance(error, RealtimeError) else "no answer in time")
        return self._last

    async def _read(self) -> Backlogs:
        outbox = await self._outbox() if self._outbox is not None else None
        return Backlogs({name: await self._queue.stats(name) for name in self._queue.names[:MOST_QUEUES]}, outbox)
