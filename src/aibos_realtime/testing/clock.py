"""A clock that stands still until it is told to move, for tests of everything that takes a `Clock`.

Timers and sleepers run in the order of their due times, each at its own time, and the loop gets to run what they woke before the next one
is due.
It moves no time of the event loop itself: real sockets and `asyncio.sleep` go on as ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

_TURNS = 25
"""Turns of the loop after each timer: enough for a chain of tasks that wake one another."""

_CLOSE = 1e-6


class ManualTimer:
    """A planned call; `cancel()` takes it back."""

    __slots__ = ("args", "callback", "is_cancelled", "when")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.when = when
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """A `Clock` for tests. `now`: the unix time at which it starts; `monotonic()` starts at 1000."""

    __slots__ = ("_monotonic", "_numbers", "_timers", "_wall", "_watchers")

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._monotonic = 1000.0
        self._wall = now - self._monotonic
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._numbers = itertools.count()
        self._watchers: list[tuple[float, float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._wall + self._monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> ManualTimer:
        """Plan a call. One of a delay of 0 or less runs at the next `advance`, even `advance(0)`."""
        timer = ManualTimer(self._monotonic + max(0.0, delay), callback, args)
        heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        for earliest, latest, watcher in self._watchers:
            if earliest <= timer.when <= latest:
                _wake(watcher)
        return timer

    async def sleep(self, delay: float) -> None:
        """Wait until the clock was moved by `delay` seconds. 0 or less: one turn of the loop. Cancelling takes the timer back."""
        if delay <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    @property
    def planned(self) -> list[float]:
        """Seconds until each timer and sleeper is due, the next one first."""
        return sorted(when - self._monotonic for when, _, timer in self._timers if not timer.is_cancelled)

    async def until_planned(self, delay: float, up_to: float | None = None) -> None:
        """Wait, in real time, until somebody has planned something for `delay` seconds from now, or for `delay` to `up_to`. Cancelling is safe."""
        earliest = self._monotonic + delay - _CLOSE
        latest = self._monotonic + (delay if up_to is None else up_to) + _CLOSE
        if any(earliest <= self._monotonic + planned <= latest for planned in self.planned):
            return
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append((earliest, latest, watcher))
        try:
            await watcher
        finally:
            self._watchers.remove((earliest, latest, watcher))

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, running what is due on the way in order; what that plans within the span runs too.

        Cancelling stops on the way.
        """
        if seconds < 0:
            raise ValueError("time does not go back; `jump` moves the wall clock alone")
        target = self._monotonic + seconds
        await settle()
        while self._timers and self._timers[0][0] <= target:
            timer = heapq.heappop(self._timers)[2]
            if timer.is_cancelled:
                continue
            self._monotonic = max(self._monotonic, timer.when)
            timer.callback(*timer.args)
            await settle()
        self._monotonic = target
        await settle()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator does; `monotonic()` and the timers do not notice."""
        self._wall += seconds


async def settle(turns: int = _TURNS) -> None:
    """Let the event loop run what is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
