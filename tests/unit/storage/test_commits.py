"""Publishers who wait for the store: who is answered when. How it is used is in `test_shared_broker.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import Position, StoreUnavailable
from aibos_realtime.backends.base import Receipt
from aibos_realtime.errors import BrokerUnavailable
from aibos_realtime.storage.commits import Commits, read_entry
from aibos_realtime.testing.clock import ManualClock

LIFE = "run:1"
DONE = Receipt("id", "lobby", Position("e", 1))


class Log:
    """What a log says of how far its store is."""

    def __init__(self) -> None:
        self.stored = ""
        self.is_down = False
        self.asked = 0

    async def committed(self, shard: int) -> tuple[str, str]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise BrokerUnavailable()
        return LIFE, self.stored


def make() -> tuple[Commits, Log, ManualClock]:
    log: Any = Log()
    clock = ManualClock()
    return Commits(log, clock=clock), log, clock


def wait(commits: Commits, entry: str, shard: int = 0, life: str = LIFE) -> asyncio.Future[Receipt]:
    receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    commits.wait(shard, life, entry, receipt, DONE)
    return receipt


@pytest.mark.parametrize(
    ("entry", "place"),
    [("12-3", (12, 3)), ("", (0, 0)), ("12", (0, 0)), ("-", (0, 0)), ("a-1", (0, 0)), ("1-a", (0, 0)), ("²-1", (0, 0)), ("9" * 5000 + "-1", (0, 0))],
)
def test_entries_are_numbers_and_nothing_else_is_one(entry: str, place: tuple[int, int]) -> None:
    assert read_entry(entry) == place


async def test_everybody_up_to_an_entry_is_answered_and_nobody_beyond() -> None:
    commits, _, _ = make()
    receipts = [wait(commits, entry) for entry in ("100-2", "99-7", "100-10", "9-1")]
    other = wait(commits, "1-1", shard=1)
    receipts[1].cancel()
    commits.reached(0, LIFE, "100-2")
    assert [receipt.done() for receipt in receipts] == [True, True, False, True] and not other.done()
    commits.reached(0, LIFE, "50-0")
    assert wait(commits, "100-1").done(), "that is known already"
    await commits.stop()
    assert isinstance(receipts[2].exception(), StoreUnavailable) and isinstance(other.exception(), StoreUnavailable)


async def test_it_is_asked_for_every_quarter_second_and_given_up_after_two() -> None:
    commits, log, clock = make()
    log.is_down = True
    receipt = wait(commits, "5-0")
    await clock.advance(1.8)
    assert log.asked == 7 and not receipt.done()
    log.is_down, log.stored = False, "5-0"
    await clock.advance(0.1)
    assert not receipt.done(), "it is not asked for all the time"
    await clock.advance(0.15)
    assert receipt.exception() is not None or receipt.result() == DONE
    await clock.advance(1)
    assert clock.planned == []
    log.stored = ""
    late = wait(commits, "6-0")
    await clock.advance(2.5)
    assert isinstance(late.exception(), StoreUnavailable) and clock.planned == []
    await commits.stop()


@pytest.mark.parametrize("is_told", [True, False])
async def test_how_far_the_store_is_in_another_life_says_nothing(is_told: bool) -> None:
    """Redis was emptied: its new entries have higher ids than those that are gone, and once the store had the new ones, publishers of the lost ones
    were told that theirs was committed.
    """
    commits, log, clock = make()
    lost = wait(commits, "50-0", life="run:0")
    here = wait(commits, "60-0")
    if is_told:
        commits.reached(0, LIFE, "100-0")
    else:
        log.stored = "100-0"
        await clock.advance(0.25)
    assert here.done() and not lost.done()
    assert not wait(commits, "70-0", life="run:0").done(), "nor is it known"
    await clock.advance(2)
    assert isinstance(lost.exception(), StoreUnavailable)
    await commits.stop()
