"""They go on in the order in which they came, a millisecond's worth of them in each round of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from functools import partial

import pytest

from aibos_realtime.transport import turns as module
from aibos_realtime.transport.turns import has_crowd, running_turns
from tests.loops import BOTH


async def test_one_that_takes_long_goes_on_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20 peers that each had 256 KiB of small bombs looked at, a round took 20 times as long as with one."""
    monkeypatch.setattr(module, "SHARE", 0.0)
    seen: list[str] = []
    turns = running_turns()
    for name in "abc":
        turns.wait(partial(seen.append, name))
    turns.wait(lambda: turns.wait(partial(seen.append, "again")))
    turns.wait(partial(seen.append, "d"))
    rounds: list[str] = []
    for _ in range(7):
        assert has_crowd() is (len(rounds) < 6)
        await asyncio.sleep(0)
        rounds.append("".join(seen))
    assert not has_crowd()
    assert rounds == ["a", "ab", "abc", "abc", "abcd", "abcdagain", "abcdagain"]


async def test_those_who_take_little_share_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """9,000 connections that ended at once were seen off in one round of the loop, which took a quarter of a second."""
    now = 0.0
    monkeypatch.setattr(module, "perf_counter", lambda: now)
    monkeypatch.setattr(module, "SHARE", 1.0)
    seen: list[int] = []

    def act(number: int) -> None:
        nonlocal now
        now += 0.125
        seen.append(number)

    for number in range(20):
        running_turns().take(partial(act, number))
    counts = [len(seen)]
    while has_crowd():
        await asyncio.sleep(0)
        counts.append(len(seen))
    assert seen == list(range(20)) and counts == [1, 9, 17, 20]


async def test_a_turn_that_is_awaited() -> None:
    """A thousand members recovered 300 events each in one round of the loop."""
    seen: list[int] = []

    async def come(number: int) -> None:
        await running_turns().come()
        seen.append(number)

    alone = come(0)
    with contextlib.suppress(StopIteration):
        alone.send(None)
    assert seen == [0], "nobody else has a turn: it does not wait"
    tasks = [asyncio.ensure_future(come(number)) for number in range(1, 5)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    most, before = 0, len(seen)
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        most, before = max(most, len(seen) - before), len(seen)
    assert seen == [0, 1, 3, 4] and most == 1 and not has_crowd()


async def test_what_goes_wrong_holds_up_nobody() -> None:
    seen: list[str] = []
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    turns, wrong = running_turns(), ValueError()

    def fail() -> None:
        raise wrong

    turns.wait(fail)
    turns.wait(partial(seen.append, "next"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen == ["next"] and told == [wrong] and not has_crowd()


def test_a_loop_is_not_kept() -> None:
    async def wait() -> None:
        running_turns().wait(lambda: None)
        assert running_turns() is running_turns()

    for make in BOTH.values():
        loop = make()
        loop.run_until_complete(wait())
        loop.close()
        known = weakref.ref(loop)
        del loop
        gc.collect()
        assert known() is None and not has_crowd()
