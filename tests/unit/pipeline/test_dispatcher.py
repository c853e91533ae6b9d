"""Coroutines by tasks that they need: order, waiting, failures, contexts, the end."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from aibos_realtime.pipeline.dispatcher import Dispatcher
from aibos_realtime.testing.clock import settle

Done = list[tuple[str, Any, str | None]]
COLOUR = contextvars.ContextVar("colour", default="none")


def make() -> tuple[Dispatcher[str], Done]:
    done: Done = []
    dispatcher = Dispatcher[str](lambda subject, value, error: done.append((subject, value, type(error).__name__ if error else None)))
    dispatcher.start()
    return dispatcher, done


async def give(value: int) -> int:
    return value


async def test_those_that_wait_for_nothing_share_one_task_and_keep_their_order() -> None:
    dispatcher, done = make()
    for number in range(50):
        dispatcher.run(give(number), "s")
    await settle()
    assert [value for _, value, _ in done] == list(range(50)) and dispatcher.tasks == set()
    await dispatcher.stop()


async def test_one_that_waits_holds_up_nobody() -> None:
    dispatcher, done = make()
    gate = asyncio.Event()

    async def wait() -> str:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(gate.wait())
        return "late"

    dispatcher.run(wait(), "a")
    dispatcher.run(give(1), "b")
    await settle()
    assert done == [("b", 1, None)] and len(dispatcher.tasks) == 1
    gate.set()
    await settle()
    assert done[1:] == [("a", "late", None)] and dispatcher.tasks == set()
    await dispatcher.stop()


async def test_failures_are_told_and_cost_only_their_own() -> None:
    dispatcher, done = make()

    async def fail(later: bool) -> None:
        if later:
            await asyncio.sleep(0)
        raise RuntimeError("no")

    async def cancel_oneself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    dispatcher.run(fail(False), "a")
    dispatcher.run(fail(True), "b")
    dispatcher.run(cancel_oneself(), "c")
    dispatcher.run(give(1), "d")
    await settle()
    dispatcher.run(give(2), "e")
    await settle()
    assert sorted(done) == [
        ("a", None, "RuntimeError"),
        ("b", None, "RuntimeError"),
        ("c", None, "CancelledError"),
        ("d", 1, None),
        ("e", 2, None),
    ]
    await dispatcher.stop()


async def test_one_that_cancels_its_task_and_returns_at_once() -> None:
    dispatcher, done = make()

    async def cancel_and_return() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 7

    dispatcher.run(cancel_and_return(), "a")
    await settle()
    for number in range(3):
        dispatcher.run(give(number), "b")
        await settle()
    assert [value for _, value, _ in done] == [7, 0, 1, 2]
    await dispatcher.stop()


async def test_a_context_variable_does_not_reach_the_next() -> None:
    dispatcher, done = make()

    async def paint(later: bool) -> str:
        before = COLOUR.get()
        COLOUR.set("red")
        if later:
            await asyncio.sleep(0)
        return f"{before} {COLOUR.get()}"

    for later in (False, True, False, False):
        dispatcher.run(paint(later), "s")
    await settle()
    assert [value for _, value, _ in done] == ["none red"] * 4
    await dispatcher.stop()


async def test_stopping_ends_those_that_wait_and_those_that_did_not_begin() -> None:
    dispatcher, done = make()
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    dispatcher.run(endless(), "a")
    await settle()
    dispatcher.run(give(1), "b")
    await dispatcher.stop()
    assert ended.is_set() and done == [("a", None, "CancelledError")]
    await dispatcher.stop()
