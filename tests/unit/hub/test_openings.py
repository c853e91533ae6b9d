"""What is published to a room that is being made waits, goes in order, and fails with it."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from aibos_realtime import BrokerUnavailable, RoomNotFound
from aibos_realtime.hub import openings as module
from aibos_realtime.hub.openings import Openings, once_open
from aibos_realtime.testing.clock import ManualClock, settle


class Maker:
    """Makes rooms when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def make(self, room_id: str) -> None:
        self.asked.append(room_id)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error


async def test_who_waits_is_called_in_order_and_the_room_is_asked_for_once() -> None:
    maker, clock = Maker(), ManualClock()
    openings = Openings(maker.make, clock)
    called: list[tuple[int, Exception | None]] = []
    for number in range(3):
        openings.wait("a", lambda failure, number=number: called.append((number, failure)))  # type: ignore[misc]
    await settle()
    assert maker.asked == ["a"] and called == [] and openings.is_awaited("a") and not openings.is_open("a")
    maker.go_on.set()
    await settle()
    assert called == [(0, None), (1, None), (2, None)] and openings.is_open("a")
    await clock.advance(module.KNOWN_FOR + 1)
    assert not openings.is_open("a"), "it may have gone since"
    openings.wait("a", lambda failure: None)
    await settle()
    openings.forget("a")
    assert maker.asked == ["a", "a"] and not openings.is_open("a")


async def test_a_room_that_could_not_be_made() -> None:
    maker = Maker()
    openings = Openings(maker.make, ManualClock())
    maker.error = RoomNotFound("no")
    maker.go_on.set()
    failures: list[Exception | None] = []
    for _ in range(2):
        openings.wait("a", failures.append)
    await settle()
    assert [str(failure) for failure in failures] == ["no", "no"] and failures[0] is not failures[1]
    assert not openings.is_awaited("a") and not openings.is_open("a")


async def test_stopping_gives_up_who_waits() -> None:
    openings = Openings(Maker().make, ManualClock())
    failures: list[Exception | None] = []
    openings.wait("a", failures.append)
    await openings.stop()
    openings.wait("b", failures.append)
    await settle()
    await openings.stop()
    assert [type(failure) for failure in failures] == [BrokerUnavailable, BrokerUnavailable]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 3)
    maker = Maker()
    maker.go_on.set()
    openings = Openings(maker.make, ManualClock())
    for number in range(5):
        openings.wait(str(number), lambda failure: None)
        await settle()
    assert [number for number in range(5) if openings.is_open(str(number))] == [2, 3, 4]


async def test_an_act_that_waits_for_a_room() -> None:
    maker = Maker()
    openings = Openings(maker.make, ManualClock())
    loop = asyncio.get_running_loop()
    inner: asyncio.Future[int] = loop.create_future()
    outcome = once_open(partial(openings.wait, "a"), lambda: inner)
    cancelled = once_open(partial(openings.wait, "a"), lambda: loop.create_future())
    cancelled.cancel()
    maker.go_on.set()
    await settle()
    assert not outcome.done()
    inner.set_result(5)
    assert await outcome == 5
    failing: asyncio.Future[int] = loop.create_future()
    failing.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        await once_open(lambda proceed: proceed(None), lambda: failing)
    with pytest.raises(RoomNotFound):
        await once_open(lambda proceed: proceed(RoomNotFound()), lambda: failing)
    given_up: asyncio.Future[int] = loop.create_future()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await once_open(lambda proceed: proceed(None), lambda: given_up)
