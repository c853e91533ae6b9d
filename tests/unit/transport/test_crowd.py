"""Who has to go when file descriptors run out, and who may stay."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from aibos_realtime.transport.crowd import Crowd, count_descriptors


class Stream:
    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed


class Silent:
    def __init__(self, all: dict[Any, float]) -> None:
        self._all = all
        all[self] = 0.0

    def turn_away(self) -> None:
        del self._all[self]


def http(*, is_busy: bool) -> Any:
    return SimpleNamespace(transport=Stream(), cycle=SimpleNamespace(response_complete=not is_busy))


def asks(crowd: Crowd) -> tuple[bool, bytes]:
    stream = Stream()
    return crowd.has_place(stream), stream.written[:12]  # type: ignore[arg-type]


def test_nobody_is_counted_before_there_may_be_a_crowd() -> None:
    counted: list[int] = []

    def count() -> int:
        counted.append(10)
        return 10

    crowd = Crowd(100, {}, (), count)
    for _ in range(79):
        assert asks(crowd) == (True, b"")
    assert len(counted) == 1
    assert asks(crowd) == (True, b"") and len(counted) == 2


def test_the_oldest_that_is_silent_makes_place_then_an_idle_one_of_http_then_nobody() -> None:
    silent: dict[Any, float] = {}
    taken, (first, second) = 92, (Silent(silent), Silent(silent))
    idle, busy = http(is_busy=False), http(is_busy=True)
    crowd = Crowd(100, silent, [busy, idle], lambda: taken)
    assert asks(crowd) == (True, b"") and list(silent) == [second] and first not in silent
    assert asks(crowd) == (True, b"") and not silent and not idle.transport.is_closed
    assert asks(crowd) == (True, b"") and idle.transport.is_closed
    assert asks(crowd) == (True, b""), "the last places are for who does not say nothing"
    taken = 95
    assert asks(crowd) == (False, b"HTTP/1.1 503") and not busy.transport.is_closed


def test_descriptors_are_counted() -> None:
    before = count_descriptors()
    one = os.open(os.devnull, os.O_RDONLY)
    try:
        assert count_descriptors() == before + 1
    finally:
        os.close(one)
