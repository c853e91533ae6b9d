"""The way of publishes into one shard of a shared log: in the order of the calls, one batch at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from ..backends.base import Draft, Receipt
from ..errors import BackendError, BrokerUnavailable, Overloaded
from ..logs import get_logger
from ..metrics import Metrics
from .batch import MAX_BATCH_BYTES, fail

logger = get_logger("aibos_realtime.log")

MAX_BATCH = 128
"""Events in one call: each holds up everybody else's calls for some 15 µs."""
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Submission(NamedTuple):
    """A draft, and who waits for its receipt."""

    draft: Draft
    receipt: asyncio.Future[Receipt]


class Lane:
    """`append(shard, batch)` sees to it that every receipt of the batch is answered, or raises, and then nobody knows what of it happened."""

    def __init__(self, shard: int, append: Callable[[int, Sequence[Submission]], Awaitable[None]], metrics: Metrics) -> None:
        self._shard = shard
        self._append = append
        self._metrics = metrics
        self._waiting: deque[Submission] = deque()
        self._sent: list[Submission] = []
        """The batch that is on its way, or was last."""
        self._bytes = 0
        self._running: asyncio.Task[None] | None = None

    def submit(self, submission: Submission) -> None:
        """Send it with what else is submitted meanwhile. Past 10,000 events or 64 MiB that wait: `Overloaded`."""
        if len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            self._metrics.publishes_refused += 1
            submission.receipt.set_exception(Overloaded("More events wait to be published than allowed: try again later."))
            return
        self._waiting.append(submission)
        self._bytes += len(submission.draft.data)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def drain(self) -> None:
        """Wait until nothing is on its way."""
        while self._running is not None:
            await asyncio.wait((self._running,))

    async def stop(self, error: Exception) -> None:
        """What waits is not sent, and what is on its way is not waited for; all hear of `error`."""
        self._refuse(self._waiting, error)
        if self._running is not None:
            fail((submission.receipt for submission in self._sent), error)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._sent = self._next_batch()
                try:
                    await self._append(self._shard, self._sent)
                except Exception as failure:
                    if not isinstance(failure, BackendError):
                        logger.error("publishing to the shared log failed in itself", exc_info=failure)
                        failure = BrokerUnavailable("Whether this was published is unknown.")
                    # What came later must not overtake it: its publishers hear the same, and may repeat all in their order.
                    self._refuse([*self._sent, *self._waiting], failure)
        finally:
            self._running = None

    def _refuse(self, submissions: Iterable[Submission], error: Exception) -> None:
        fail([submission.receipt for submission in submissions], error)
        self._waiting.clear()
        self._bytes = 0

    def _next_batch(self) -> list[Submission]:
        batch: list[Submission] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].draft.data)
        self._bytes -= size
        return batch
