"""When what is due: turns at a rate, and an alarm that is more exact than the timers of an event loop, which count in milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from itertools import count
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_MONOTONIC, _ABSOLUTE = 1, 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def turns(senders: Sequence[tuple[int, T]], all_senders: int, rate: float, begin: int) -> Iterator[tuple[int, T]]:
    """(when, who), for ever: `all_senders` of all processes take turns, `rate` a second, and these, as (number, who), are those of one process.

    `begin`, and when: microseconds.
    """
    for number in count(0, all_senders):
        for sender, who in senders:
            yield begin + round((number + sender) * 1e6 / rate), who


class Alarm:
    """Wakes its one waiter at a moment: within some 0.1 ms by a timer of the kernel (timerfd), which Linux has; elsewhere by one of the loop.

    A context manager in a running loop.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = -1
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        create = getattr(self._libc, "timerfd_create", None)
        if create is None:
            return self
        self._descriptor = create(_MONOTONIC, _FLAGS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        asyncio.get_running_loop().add_reader(self._descriptor, self._ring)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)

    async def wait_until(self, moment: int) -> None:
        """`moment`: of `time.monotonic_ns`. One that is past is waited for no more than a turn of the loop. Cancelling is safe."""
        left = moment - time.monotonic_ns()
        if left <= 0 or self._descriptor < 0:
            await asyncio.sleep(max(0, left) / 1e9)
            return
        self._waiter = asyncio.get_running_loop().create_future()
        # struct itimerspec: the interval, which is none, and the moment, as seconds and nanoseconds each.
        spec = (ctypes.c_long * 4)(0, 0, *divmod(moment, 1_000_000_000))
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiter

    def _ring(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
