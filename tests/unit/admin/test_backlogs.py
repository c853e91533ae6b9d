"""What waits in the stores: asked of them rarely, and never waited for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aibos_realtime import MessageQueue, StoreUnavailable
from aibos_realtime.admin import backlogs as module
from aibos_realtime.admin.backlogs import KEEP, BacklogReader, Backlogs
from aibos_realtime.storage.relay import Backlog
from aibos_realtime.testing.clock import ManualClock


class Desk:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.asked = 0
        self.answer: Callable[[], Awaitable[Backlog]] = self._three
        self.is_running = True
        self.queue = MessageQueue(url="memory://", queues={"mail": {}})
        self.reader = BacklogReader(queue=self.queue, outbox=self._outbox, is_running=lambda: self.is_running, clock=self.clock)

    async def _three(self) -> Backlog:
        return Backlog(3, 1.5)

    async def _outbox(self) -> Backlog:
        self.asked += 1
        return await self.answer()


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_what_waits(desk: Desk) -> None:
    await desk.queue.send("mail", 1)
    found = await desk.reader.read()
    assert found.outbox == Backlog(3, 1.5) and found.queues["mail"].depth == 1
    assert desk.reader.failures == 0
    await desk.queue.stop()


async def test_an_answer_is_good_for_five_seconds(desk: Desk) -> None:
    first = await desk.reader.read()
    await desk.clock.advance(KEEP - 0.1)
    assert await desk.reader.read() is first and desk.asked == 1
    await desk.clock.advance(0.2)
    assert await desk.reader.read() is not first and desk.asked == 2
    await desk.queue.stop()


async def test_a_store_that_hangs_is_waited_for_once_in_five_seconds(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.05)
    await desk.reader.read()
    desk.answer = hanging
    await desk.clock.advance(KEEP)
    async with asyncio.timeout(2):
        assert await desk.reader.read() == Backlogs() and desk.reader.failures == 1
        for _ in range(10):
            assert await desk.reader.read() == Backlogs()
    assert desk.asked == 2
    desk.answer = desk._three
    await desk.clock.advance(KEEP)
    assert (await desk.reader.read()).outbox == Backlog(3, 1.5)
    await desk.queue.stop()


async def hanging() -> Any:
    await asyncio.Event().wait()


async def test_a_store_that_fails_is_no_error(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> Backlog:
        raise StoreUnavailable()

    desk.answer = failing
    assert await desk.reader.read() == Backlogs() and desk.reader.failures == 1
    assert "could not be read" in caplog.text


async def test_whoever_asks_meanwhile_does_not_ask_the_stores(desk: Desk) -> None:
    gate = asyncio.Event()

    async def slow() -> Backlog:
        await gate.wait()
        return Backlog(1, 0.0)

    desk.answer = slow
    first = asyncio.create_task(desk.reader.read())
    await asyncio.sleep(0)
    assert await desk.reader.read() == Backlogs() and desk.asked == 1
    gate.set()
    assert (await first).outbox == Backlog(1, 0.0)
    await desk.queue.stop()


async def test_a_server_that_does_not_run_opens_no_store(desk: Desk) -> None:
    desk.is_running = False
    assert await desk.reader.read() == Backlogs() and desk.asked == 0
