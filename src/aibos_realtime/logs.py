"""The loggers of the package, each behind the one filter that keeps a log readable and a disk from filling up.

What somebody outside can cause by the thousand is written a few times a second, and then counted. Not here: where lines go, and what they look like;
nor the audit log, which has a bound of its own for strangers and leaves out nothing of those who are known (`audit`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator

PACKAGE = "aibos_realtime"
SECOND = 1.0
MOST_OF_A_KIND = 9
"""Lines of a kind in one second; what is more is counted, in one line further."""
MOST_TRACES = 2
"""Of those lines, how many have the trace of their failure; the others have it in common with them."""
MOST_KINDS = 1000

Kind = tuple[object, ...]


class _Count:
    """Lines of a kind within the second. `last`: the latest that was left out."""

    __slots__ = ("last", "lines")

    def __init__(self) -> None:
        self.lines = 0
        self.last: logging.LogRecord | None = None


class Flood(logging.Filter):
    """Leaves lines out where there are too many of a kind: the same words but for their values, or a failure that was raised in the same place.

    `monotonic()`: seconds. How many were left out is said at the first line a second later; of this package's own loggers a second later in any case,
    where an event loop runs. Used from any thread.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kinds: dict[Kind, _Count] = {}
        self._second = float("-inf")
        self.left_out = 0
        """Lines, so far."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written; what was left out in the second before is told first."""
        if getattr(record, "left_out", 0):
            return True
        passes, told = self._count(record)
        _write(told)
        return passes

    def lines(self, record: logging.LogRecord) -> Iterator[logging.LogRecord]:
        """The same for a handler: what is to be written in place of this record."""
        passes, told = (True, []) if getattr(record, "left_out", 0) else self._count(record)
        yield from told
        if passes:
            yield record

    def forget(self) -> None:
        """Begin anew, and say nothing of what was."""
        with self._lock:
            self._kinds = {}

    def _count(self, record: logging.LogRecord) -> tuple[bool, list[logging.LogRecord]]:
        kind, now = _kind_of(record), self._monotonic()
        with self._lock:
            told = self._end_second(now)
            count = self._kinds.get(kind)
            if count is None:
                if len(self._kinds) >= MOST_KINDS:
                    kind = ()
                count = self._kinds.setdefault(kind, _Count())
            count.lines += 1
            if record.exc_info and count.lines > MOST_TRACES:
                record.exc_info = record.exc_text = None
            if count.lines <= MOST_OF_A_KIND:
                return True, told
            self.left_out += 1
            is_first, count.last = count.last is None, record
        if is_first:
            self._tell_later()
        return False, told

    def _end_second(self, now: float) -> list[logging.LogRecord]:
        """The lines that say what was left out, where a second is over."""
        if now - self._second < SECOND:
            return []
        kinds, self._kinds, self._second = self._kinds, {}, now
        return [_summary(count.last, count.lines - MOST_OF_A_KIND) for count in kinds.values() if count.last is not None]

    def _tell_later(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a thread: the next line tells it
            return
        loop.call_later(SECOND, self._tell)

    def _tell(self) -> None:
        with self._lock:
            told = self._end_second(self._monotonic())
            is_early = any(count.last is not None for count in self._kinds.values())
        _write(told)
        if is_early and not told:
            self._tell_later()


FLOOD = Flood()
"""That of the package's own loggers."""


def get_logger(name: str) -> logging.Logger:
    """The logger of this name, behind `FLOOD`. `name`: the package's, or one below it."""
    logger = logging.getLogger(name)
    logger.addFilter(FLOOD)  # once: adding it again changes nothing
    return logger


def is_behind_flood(record: logging.LogRecord) -> bool:
    """Whether a record has passed `FLOOD` already."""
    return record.name == PACKAGE or record.name.startswith(f"{PACKAGE}.")


def _kind_of(record: logging.LogRecord) -> Kind:
    words = record.msg if isinstance(record.msg, str) else ""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.name, record.levelno, words
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code, trace.tb_lineno) if trace is not None else None
    return record.name, record.levelno, words, type(error), place


def _summary(last: logging.LogRecord, count: int) -> logging.LogRecord:
    """In place of `count` lines that were left out, of which it shows the last."""
    words, values = "%d more lines like this were left out, within a second; the last: %s", (count, last.getMessage())
    told = logging.getLogger(last.name).makeRecord(last.name, last.levelno, last.pathname, last.lineno, words, values, None, last.funcName)
    told.left_out = count
    return told


def _write(told: list[logging.LogRecord]) -> None:
    for record in told:
        logging.getLogger(record.name).handle(record)
