"""Who holds the event loop is told by name, once, and not what he was given."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import threading
import time
from collections.abc import AsyncIterator

import pytest

from aibos_realtime.server.watchdog import FRAMES, Watchdog, describe


@pytest.fixture
async def watchdog() -> AsyncIterator[Watchdog]:
    found = Watchdog(stall=0.2)
    found.start()
    found.start()
    yield found
    found.stop()
    found.stop()


def hold_the_loop(seconds: float, secret: str = "a payload") -> None:
    threading.Event().wait(seconds)


async def turn() -> None:
    """Let the loop turn until the watchdog has seen it."""
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=0.4)


async def test_who_holds_the_loop_is_named_once_and_its_end_is_told(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    await turn()
    assert not caplog.records
    hold_the_loop(1.2)
    await turn()
    begun, ended = caplog.records
    assert begun.levelno == logging.ERROR and ended.levelno == logging.WARNING
    assert re.search(r"it is in .* ← hold_the_loop \(server/test_watchdog.py:\d+\) ← test_who_holds_the_loop", begun.getMessage())
    assert re.search(r"it stood still for \d\.\d s, in .* ← hold_the_loop", ended.getMessage())
    assert "a payload" not in caplog.text


async def test_a_call_that_lets_no_other_thread_run_is_named_too(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    await turn()

    def match_for_long() -> None:
        begin, size = time.perf_counter(), 20
        while time.perf_counter() - begin < 1.0:
            re.match(r"(a+)+b", "a" * size)  # each takes twice as long as the one before
            size += 1

    match_for_long()
    await turn()
    assert "match_for_long" in caplog.text


async def test_a_long_collection_of_garbage_is_told(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    assert gc.callbacks.count(watchdog._collected) == 1
    watchdog._collected("start", {})
    watchdog._collected("stop", {})
    assert not caplog.records
    watchdog._collected("start", {})
    watchdog._collecting_since -= 2.0
    watchdog._collected("stop", {})
    assert caplog.messages == ["a collection of garbage took 2.0 s"]


async def test_it_leaves_nothing_behind() -> None:
    before = list(gc.callbacks)
    found = Watchdog()
    found.start()
    [thread] = [one for one in threading.enumerate() if one.name == "aibos-realtime watchdog"]
    found.stop()
    thread.join(5.0)
    assert not thread.is_alive() and gc.callbacks == before


def test_a_deep_stack_is_told_from_its_end() -> None:
    def deeper(depth: int) -> str:
        return deeper(depth - 1) if depth else describe(sys._getframe())

    assert deeper(20).count(" ← ") == FRAMES - 1
