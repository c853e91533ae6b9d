"""One message and its handler: which verdict follows from what it does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from aibos_realtime.backends.queue import Taken, Verdict
from aibos_realtime.storage.handling import REASON_LENGTH, Handling, ProcessOptions, QueueMessage


def taken(data: bytes = b'{"a":[1]}', attempt: int = 1, **more: Any) -> Taken:
    return Taken("lease", attempt, "m1", data, 1_700_000_000.5, **more)


async def handle(handler: Any, message: Taken | None = None, **options: Any) -> Verdict:
    handling = Handling("orders", handler, ProcessOptions(**options), max_message_bytes=100, random=lambda: 1.0)
    return await handling.handle(message or taken())


def fail(message: QueueMessage) -> None:
    raise ValueError("out of order")


async def test_the_handler_gets_the_message() -> None:
    seen: list[QueueMessage] = []
    message = taken(attempt=3, key="ann")
    assert await handle(seen.append, message) == Verdict(message, "done")
    (got,) = seen
    assert (got.data, got.id, got.attempt, got.key) == ({"a": [1]}, "m1", 3, "ann")
    assert got.enqueued_at == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert repr(got) == "QueueMessage(id='m1', attempt=3)", "no data in logs"


async def test_handlers_may_be_coroutines_or_return_what_can_be_awaited() -> None:
    async def wait(message: QueueMessage) -> str:
        await asyncio.sleep(0)
        return "ignored"

    assert (await handle(wait)).kind == "done"
    assert (await handle(lambda message: wait(message))).kind == "done"


@pytest.mark.parametrize(("attempt", "delay"), [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (9, 10.0)])
async def test_a_failed_attempt_comes_again_later_and_later(attempt: int, delay: float) -> None:
    verdict = await handle(fail, taken(attempt=attempt), max_attempts=10, backoff={"first": 2, "limit": 10})
    assert (verdict.kind, verdict.delay) == ("retry", delay)


async def test_the_last_failed_attempt_is_the_end() -> None:
    assert (await handle(fail, taken(attempt=4))).kind == "retry"
    verdict = await handle(fail, taken(attempt=5))
    assert (verdict.kind, verdict.reason) == ("dead", "ValueError: out of order")


async def test_a_message_that_ended_its_workers_is_not_tried_again() -> None:
    calls: list[QueueMessage] = []
    verdict = await handle(calls.append, taken(attempt=6))
    assert verdict.kind == "dead" and "5 times without an outcome" in verdict.reason and calls == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the data is not valid JSON"),
        (b"{'a': 1}", "the data is not valid JSON"),
        (b'"\xff"', "the data is not valid JSON"),
        (b"[" * 90, "the data is not valid JSON"),
        (b" " * 101, "101 bytes; at most 100 are allowed"),
    ],
)
async def test_what_nobody_can_read_is_dead_at_once(data: bytes, reason: str) -> None:
    verdict = await handle(fail, taken(data))
    assert (verdict.kind, verdict.reason) == ("dead", reason)


async def test_a_reason_is_bounded_and_storable() -> None:
    def fail_badly(message: QueueMessage) -> None:
        raise RuntimeError("a\0b\ud800" + "x" * 1000)

    reason = (await handle(fail_badly, max_attempts=1)).reason
    assert reason.startswith("RuntimeError: ab?xxx") and REASON_LENGTH - 1 <= len(reason) <= REASON_LENGTH
    assert reason.encode() and "Traceback" not in reason


async def test_a_handler_that_takes_too_long_has_failed() -> None:
    async def hang(message: QueueMessage) -> None:
        await asyncio.Event().wait()

    assert (await handle(hang, timeout=0.01, max_attempts=1)).reason == "TimeoutError: "


async def test_a_handler_that_something_else_cancelled_has_failed() -> None:
    async def cancelled(message: QueueMessage) -> None:
        raise asyncio.CancelledError

    assert (await handle(cancelled)).kind == "retry"


async def test_cancelling_goes_through_to_the_handler() -> None:
    begun = asyncio.Event()

    async def hang(message: QueueMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(handle(hang))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
