"""Many calls of one moment as one: what comes in while a batch is on its way makes the next one. What a batch means is the caller's."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from ..errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

MAX_BATCH = 500
MAX_BATCH_BYTES = 1024 * 1024
MAX_WAITING = 10_000


class Batches(Generic[T, R]):
    """Hands items to `work` in their order, one batch at a time, and each caller its own result.

    `work` gets a list and gives a list of as many results. `weigh`: the bytes of an item; a batch has at most 500 items and, but for its first
    item, 1 MiB. Binds to the running loop when it has something to do.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[list[R]]], *, weigh: Callable[[T], int], name: str) -> None:
        self._work = work
        self._weigh = weigh
        self._name = name
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._sent: list[tuple[T, asyncio.Future[R]]] = []
        """The batch that is on its way."""
        self._running: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    async def add(self, item: T) -> R:
        """The result of one item. Raises what `work` raises, and `Overloaded` when 10,000 items are waiting.

        Cancelling takes the item back if its batch is not on its way yet; otherwise the outcome is unknown.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name=self._name)
        return await future

    async def drain(self) -> None:
        """Wait until nothing is on its way."""
        while self._running is not None:
            await asyncio.wait([self._running])

    def give_up(self, error: Exception) -> None:
        """Wait no longer: everybody who waits gets a copy of `error`. What is on its way is cancelled, its outcome unknown; the rest never goes."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            fail((future for _, future in [*self._sent, *self._waiting]), error)
            self._waiting.clear()

    async def _run(self) -> None:
        me = asyncio.current_task()
        try:
            while self._running is me and (batch := self._next_batch()):
                self._sent = batch
                try:
                    results = await self._work([item for item, _ in batch])
                except Exception as error:
                    fail((future for _, future in batch), error)
                else:
                    for (_, future), result in zip(batch, results, strict=True):
                        if not future.done():
                            future.set_result(result)
        finally:
            if self._running is me:
                self._running = None

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            item, future = self._waiting[0]
            if not future.done():
                size += self._weigh(item)
                if batch and size > MAX_BATCH_BYTES:
                    break
                batch.append((item, future))
            self._waiting.popleft()
        return batch


def fail(futures: Iterable[asyncio.Future[R]], error: Exception) -> None:
    """To each its own copy: an error that several tasks raise would gather the traces of them all."""
    for future in futures:
        if not future.done():
            one = copy.copy(error)
            one.__cause__ = error.__cause__
            future.set_exception(one)
