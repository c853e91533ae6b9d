"""Batches: many calls of one moment as one."""

from __future__ import annotations

import asyncio

import pytest

from aibos_realtime import Overloaded, StoreUnavailable
from aibos_realtime.storage.batch import MAX_BATCH, MAX_WAITING, Batches
from aibos_realtime.testing.clock import settle


class Work:
    """Doubles numbers when it is let; keeps what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [2 * number for number in numbers]


def make(work: Work, weigh: int = 1) -> Batches[int, int]:
    return Batches(work, weigh=lambda _: weigh, name="test")


async def test_calls_of_one_turn_are_one_batch_and_each_gets_its_own_result() -> None:
    work = Work()
    assert await asyncio.gather(*map(make(work).add, range(10))) == [2 * number for number in range(10)]
    assert work.batches == [list(range(10))]


async def test_giving_up_fails_everybody_who_waits_and_the_next_ones_go() -> None:
    work = Work()
    batches = make(work)
    batches.give_up(StoreUnavailable())
    work.gate.clear()
    first = asyncio.create_task(batches.add(1))
    await settle()
    second = asyncio.create_task(batches.add(2))
    await settle()
    batches.give_up(StoreUnavailable("given up"))
    third = asyncio.create_task(batches.add(3))
    for waiting in (first, second):
        with pytest.raises(StoreUnavailable, match="given up"):
            await waiting
    work.gate.set()
    assert await third == 6 and work.batches == [[1], [3]]
    assert await batches.add(4) == 8 and not batches.is_busy


@pytest.mark.parametrize("is_obedient", [True, False])
async def test_what_was_given_up_and_ends_late_does_not_disturb_the_next_batches(is_obedient: bool) -> None:
    begun: list[list[int]] = []
    gates = [asyncio.Event() for _ in range(3)]

    async def work(numbers: list[int]) -> list[int]:
        begun.append(numbers)
        gate = gates[len(begun) - 1]
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await asyncio.wait_for(gate.wait(), 5)
            if is_obedient:
                raise
        return numbers

    batches: Batches[int, int] = Batches(work, weigh=lambda _: 1, name="test")
    first = asyncio.create_task(batches.add(1))
    await settle()
    batches.give_up(StoreUnavailable())
    second = asyncio.create_task(batches.add(2))
    await settle()
    third = asyncio.create_task(batches.add(3))
    await settle()
    gates[0].set()
    await settle()
    assert batches.is_busy and begun == [[1], [2]], "one at a time"
    gates[1].set()
    gates[2].set()
    assert [await second, await third] == [2, 3] and begun == [[1], [2], [3]]
    with pytest.raises(StoreUnavailable):
        await first


async def test_what_comes_while_a_batch_is_on_its_way_makes_the_next_one() -> None:
    work = Work()
    batches = make(work)
    work.gate.clear()
    first = asyncio.create_task(batches.add(1))
    await settle()
    others = [asyncio.create_task(batches.add(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    assert batches.is_busy and work.batches == [[1]]
    work.gate.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert work.batches == [[1], [2, 3]]
    await batches.drain()
    assert not batches.is_busy


async def test_a_batch_has_its_bounds() -> None:
    work = Work()
    await asyncio.gather(*map(make(work).add, range(MAX_BATCH + 1)))
    assert [len(batch) for batch in work.batches] == [MAX_BATCH, 1]
    heavy = Work()
    await asyncio.gather(*map(make(heavy, weigh=400_000).add, range(5)))
    assert [len(batch) for batch in heavy.batches] == [2, 2, 1]
    huge = Work()
    await asyncio.gather(*map(make(huge, weigh=2_000_000).add, range(2)))
    assert [len(batch) for batch in huge.batches] == [1, 1]


async def test_more_than_may_wait_is_refused() -> None:
    work = Work()
    batches = make(work)
    tasks = [asyncio.create_task(batches.add(number)) for number in range(MAX_WAITING + 1)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[-1], Overloaded) and not any(isinstance(one, Exception) for one in results[:-1])


async def test_a_failure_is_everybodys_of_that_batch_and_nobody_elses() -> None:
    work = Work()
    batches = make(work)
    work.error = StoreUnavailable("gone")
    work.error.__cause__ = OSError("why")
    first, second = await asyncio.gather(batches.add(1), batches.add(2), return_exceptions=True)
    assert isinstance(first, StoreUnavailable) and isinstance(second, StoreUnavailable) and first is not second
    assert str(first) == "gone" and first.__cause__ is work.error.__cause__ and first.retryable
    work.error = None
    assert await batches.add(3) == 6


async def test_who_goes_before_the_batch_does_is_left_out() -> None:
    work = Work()
    batches = make(work)
    kept, cancelled = asyncio.create_task(batches.add(1)), asyncio.create_task(batches.add(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await kept == 2 and work.batches == [[1]]
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_who_goes_while_the_batch_is_on_its_way_costs_the_others_nothing() -> None:
    work = Work()
    batches = make(work)
    work.gate.clear()
    kept, cancelled = asyncio.create_task(batches.add(1)), asyncio.create_task(batches.add(2))
    await settle()
    cancelled.cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await kept == 2 and work.batches == [[1, 2]]
    assert await batches.add(3) == 6
