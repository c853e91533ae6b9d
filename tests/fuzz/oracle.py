"""What holds whatever came in: nothing is logged as a failure of ours, no task dies unheard, and JSON that is passed on is JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any


class Broken(AssertionError):
    """What a target found."""


def check(condition: object, what: str) -> None:
    """Raise `Broken` unless it holds. Not an `assert`: those go with `-O`, and pytest rewrites them."""
    if not condition:
        raise Broken(what)


class _Failures(logging.Handler):
    """Keeps the records that tell of a failure of ours: errors, and all with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.found.append(record)


@contextmanager
def quiet_log() -> Iterator[None]:
    """Nothing may be logged in here that tells of a failure. Other records go nowhere, so that a fuzzer's own are seen."""
    failures = _Failures()
    loggers = [logging.getLogger(name) for name in ("aibos_realtime", "asyncio")]
    before = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(failures)
        logger.propagate = False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(failures)
            logger.propagate = propagate
            logger.setLevel(level)
    for record in failures.found:
        error = record.exc_info[1] if record.exc_info else None
        raise Broken(f"logged: {record.getMessage()} ({error!r})") from error


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on a loop of its own. Nothing may be logged as failed, and no task may fail unheard."""
    unheard: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
        await main

    with quiet_log():
        asyncio.run(watched())
    if unheard:
        error = unheard[0].get("exception")
        raise Broken(f"unheard: {unheard[0]['message']} ({error!r})") from error


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def read_strictly(text: bytes) -> Any:
    """A JSON text by another reader than ours. Raises `ValueError`: NaN and infinities are none, nor is a half surrogate pair in UTF-8."""
    return json.loads(text.decode(), parse_constant=_refuse)


def depth_of(value: object) -> int:
    """Levels of lists and dictionaries."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def is_plain(value: object) -> bool:
    """Whether a decoded value can go everywhere: integers that JavaScript has, finite numbers, texts that a database takes."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return abs(value) <= 2**53
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(name) and is_plain(item) for name, item in value.items())
    return isinstance(value, list) and all(map(is_plain, value))
