"""Turns at a rate, and the alarm."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.load.pace import Alarm, turns


@given(processes=st.integers(1, 4), senders=st.integers(1, 12), rate=st.floats(0.5, 5000.0))
def test_the_turns_of_all_processes_are_evenly_spaced(processes: int, senders: int, rate: float) -> None:
    count = 5 * senders
    of_each = [[(number, f"sender {number}") for number in range(first, senders, processes)] for first in range(processes)]
    found = sorted(turn for own in of_each if own for turn in islice(turns(own, senders, rate, 1000), 5 * len(own)))
    assert [due for due, _ in found] == [1000 + round(number * 1e6 / rate) for number in range(count)]
    assert {who for _, who in found} == {f"sender {number}" for number in range(senders)}


class TestAlarm:
    async def test_it_wakes_at_the_moment_and_not_before(self) -> None:
        with Alarm() as alarm:
            for delay in (3_000_000, 300_000, 1_500_000):
                moment = time.monotonic_ns() + delay
                await asyncio.wait_for(alarm.wait_until(moment), 5)
                assert time.monotonic_ns() >= moment

    async def test_what_is_past_is_not_waited_for(self) -> None:
        with Alarm() as alarm:
            await asyncio.wait_for(alarm.wait_until(0), 5)
            await asyncio.wait_for(alarm.wait_until(time.monotonic_ns() - 1), 5)

    async def test_after_a_wait_that_was_cancelled_the_next_one_is_whole(self) -> None:
        with Alarm() as alarm:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(alarm.wait_until(time.monotonic_ns() + 10**12), 0.001)
            moment = time.monotonic_ns() + 5_000_000
            await asyncio.wait_for(alarm.wait_until(moment), 5)
            assert time.monotonic_ns() >= moment

    async def test_where_the_kernel_has_no_such_timer(self) -> None:
        alarm = Alarm()
        alarm._libc = None  # type: ignore[assignment]
        with alarm:
            moment = time.monotonic_ns() + 3_000_000
            await asyncio.wait_for(alarm.wait_until(moment), 5)
            assert time.monotonic_ns() >= moment - 1_000_000, "timers of a loop count in milliseconds"

    async def test_it_gives_its_descriptor_back(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with Alarm():
            assert len(os.listdir("/proc/self/fd")) > before
        assert len(os.listdir("/proc/self/fd")) == before
