from __future__ import annotations

import asyncio
import time

from aibos_realtime.clock import SYSTEM_CLOCK, Clock, SystemClock
from aibos_realtime.testing.clock import ManualClock


def test_the_system_clock_is_the_machines() -> None:
    assert abs(SYSTEM_CLOCK.now() - time.time()) < 5
    first = SYSTEM_CLOCK.monotonic()
    assert SYSTEM_CLOCK.monotonic() >= first


async def test_it_plans_and_takes_back_in_the_running_loop() -> None:
    called: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    SYSTEM_CLOCK.call_later(0, called.set_result, "done")
    SYSTEM_CLOCK.call_later(0, called.set_result, "twice").cancel()
    async with asyncio.timeout(5):
        assert await called == "done"
        await SYSTEM_CLOCK.sleep(0)


def test_both_clocks_are_clocks() -> None:
    clocks: list[Clock] = [SystemClock(), ManualClock()]
    assert all(callable(getattr(clock, name)) for clock in clocks for name in ("now", "monotonic", "sleep", "call_later"))
