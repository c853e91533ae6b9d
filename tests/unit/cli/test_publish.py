"""`publish` before it connects: names and data."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.cli.publish import check_names, read_data

from .conftest import Command


def refusal(given: str) -> str:
    with pytest.raises(Failure) as failed:
        read_data(given)
    assert failed.value.code is ExitCode.DATA
    return str(failed.value)


def test_data_is_read_from_the_line_a_file_and_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_data('{"amount": 1000}') == {"amount": 1000}
    assert read_data("null") is None
    (folder / "data.json").write_text('["ä"]\n')
    assert read_data("@data.json") == ["ä"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("true\n"))
    assert read_data("-") is True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{hunter2}", "The data is not JSON (line 1, column 2: Expecting property name enclosed in double quotes). Put it in single quotes"),
        ("", "The data is not JSON (there is nothing). Put it in single quotes"),
        ("NaN", "The data is not JSON: NaN, Infinity"),
        ('{"a": -Infinity}', "The data is not JSON: NaN, Infinity"),
        ("[" * 100_000, "The data is not JSON: NaN, Infinity, and thousands of levels"),
        ("9" * 5000, "thousands of levels or digits"),
        ("@nowhere.json", "nowhere.json cannot be read: No such file or directory."),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_not_json_is_a_sentence(given: str, says: str) -> None:
    assert refusal(given).startswith(says) or says in refusal(given)


def test_nothing_of_the_data_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data.json").write_text('{"password": hunter2}')
    assert "hunter2" not in refusal('{"password": hunter2}') + refusal("@data.json")
    (folder / "picture.png").write_bytes(b"\x89PNG\xff")
    assert refusal("@picture.png") == "picture.png is not UTF-8 text."
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1"))
    assert refusal("-") == "stdin is not JSON (line 1, column 3: Expecting ',' delimiter)."


@pytest.mark.parametrize("names", [("room", "tenant_1"), ("room", "user:Zoë Smith"), ("room", "all"), ("event", "invoice.created")])
def test_a_name_that_a_server_takes(names: tuple[str, str]) -> None:
    check_names(names)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["publish", "tenant 1", "a", "1"], "'tenant 1': The room name is not valid: 1–128 of letters, digits and _ . : @ / - are allowed."),
        (["publish", "tenant_1", "", "1"], "'': The event name is not valid"),
        (["publish", "tenant_1", "ping", "1"], "'ping' has a meaning of its own in the protocol: choose another event name."),
        (["listen", "tenant_1", "tenant\x1b[2J"], "The room name is not valid"),
    ],
)
def test_a_name_that_no_server_takes_needs_no_server(command: Command, words: list[str], says: str) -> None:
    ended = command(*words)
    assert ended.code == ExitCode.NAME and ended.out == "" and says in ended.err and "\x1b" not in ended.err


def test_bad_json_needs_no_server(command: Command) -> None:
    assert command("publish", "tenant_1", "a", "{").code == ExitCode.DATA
