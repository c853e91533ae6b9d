"""Work that goes on for as long as its owner lives: where it fails in itself it is begun anew. What the work does about what it expects is its own.

Nobody would notice its end: a node whose signs of life ended, or that no longer read the bus, looked well and was none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..clock import SYSTEM_CLOCK, Clock
from ..logs import get_logger
from ..metrics import Metrics

logger = get_logger("aibos_realtime")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds from a failure to the next beginning; each one waits twice as long as the last, until the work has gone on for `STEADY` seconds."""
STEADY = 30.0


async def keep_going(work: Callable[[], Awaitable[None]], name: str, *, clock: Clock = SYSTEM_CLOCK, metrics: Metrics | None = None) -> None:
    """Do it until it returns, or is cancelled. `name`: for the log; what it raises is counted as `tasks_restarted`."""
    pause = FIRST_PAUSE
    while True:
        began = clock.monotonic()
        try:
            return await work()
        except Exception:
            logger.exception("%s failed in itself, and is begun anew", name)
        if metrics is not None:
            metrics.tasks_restarted += 1
        if clock.monotonic() - began >= STEADY:
            pause = FIRST_PAUSE
        await clock.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
