"""Work that is begun anew where it fails in itself, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio

import pytest

from aibos_realtime.backends.supervision import LONGEST_PAUSE, STEADY, keep_going
from aibos_realtime.metrics import Metrics
from aibos_realtime.testing.clock import ManualClock, settle


class Work:
    """Fails as often as it is told, then goes on."""

    def __init__(self, clock: ManualClock, failures: int, lasts: float = 0.0) -> None:
        self.begun: list[float] = []
        self._clock = clock
        self._failures = failures
        self._lasts = lasts

    async def __call__(self) -> None:
        self.begun.append(self._clock.monotonic())
        await self._clock.sleep(self._lasts)
        if len(self.begun) <= self._failures:
            raise RuntimeError("a fault of ours")
        await asyncio.Event().wait()


async def test_it_is_begun_anew_within_a_second_however_often_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = ManualClock(), Metrics()
    work = Work(clock, failures=8)
    task = asyncio.create_task(keep_going(work, "the bus", clock=clock, metrics=metrics))
    for _ in range(100):
        await clock.advance(0.1)
    pauses = [later - before for before, later in zip(work.begun, work.begun[1:], strict=False)]
    assert len(pauses) == metrics.tasks_restarted == 8
    assert pauses[0] < 0.25 and max(pauses) <= LONGEST_PAUSE + 0.1
    assert "the bus failed in itself" in caplog.text and not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_what_went_on_for_long_is_begun_at_once() -> None:
    clock = ManualClock()
    work = Work(clock, failures=6, lasts=STEADY)
    task = asyncio.create_task(keep_going(work, "the bus", clock=clock))
    for _ in range(round(6.5 * STEADY * 2)):
        await clock.advance(0.5)
    pauses = [later - before - STEADY for before, later in zip(work.begun, work.begun[1:], strict=False)]
    assert len(pauses) >= 5 and max(pauses) <= 1.0
    task.cancel()
    await asyncio.wait([task])


async def test_its_end_is_the_end_and_so_is_cancelling() -> None:
    async def end() -> None:
        pass

    await keep_going(end, "it")
    clock = ManualClock()
    task = asyncio.create_task(keep_going(Work(clock, failures=1), "it", clock=clock))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
