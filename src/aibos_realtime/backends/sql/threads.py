"""Threads for what would block an event loop: a queue in, one wake-up of the loop out. What is called on them is the caller's.

`concurrent.futures` does the same with two futures, two conditions and a time-out of its own for each call, which costs five times as much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread, current_thread
from time import monotonic
from typing import Any, TypeVar
from weakref import finalize

from ...errors import StoreUnavailable

T = TypeVar("T")

Job = Callable[[], object]


class Threads:
    """Up to `count` threads, begun when there is something to do. Where there is one, things happen in the order of the calls.

    They end with `close`, with this object, or with Python, which waits for what they are at.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._begun: list[Thread] = []
        self._is_closed = False
        self._deadlines = _Deadlines()
        self._ending = finalize(self, _end, self._jobs, self._begun)

    async def run(self, act: Callable[[], T], limit: float | None) -> T:
        """Call `act` on a thread: what it returns, or raises. Past `limit` seconds, the wait for a thread included, `TimeoutError`.

        Cancelled or too late, it is not begun any more; what it began goes on. Raises `StoreUnavailable` after `close`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(partial(_call, act, loop, future))
        if limit is not None:
            self._deadlines.add(future, loop, limit)
        return await future

    def submit(self, act: Callable[[], None]) -> Future[None]:
        """Call `act` when its turn comes, whoever waits for that. Raises as `run` does."""
        done: Future[None] = Future()
        self._put(partial(_complete, act, done))
        return done

    def close(self) -> None:
        """Take nothing more. What waits is done, then the threads end; returns at once."""
        self._is_closed = True
        for _ in self._begun:
            self._jobs.put(None)

    def join(self) -> None:
        """Wait for that, however long it takes."""
        for thread in self._begun:
            thread.join()

    def _put(self, job: Job) -> None:
        if self._is_closed:
            raise StoreUnavailable("The database was closed.")
        if len(self._begun) < self._count:
            # A daemon, so that Python comes to its end, where `finalize` ends it.
            thread = Thread(target=_work, args=(self._jobs,), name=f"{self._name}_{len(self._begun)}", daemon=True)
            thread.start()
            self._begun.append(thread)
        self._jobs.put(job)


class _Deadlines:
    """Until when futures may wait, with one timer for all of them: nearly every one is done long before, and a timer costs more than it.

    What is added has the same limit as what was added before, so the oldest is the first to be late.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop, limit: float) -> None:
        """Fail it with `TimeoutError` after `limit` seconds."""
        if self._loop is not loop:  # the one before has ended
            self._loop, self._timer = loop, None
            self._waiting.clear()
        self._forget()
        self._waiting.append((monotonic() + limit, future))
        if self._timer is None:
            self._plan(limit)

    def _plan(self, delay: float) -> None:
        assert self._loop is not None, "something waits in it"
        self._timer = self._loop.call_later(delay, self._look, self._loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        now, self._timer = monotonic(), None
        while self._waiting and self._waiting[0][0] <= now:
            _fail(self._waiting.popleft()[1], TimeoutError())
        self._forget()
        if self._waiting:
            self._plan(self._waiting[0][0] - now)

    def _forget(self) -> None:
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it would be kept until the next one


def _call(act: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
    if future.done():  # nobody waits any more
        return
    try:
        result = act()
    except BaseException as error:
        _tell(loop, _fail, future, error)
    else:
        _tell(loop, _succeed, future, result)


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[[asyncio.Future[Any], Any], None], future: asyncio.Future[Any], what: object) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(how, future, what)


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _complete(act: Callable[[], None], done: Future[None]) -> None:
    try:
        act()
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(None)


def _end(jobs: SimpleQueue[Job | None], threads: list[Thread]) -> None:
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        if thread is not current_thread():  # whose last act was to let go of its owner
            thread.join()
