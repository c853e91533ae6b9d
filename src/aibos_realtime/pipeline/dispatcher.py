"""Running coroutines with a task for those that need one: most handlers never wait, and cost none.

One task takes the first step of every coroutine that comes in. When a coroutine has to wait, the task stays with it for the rest of its life, and
a fresh one takes over the queue: so `asyncio.timeout`, task groups and cancel scopes work in a handler as in any task. A coroutine that leaves a
context variable changed takes the task's context with it: the next coroutine begins in a clean one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .eager import Suspended

T = TypeVar("T")


class Dispatcher(Generic[T]):
    """See the module. `done(subject, value, error)` is called at each coroutine's end, with what it returned or what it raised; it must not raise."""

    def __init__(self, done: Callable[[T, Any, BaseException | None], None]) -> None:
        self._done = done
        self._queue: deque[tuple[Coroutine[Any, Any, Any], T]] = deque()
        self._clean = contextvars.Context()
        self._wake: asyncio.Future[None] | None = None
        self._current: asyncio.Task[None] | None = None
        self.is_stopping = False
        self.tasks: set[asyncio.Task[None]] = set()
        """The tasks of coroutines that are waiting for something."""

    def start(self) -> None:
        """Coroutines run in the present context from now on."""
        self.is_stopping = False
        self._clean = contextvars.copy_context()

    def run(self, coroutine: Coroutine[Any, Any, Any], subject: T) -> None:
        """Run a coroutine soon, in order of arrival as far as its first wait. Never blocks."""
        self._queue.append((coroutine, subject))
        wake = self._wake
        if wake is not None:
            self._wake = None
            if not wake.done():
                wake.set_result(None)
        elif self._current is None:
            self._take_over()

    async def stop(self) -> None:
        """Cancel what is still running, and wait for its end."""
        self.is_stopping = True
        if self._current is not None:
            self.tasks.add(self._current)
        left = list(self.tasks)
        self._current = None
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for coroutine, _ in self._queue:
            coroutine.close()
        self._queue.clear()
        self._wake = None

    def _take_over(self) -> None:
        """Begin a task for the queue, in a context that no handler has touched."""
        self._current = asyncio.get_running_loop().create_task(self._serve(), context=self._clean.copy())

    async def _serve(self) -> None:
        queue, done, clean = self._queue, self._done, self._clean
        task = asyncio.current_task()
        assert task is not None
        try:
            while self._current is task:
                if not queue:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake  # `run` has set it back to None
                    continue
                coroutine, subject = queue.popleft()
                try:
                    yielded = coroutine.send(None)
                except StopIteration as result:
                    done(subject, result.value, None)
                except (Exception, asyncio.CancelledError) as error:
                    done(subject, None, error)
                else:
                    await self._stay_with(task, Suspended(coroutine, yielded), subject)
                    return
                if contextvars.copy_context() != clean:
                    self._take_over()
        finally:
            if self._current is task:
                # Cancelled from within (a handler cancelled its own task): the queue needs somebody.
                self._current = self._wake = None
                if queue:
                    self._take_over()

    async def _stay_with(self, task: asyncio.Task[None], rest: Suspended, subject: T) -> None:
        self._take_over()
        self.tasks.add(task)
        try:
            value = await rest
        except (Exception, asyncio.CancelledError) as error:
            self._done(subject, None, error)
        else:
            self._done(subject, value, None)
        finally:
            self.tasks.discard(task)
