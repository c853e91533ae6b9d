from __future__ import annotations

import asyncio

import pytest

from aibos_realtime.client.deadline import deadline
from aibos_realtime.testing.clock import ManualClock, settle


async def test_the_block_ends_at_its_time_by_the_clock_given() -> None:
    clock = ManualClock()

    async def wait() -> None:
        async with deadline(clock, 5.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await task


async def test_a_block_in_time_leaves_no_timer() -> None:
    clock = ManualClock()
    async with deadline(clock, 5.0):
        await settle()
    assert clock.planned == []


async def test_a_cancellation_from_outside_stays_one() -> None:
    clock = ManualClock()

    async def wait() -> None:
        async with deadline(clock, 5.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
