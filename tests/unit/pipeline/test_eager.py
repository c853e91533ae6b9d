"""Coroutines on the spot."""

from __future__ import annotations

import asyncio

import pytest

from aibos_realtime.pipeline.eager import start


async def at_once(value: int) -> int:
    return value


async def test_one_that_waits_for_nothing_is_done() -> None:
    assert start(at_once(5)) == (5, None)


async def test_what_it_raises_at_once_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        start(fail())


async def test_the_rest_of_one_that_waits_can_be_awaited() -> None:
    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait() -> int:
        first = await gate
        await asyncio.sleep(0)
        return first + await at_once(1)

    value, rest = start(wait())
    assert value is None and rest is not None
    gate.set_result(41)
    assert await rest == 42


async def test_failures_and_cancellation_reach_it() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[str] = []

    async def wait() -> None:
        try:
            await gate
        except ValueError:
            seen.append("failed")
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    _, rest = start(wait())
    assert rest is not None

    async def finish() -> None:
        await rest

    task = asyncio.create_task(finish())
    gate.set_exception(ValueError())
    while "failed" not in seen:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["failed", "ended"]
