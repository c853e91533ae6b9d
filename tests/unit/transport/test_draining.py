"""Peers that take nothing, little and enough of what was written to them."""

from __future__ import annotations

import asyncio

import pytest

from aibos_realtime.transport.draining import LEAST_BYTES, Draining


class Stream(asyncio.Transport):
    """`steps`: how many bytes wait, each time that somebody looks."""

    def __init__(self, *steps: int, is_closing: bool = False) -> None:
        super().__init__()
        self.steps = list(steps)
        self._is_closing = is_closing
        self.ended = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.steps.pop(0)

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self.ended.set()


async def cut(stream: Stream) -> bool:
    """Whether it is cut, once nobody looks any more."""
    async with asyncio.timeout(5):
        while stream.steps and not stream.ended.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    return stream.ended.is_set()


MUCH = 10 * LEAST_BYTES


@pytest.mark.parametrize(
    ("steps", "is_closing", "expected"),
    [
        ((MUCH, MUCH), False, True),
        ((MUCH, MUCH - LEAST_BYTES + 1), False, True),
        ((MUCH, MUCH - LEAST_BYTES, MUCH - LEAST_BYTES, MUCH - LEAST_BYTES), False, True),
        ((MUCH, 0, 0), False, False),
        ((MUCH, 100, 100), False, False),
        ((100,), False, False),
        ((100, 100), True, True),
        ((100, 99), True, True),
        ((100, 0, 0), True, False),
        ((0,), True, False),
    ],
)
async def test_who_is_cut(steps: tuple[int, ...], is_closing: bool, expected: bool) -> None:
    """A connection that was closed with an answer which nobody read kept its descriptor for ever."""
    stream = Stream(*steps, is_closing=is_closing)
    Draining(0.001).watch(stream)
    assert await cut(stream) is expected and not (stream.steps and not expected)


async def test_a_lost_stream_is_left_alone() -> None:
    stream, draining = Stream(MUCH, MUCH), Draining(0.001)
    draining.watch(stream)
    draining.end()
    draining.end()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.ended.wait(), 0.02)


async def test_it_can_be_off() -> None:
    stream, draining = Stream(MUCH, MUCH), Draining(None)
    draining.watch(stream)
    assert stream.steps == [MUCH] and draining._timer is None
