"""Logging of `serve`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from aibos_realtime.audit import Audit
from aibos_realtime.audit import logger as audit_logger
from aibos_realtime.cli.exits import Failure
from aibos_realtime.cli.logs import (
    CommandLogs,
    JsonFormatter,
    LogFormat,
    LogLevel,
    TextFormatter,
    set_up_audit_log,
    set_up_logging,
    yield_to_application,
)
from aibos_realtime.testing.clock import ManualClock


def make_record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("aibos_realtime").makeRecord("aibos_realtime", logging.INFO, "", 0, message, arguments, None, extra=extra)


def ours() -> list[logging.Handler]:
    return [one for one in logging.getLogger().handlers if isinstance(one, CommandLogs)]


def test_text_is_one_line_with_ids_and_without_control_characters() -> None:
    line = TextFormatter().format(make_record("the handler of %r failed\n\x1b[2Jforged", "a", incident="inc_1"))
    assert line.endswith("INFO    aibos_realtime: the handler of 'a' failed\\u000a\\u001b[2Jforged  incident=inc_1")
    assert "\n" not in line and "\x1b" not in line


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(make_record("two\nlines %d", 3, incident="inc_1", level="forged"))
    assert "\n" not in line
    value = json.loads(line)
    assert value.pop("time").endswith("Z") and value.pop("process") > 0
    assert value == {"level": "info", "logger": "aibos_realtime", "message": "two\nlines 3", "incident": "inc_1"}


def test_half_a_character_does_not_cost_the_line() -> None:
    line = JsonFormatter().format(make_record("é \ud800", user="\udcff"))
    line.encode()
    assert json.loads(line)["message"] == "é \ud800" and "é" in JsonFormatter().format(make_record("é"))


def test_a_failure_brings_its_trace() -> None:
    record = make_record("failed")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    assert "ZeroDivisionError" in json.loads(JsonFormatter().format(record))["trace"]
    assert "\nZeroDivisionError" in TextFormatter().format(record)


def test_a_second_set_up_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.text, LogLevel.info)
    set_up_logging(LogFormat.json, LogLevel.info)
    assert len(ours()) == 1
    logging.getLogger("aibos_realtime").info("once")
    captured = capsys.readouterr()
    assert captured.out == "" and json.loads(captured.err)["message"] == "once"


def test_the_level_counts_and_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.text, LogLevel.debug)
    logging.getLogger("aibos_realtime").debug("seen")
    logging.getLogger("uvicorn.error").info("not seen")
    logging.getLogger("uvicorn.error").warning("seen too")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines] == ["seen", "seen too"]
    set_up_logging(LogFormat.text, LogLevel.error)
    logging.getLogger("aibos_realtime").warning("not seen")
    assert capsys.readouterr().err == ""


def test_an_application_with_logging_of_its_own_is_left_alone() -> None:
    handler = set_up_logging(LogFormat.text, LogLevel.info)
    yield_to_application(handler)
    assert ours() == [handler]
    own = logging.NullHandler()
    logging.getLogger().addHandler(own)
    try:
        yield_to_application(handler)
        assert ours() == []
    finally:
        logging.getLogger().removeHandler(own)


# — floods —


def test_lines_of_a_library_have_the_same_bound_as_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors were never left out: an event loop out of descriptors wrote thousands a second."""
    set_up_logging(LogFormat.text, LogLevel.info)
    for number in range(1000):
        logging.getLogger("asyncio").error("out of system resource %d", number)
    assert len(capsys.readouterr().err.splitlines()) == 9


# — the audit log —


def test_the_audit_log_is_quiet_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.text, LogLevel.debug)
    set_up_audit_log(None)
    Audit(ManualClock()).note("connect", user_id="ann")
    assert capsys.readouterr() == ("", "") and not audit_logger.isEnabledFor(logging.INFO)


def test_the_audit_log_goes_to_its_file_alone_and_follows_a_rotation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.text, LogLevel.debug)
    file = folder / "audit.jsonl"
    file.write_text("what was there\n")
    set_up_audit_log(str(file))
    audit = Audit(ManualClock())
    audit.note("connect", user_id="ann\n\x1b[2J", address="192.0.2.1")
    first, line = file.read_text().splitlines()
    assert first == "what was there"
    value = json.loads(line)
    assert (value["message"], value["user_id"], value["address"], value["level"]) == ("connect", "ann\n\x1b[2J", "192.0.2.1", "info")
    file.rename(folder / "audit.jsonl.1")
    audit.note("kick", user_id="ann", room_id="lobby")
    assert json.loads(file.read_text())["message"] == "kick" and file.stat().st_mode & 0o007 == 0
    assert capsys.readouterr() == ("", "")
    set_up_audit_log(None)
    audit.note("connect", user_id="bob")
    assert len(file.read_text().splitlines()) == 1


def test_the_audit_log_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_audit_log("-")
    set_up_audit_log("-")
    Audit(ManualClock()).note("connect", user_id="ann")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["user_id"] == "ann"


def test_an_audit_log_that_cannot_be_written_is_told_at_once(folder: Path) -> None:
    for place in (str(folder / "no" / "such" / "folder"), str(folder)):
        with pytest.raises(Failure, match=r"--audit-log: .* cannot be written"):
            set_up_audit_log(place)
