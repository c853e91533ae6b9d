"""The filter of the package's loggers: how much of a flood is written, what is told of the rest, and that nothing of it is kept."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

import aibos_realtime
from aibos_realtime.logs import FLOOD, MOST_KINDS, MOST_OF_A_KIND, MOST_TRACES, Flood, get_logger, is_behind_flood

SOURCE = Path(aibos_realtime.__file__).parent


def make_record(words: str, *values: object, level: int = logging.WARNING, name: str = "aibos_realtime.x") -> logging.LogRecord:
    return logging.getLogger(name).makeRecord(name, level, "", 0, words, values, None)


def failed(where: int) -> logging.LogRecord:
    """The record of a handler that failed in one of two places."""
    try:
        if where:
            raise ZeroDivisionError
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        trace = (type(error), error, error.__traceback__)
    return logging.getLogger("x").makeRecord("x", logging.ERROR, "", 0, "the handler of %r failed (%s)", ("a", "id"), trace)


def lines_of(flood: Flood, record: logging.LogRecord, times: int = 1) -> list[str]:
    return [line.getMessage() for _ in range(times) for line in flood.lines(record)]


def test_of_a_flood_a_few_lines_a_second_are_left_and_the_rest_is_counted() -> None:
    now = 5.0
    flood = Flood(lambda: now)
    refused = make_record("a handshake was refused: %d", 429)
    assert len(lines_of(flood, refused, 1000)) == MOST_OF_A_KIND == 9
    assert flood.left_out == 991
    assert lines_of(flood, make_record("something else")) == ["something else"]
    now += 1.0
    told, line = lines_of(flood, refused)
    assert told == "991 more lines like this were left out, within a second; the last: a handshake was refused: 429" and line == refused.getMessage()
    now += 1.0
    assert lines_of(flood, refused) == ["a handshake was refused: 429"]


def test_errors_are_left_out_too_and_their_traces_first() -> None:
    """A handler that failed for everybody wrote a trace for every message: 50 a second and connection, for as long as somebody liked."""
    now = 5.0
    flood = Flood(lambda: now)
    written = [line for _ in range(1000) for line in flood.lines(failed(0))]
    assert len(written) == MOST_OF_A_KIND and sum(line.exc_info is not None for line in written) == MOST_TRACES
    [other] = flood.lines(failed(1))
    assert other.exc_info is not None, "another place fails: that is another kind"


def test_names_without_end_are_no_lines_and_no_memory_without_end() -> None:
    flood = Flood(lambda: 5.0)
    written = [line for number in range(5_000) for line in lines_of(flood, make_record(f"made of its values: {number}"))]
    assert len(flood._kinds) <= MOST_KINDS + 1 and len(written) <= MOST_KINDS + MOST_OF_A_KIND


async def test_what_was_left_out_is_told_although_nothing_more_is_said(caplog: pytest.LogCaptureFixture) -> None:
    logger = get_logger("aibos_realtime.flooded")
    told = asyncio.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "left_out", 0) == 91:
                told.set()

    watch = Watch()
    logger.addHandler(watch)
    try:
        for number in range(100):
            logger.warning("a line, %d", number)
        assert len(caplog.records) == MOST_OF_A_KIND
        async with asyncio.timeout(5.0):
            await told.wait()
        assert caplog.messages[-1].startswith("91 more lines like this") and caplog.messages[-1].endswith("a line, 99")
        assert caplog.records[-1].levelno == logging.WARNING and caplog.records[-1].name == logger.name
    finally:
        logger.removeHandler(watch)


def test_threads_may_log_at_once() -> None:
    flood = Flood(lambda: 5.0)
    written: list[str] = []

    def write() -> None:
        for _ in range(2000):
            written.extend(lines_of(flood, make_record("of %d threads", 4)))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == MOST_OF_A_KIND and flood.left_out == 8000 - MOST_OF_A_KIND


def test_every_logger_of_the_package_is_behind_the_filter() -> None:
    assert (
        FLOOD in get_logger("aibos_realtime").filters and is_behind_flood(make_record("x")) and not is_behind_flood(make_record("x", name="uvicorn"))
    )
    plain = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if "= logging.getLogger(" in path.read_text()}
    assert plain == {"audit.py", "cli/logs.py", "client/link.py", "logs.py"}, (
        "the audit log has a bound of its own, and the client's link says nothing"
    )
