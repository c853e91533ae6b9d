"""Time, as a part that can be exchanged. The rest of the package asks a `Clock`; tests give it `testing.ManualClock`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is planned; `asyncio.TimerHandle` is one."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the package asks of time. All values are seconds."""

    def now(self) -> float:
        """Unix time: for timestamps and token expiry; may jump."""

    def monotonic(self) -> float:
        """Never goes back: for every duration."""

    async def sleep(self, delay: float) -> None:
        """Wait `delay` seconds. Cancelling is safe."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback(*args)` in the running loop after `delay` seconds, unless cancelled."""


class SystemClock:
    """The machine's own time."""

    __slots__ = ()

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback, *args)


SYSTEM_CLOCK = SystemClock()
