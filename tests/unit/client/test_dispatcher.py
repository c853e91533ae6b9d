from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import pytest

from aibos_realtime.client.dispatcher import Delivery, Dispatcher


class Told:
    """A dispatcher, and what it said was done."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher()
        self.done: list[tuple[str, Any, bool]] = []
        self.dispatcher.on_done = lambda delivery, answer, has_answer: self.done.append((delivery.name, answer, has_answer))


@pytest.fixture
def told() -> Told:
    return Told()


async def test_callbacks_get_as_much_as_they_take(told: Told) -> None:
    seen: list[Any] = []

    def none() -> None:
        seen.append(())

    def one(data: Any) -> None:
        seen.append((data,))

    async def two(data: Any, event: Any) -> None:
        seen.append((data, event))

    def optional(data: Any, event: Any = None) -> None:
        seen.append((data, event))

    def many(*given: Any) -> None:
        seen.append(given)

    for callback in (none, one, two, optional, many, functools.partial(one)):
        told.dispatcher.add("tick", callback)
    told.dispatcher.tell("tick", "data", "event")
    await told.dispatcher.finish()
    assert seen == [(), ("data",), ("data", "event"), ("data", "event"), ("data", "event"), ("data",)]


async def test_builtins_are_callbacks_too(told: Told) -> None:
    seen: list[Any] = []
    told.dispatcher.add("tick", seen.append)
    told.dispatcher.tell("tick", "data", "event")
    await told.dispatcher.finish()
    assert seen == ["data"]


def test_what_no_event_can_be_given_to(told: Told) -> None:
    def three(a: Any, b: Any, c: Any) -> None: ...

    def keyword(a: Any, *, b: Any) -> None: ...

    for callback in (three, keyword):
        with pytest.raises(TypeError):
            told.dispatcher.add("tick", callback)


async def test_one_after_the_other_in_order_also_if_one_waits(told: Told) -> None:
    seen, gate = [], asyncio.Event()

    async def slow(data: int) -> None:
        if data == 1:
            await gate.wait()
        seen.append(data)

    told.dispatcher.add("tick", slow)
    for n in (1, 2, 3):
        told.dispatcher.tell("tick", n)
    await asyncio.sleep(0)
    assert seen == []
    gate.set()
    await told.dispatcher.finish()
    assert seen == [1, 2, 3]


async def test_a_failure_goes_to_error_callbacks_before_the_next_event(told: Told) -> None:
    seen: list[Any] = []

    def fail(data: int) -> None:
        seen.append(data)
        raise ValueError(data)

    told.dispatcher.add("tick", fail)
    told.dispatcher.add("error", seen.append)
    told.dispatcher.tell("tick", 1)
    told.dispatcher.tell("tick", 2)
    await told.dispatcher.finish()
    assert [repr(one) for one in seen] == ["1", "ValueError(1)", "2", "ValueError(2)"]
    assert [name for name, _, _ in told.done] == ["tick", "error", "tick", "error"]


async def test_a_failure_that_nobody_takes_is_logged_without_its_words(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    def fail(data: Any) -> None:
        raise ValueError("hunter2")

    told.dispatcher.add("tick", fail)
    told.dispatcher.tell("tick", None)
    with caplog.at_level(logging.DEBUG):
        await told.dispatcher.finish()
    assert "ValueError" in caplog.text and "test_dispatcher.py" in caplog.text
    assert "hunter2" not in caplog.text


async def test_an_error_callback_that_fails_is_not_called_for_that(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail(error: Any) -> None:
        calls.append(error)
        raise ValueError

    told.dispatcher.add("error", fail)
    told.dispatcher.tell("error", 1)
    await told.dispatcher.finish()
    assert calls == [1]
    assert "ValueError" in caplog.text


async def test_a_callback_cancelled_from_within_is_a_failure_like_any_other(told: Told) -> None:
    seen: list[Any] = []

    async def give_up(data: Any) -> None:
        raise asyncio.CancelledError

    told.dispatcher.add("tick", give_up)
    told.dispatcher.add("error", seen.append)
    told.dispatcher.add("next", lambda: seen.append("next"))
    told.dispatcher.tell("tick", None)
    told.dispatcher.tell("next")
    await told.dispatcher.finish()
    assert isinstance(seen[0], asyncio.CancelledError) and seen[1] == "next"


async def test_the_first_callbacks_value_is_the_answer(told: Told) -> None:
    async def answer(data: Any) -> str:
        return "first"

    told.dispatcher.add("confirm", answer)
    told.dispatcher.add("confirm", lambda data: "second")
    told.dispatcher.tell("confirm", 1)
    told.dispatcher.tell("unheard", 1)
    await told.dispatcher.finish()
    assert told.done == [("confirm", "first", True), ("unheard", None, False)]


async def test_removing(told: Told) -> None:
    seen: list[Any] = []
    told.dispatcher.add("tick", seen.append)
    told.dispatcher.remove("tick", seen.append)
    told.dispatcher.remove("tick", print)
    told.dispatcher.remove("tock", print)
    told.dispatcher.tell("tick", 1)
    await told.dispatcher.finish()
    assert seen == []


async def test_no_task_is_left_when_there_is_nothing_to_tell(told: Told) -> None:
    told.dispatcher.tell("tick")
    await told.dispatcher.finish()
    assert len(asyncio.all_tasks()) == 1


async def test_what_is_discarded_is_not_told(told: Told) -> None:
    seen: list[Any] = []
    told.dispatcher.add("tick", seen.append)
    told.dispatcher.push(Delivery("tick", 1))
    told.dispatcher.discard()
    told.dispatcher.push(Delivery("tick", 2))
    await told.dispatcher.finish()
    assert seen == [2]


async def test_a_burst_leaves_the_rest_of_the_program_its_turns(told: Told) -> None:
    turns, seen = 0, list[int]()
    told.dispatcher.add("tick", seen.append)
    for n in range(1000):
        told.dispatcher.tell("tick", n)
    while len(seen) < 1000:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10
