from __future__ import annotations

import asyncio

import pytest

from aibos_realtime.errors import ConfigurationError
from aibos_realtime.hub.callbacks import Callbacks
from aibos_realtime.testing.clock import settle


async def test_each_is_called_in_order_and_one_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    callbacks, seen = Callbacks("thing", ("go",)), list[str]()

    @callbacks.add("go")
    def first(word: str) -> None:
        seen.append(f"first {word}")

    def broken(word: str) -> None:
        raise RuntimeError("no luck")

    async def broken_later(word: str) -> None:
        raise RuntimeError("no luck either")

    async def last(word: str) -> None:
        seen.append(f"last {word}")

    for callback in (broken, broken_later, last):
        assert callbacks.add("go", callback) is callback
    callbacks.notify("go", "now")
    await settle()
    assert seen == ["first now", "last now"] and caplog.text.count("a callback of thing.on('go') failed") == 2
    await callbacks.stop()


async def test_call_waits_for_each_in_turn_and_hands_a_failure_on() -> None:
    callbacks, seen = Callbacks("thing", ("go",)), list[int]()

    async def slow() -> None:
        await settle()
        seen.append(1)

    def broken() -> None:
        raise ValueError(seen.copy())

    callbacks.add("go", slow)
    callbacks.add("go", broken)
    with pytest.raises(ValueError, match=r"\[1\]"):
        await callbacks.call("go")


def test_an_event_that_does_not_exist_and_a_callback_that_is_none() -> None:
    callbacks = Callbacks("thing", ("go", "stop"))
    with pytest.raises(ConfigurationError, match=r"thing\.on\('gone'\): there is no such event; there are: go, stop"):
        callbacks.add("gone", print)
    with pytest.raises(ConfigurationError, match="a function is expected, not int"):
        callbacks.add("go", 5)  # type: ignore[call-overload]
    assert not callbacks.has("go")


async def test_stopping_ends_what_still_runs() -> None:
    callbacks, ended = Callbacks("thing", ("go",)), asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    callbacks.add("go", endless)
    callbacks.notify("go")
    await settle()
    await callbacks.stop()
    assert ended.is_set()
    await callbacks.stop()


def test_taking_over_anothers_callbacks() -> None:
    seen: list[str] = []
    ours, theirs = Callbacks("a", ("go",)), Callbacks("b", ("go",))
    theirs.add("go", lambda: seen.append("theirs"))
    ours.add("go", lambda: seen.append("ours"))
    ours.take_over(theirs)
    ours.notify("go")
    assert seen == ["ours", "theirs"]
