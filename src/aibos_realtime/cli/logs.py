"""Logging for `serve`: one handler on stderr, as text for people or JSON for programs, and libraries that speak up only when something is wrong.

The audit log (`audit`) goes to a place of its own, or nowhere.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from typing import Any

from ..audit import logger as audit_logger
from ..logs import Flood, is_behind_flood
from .exits import ExitCode, Failure
from .output import err, escape_controls, out

LISTENING = "listening on %s"
"""What the server logs once it listens; on a terminal the command itself has said so."""

_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets", "asyncio")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    text = "text"
    json = "json"


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What a call gave as `extra=`: ids, counts."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class TextFormatter(logging.Formatter):
    """`2025-11-23 12:00:00 INFO    aibos_realtime: words  name=value`, and a failure's trace below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return escape_controls("  ".join([line, *(f"{name}={value}" for name, value in extras(record).items())]))


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (RFC 3339), `level`, `logger`, `message`, `process`, what was given as `extra=`, and `trace` of a failure."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        line |= {name: value for name, value in extras(record).items() if name not in line}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return text if is_encodable(text) else json.dumps(line, default=str)


def is_encodable(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which no stream takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class CommandLogs(logging.Handler):
    """The one handler of `serve`. It writes to whatever `sys.stderr` is at that moment. `others`: the handlers that were there before it.

    Lines of libraries, and of the application, have the same bound as the package's own.
    """

    def __init__(self, others: list[logging.Handler]) -> None:
        super().__init__()
        self.others = others
        self._flood = Flood()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in [record] if is_behind_flood(record) else self._flood.lines(record):
                err.stream.write(f"{self.format(line)}\n")
            err.stream.flush()
        except (OSError, ValueError):
            pass  # stderr is closed: there is nobody left to tell


class AuditFile(WatchedFileHandler):
    """Appends to a file that others than its owner and his group cannot read; after a rotation, to the new one."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o640))


class AuditOutput(logging.Handler):
    """Writes to whatever `sys.stdout` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            out.stream.write(f"{self.format(record)}\n")
            out.stream.flush()
        except (OSError, ValueError):
            pass


def set_up_logging(format: LogFormat, level: LogLevel) -> CommandLogs:
    """Log to stderr in this way; a second call replaces the first."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, CommandLogs):
            root.removeHandler(handler)
    handler = CommandLogs(list(root.handlers))
    handler.setFormatter(JsonFormatter() if format is LogFormat.json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level.value.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


def yield_to_application(handler: CommandLogs) -> None:
    """Where the imported module has set up logging of its own on the root logger, leave it to that: nothing is to be written twice."""
    root = logging.getLogger()
    if any(one is not handler and one not in handler.others for one in root.handlers):
        root.removeHandler(handler)


def set_up_audit_log(place: str | None) -> None:
    """Write the audit log, as JSON, to a file or (`-`) to stdout; None: nowhere. A second call replaces the first. Raises `Failure`."""
    for handler in list(audit_logger.handlers):
        if isinstance(handler, AuditFile | AuditOutput):
            audit_logger.removeHandler(handler)
            handler.close()
    audit_logger.propagate = place is None
    audit_logger.setLevel(logging.WARNING if place is None else logging.INFO)
    if place is None:
        return
    try:
        handler = AuditOutput() if place == "-" else AuditFile(place)
    except OSError as error:
        raise Failure(f"--audit-log: {place} cannot be written: {error.strerror}.", ExitCode.USAGE) from None
    handler.setFormatter(JsonFormatter())
    audit_logger.addHandler(handler)
