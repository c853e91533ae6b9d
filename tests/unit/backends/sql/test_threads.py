"""Threads for what would block an event loop: order, errors, limits, ends."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from aibos_realtime.backends.sql.threads import Threads
from aibos_realtime.errors import StoreUnavailable
from aibos_realtime.testing.clock import settle

PATIENCE = 5.0


@pytest.fixture
def one() -> Iterator[Threads]:
    threads = Threads(1, "test")
    yield threads
    threads.close()
    threads.join()


class Gate:
    """Holds up a thread until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> str:
        self.reached.set()
        assert self.go_on.wait(PATIENCE)
        return "through"

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE)


def fail() -> None:
    raise LookupError("mine")


async def test_results_errors_and_the_order_of_the_calls(one: Threads) -> None:
    seen: list[int] = []

    def note(number: int) -> int:
        seen.append(number)
        return number

    assert await asyncio.gather(*(one.run(partial(note, number), PATIENCE) for number in range(50))) == list(range(50)) == seen
    with pytest.raises(LookupError, match="mine"):
        await one.run(fail, None)
    with pytest.raises(SystemExit):
        await one.run(lambda: sys.exit(3), PATIENCE)
    assert await one.run(threading.current_thread, PATIENCE) is not threading.current_thread(), "it still works, and elsewhere"


async def test_as_many_at_once_as_there_are_threads() -> None:
    threads = Threads(3, "test")
    gates = [Gate() for _ in range(4)]
    running = [asyncio.ensure_future(threads.run(gate, PATIENCE)) for gate in gates]
    for gate in gates[:3]:
        await gate.until_reached()
    assert not gates[3].reached.is_set()
    for gate in gates:
        gate.go_on.set()
    assert await asyncio.gather(*running) == ["through"] * 4
    threads.close()
    threads.join()


async def test_what_takes_too_long_is_given_up_and_what_waits_behind_it_never_begins(one: Threads) -> None:
    gate, begun = Gate(), threading.Event()
    hanging = asyncio.ensure_future(one.run(gate, 0.05))
    await gate.until_reached()
    behind = asyncio.ensure_future(one.run(begun.set, 0.1))
    cancelled = asyncio.ensure_future(one.run(begun.set, 0.05))
    await settle()
    cancelled.cancel()
    async with asyncio.timeout(PATIENCE):
        for late in (hanging, behind):
            with pytest.raises(TimeoutError):
                await late
    gate.go_on.set()
    assert await one.run(lambda: "next", PATIENCE) == "next" and not begun.is_set()


async def test_each_call_has_its_own_time(one: Threads) -> None:
    """One timer looks after all of them."""
    for _ in range(3):
        assert await one.run(lambda: "in time", 0.05) == "in time"
    first, second = Gate(), Gate()
    hanging = asyncio.ensure_future(one.run(first, 0.05))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TimeoutError):
            await hanging
        first.go_on.set()
        with pytest.raises(TimeoutError):
            await one.run(second, 0.05)
    second.go_on.set()


def test_another_event_loop_has_a_timer_of_its_own(one: Threads) -> None:
    async def in_time() -> None:
        await one.run(lambda: None, PATIENCE)

    async def too_late() -> None:
        gate = Gate()
        running = asyncio.ensure_future(one.run(gate, 0.05))
        await asyncio.wait([running], timeout=PATIENCE)
        assert running.done() and isinstance(running.exception(), TimeoutError)
        gate.go_on.set()

    asyncio.run(in_time())
    asyncio.run(too_late())
    asyncio.run(in_time())


def test_a_result_for_a_loop_that_has_ended_stops_nothing(one: Threads) -> None:
    gate = Gate()

    async def leave() -> None:
        waiting = asyncio.ensure_future(one.run(gate, None))
        await gate.until_reached()
        waiting.cancel()

    async def go_on() -> str:
        return await one.run(lambda: "here", PATIENCE)

    asyncio.run(leave())
    gate.go_on.set()
    assert asyncio.run(go_on()) == "here"


async def test_closing_lets_what_waits_happen_and_takes_nothing_more(one: Threads) -> None:
    gate, done = Gate(), threading.Event()
    running = asyncio.ensure_future(one.run(gate, PATIENCE))
    await gate.until_reached()
    one.submit(done.set)
    one.close()
    for act in (lambda: one.run(fail, PATIENCE), lambda: asyncio.wrap_future(one.submit(fail))):
        with pytest.raises(StoreUnavailable, match="closed"):
            await act()
    gate.go_on.set()
    assert await running == "through"
    await asyncio.to_thread(one.join)
    assert done.is_set()


async def test_what_is_submitted_says_how_it_went(one: Threads) -> None:
    await asyncio.wrap_future(one.submit(lambda: None))
    with pytest.raises(LookupError):
        await asyncio.wrap_future(one.submit(fail))


async def test_threads_nobody_closed_end_with_their_owner() -> None:
    threads = Threads(1, "test")
    thread = await threads.run(threading.current_thread, PATIENCE)
    del threads
    gc.collect()
    await asyncio.to_thread(thread.join, PATIENCE)
    assert not thread.is_alive()


def test_python_ends_after_what_they_are_at() -> None:
    program = """
import asyncio, threading
from aibos_realtime.backends.sql.threads import Threads

threads, begun, over = Threads(1, "test"), threading.Event(), threading.Event()
threading.Timer(0.2, over.set).start()

async def main():
    running = asyncio.ensure_future(threads.run(lambda: (begun.set(), over.wait(5), print("done", flush=True)), None))
    await asyncio.to_thread(begun.wait, 5)
    running.cancel()

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
