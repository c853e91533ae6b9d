"""A limit on the time that a block of code may take, by the client's own clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..clock import Clock


@asynccontextmanager
async def deadline(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Cancel the block after `seconds` and raise the builtin `TimeoutError`, as `asyncio.timeout` does."""
    async with asyncio.timeout(None) as scope:
        timer = clock.call_later(seconds, _expire, scope)
        try:
            yield
        finally:
            timer.cancel()


def _expire(scope: asyncio.Timeout) -> None:
    scope.reschedule(asyncio.get_running_loop().time())
