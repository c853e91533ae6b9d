"""Logging of `serve`."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from aibos_realtime.cli.logs import CommandLogs, JsonFormatter, LogFormat, LogLevel, TextFormatter, set_up_logging, yield_to_application


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
