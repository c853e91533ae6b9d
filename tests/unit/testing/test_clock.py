from __future__ import annotations

import asyncio
import math

import pytest

from aibos_realtime.testing.clock import ManualClock, settle


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(now=1_000.0)
    await settle()
    assert (clock.now(), clock.monotonic()) == (1_000.0, 1_000.0)
    await clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1_002.5, 1_002.5)


async def test_calls_run_in_the_order_of_their_times_each_at_its_own() -> None:
    clock, seen = ManualClock(), list[tuple[str, float]]()
    start = clock.monotonic()
    for name, delay in (("late", 3.0), ("early", 1.0), ("second early", 1.0), ("after", 9.0)):
        clock.call_later(delay, lambda name: seen.append((name, clock.monotonic() - start)), name)
    await clock.advance(5.0)
    assert seen == [("early", 1.0), ("second early", 1.0), ("late", 3.0)]
    assert clock.planned == [4.0]


async def test_a_cancelled_call_does_not_run() -> None:
    clock, seen = ManualClock(), list[int]()
    clock.call_later(1.0, seen.append, 1).cancel()
    assert clock.planned == []
    await clock.advance(2.0)
    assert seen == []


async def test_what_a_timer_plans_within_the_span_runs_too() -> None:
    clock, seen = ManualClock(), list[float]()
    start = clock.monotonic()

    async def tick() -> None:
        for _ in range(3):
            await clock.sleep(1.0)
            seen.append(clock.monotonic() - start)

    task = asyncio.create_task(tick())
    await clock.advance(10.0)
    await task
    assert seen == [1.0, 2.0, 3.0]


async def test_a_sleeper_wakes_at_its_time_and_not_before() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(5.0))
    await clock.advance(4.999)
    assert not task.done()
    await clock.advance(0.001)
    assert task.done()


async def test_cancelling_a_sleeper_takes_its_timer_back() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(5.0))
    await settle()
    assert clock.planned == [5.0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.planned == []


async def test_a_delay_of_nothing_gives_others_a_turn() -> None:
    clock = ManualClock()
    await clock.sleep(0)
    await clock.sleep(-1)
    seen = list[int]()
    clock.call_later(-1.0, seen.append, 1)
    await clock.advance(0)
    assert seen == [1]


async def test_the_wall_clock_may_jump_and_nothing_else_notices() -> None:
    clock = ManualClock(now=1_000.0)
    clock.call_later(10.0, lambda: None)
    clock.jump(-500.0)
    assert (clock.now(), clock.monotonic(), clock.planned) == (500.0, 1_000.0, [10.0])


async def test_waiting_until_something_is_planned() -> None:
    clock = ManualClock()
    clock.call_later(3.0, lambda: None)
    await clock.until_planned(3.0)
    waiting = asyncio.create_task(clock.until_planned(5.0))
    clock.call_later(4.0, lambda: None)
    await settle()
    assert not waiting.done()
    clock.call_later(5.0, lambda: None)
    await waiting


async def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        await ManualClock().advance(-1.0)


async def test_waiting_for_a_plan_within_a_span() -> None:
    clock = ManualClock()
    clock.call_later(5.0, lambda: None)
    await clock.until_planned(1.0, 10.0)
    waiting = asyncio.create_task(clock.until_planned(20.0, math.inf))
    await settle()
    clock.call_later(19.0, lambda: None)
    await settle()
    assert not waiting.done()
    clock.call_later(1e9, lambda: None)
    await waiting
