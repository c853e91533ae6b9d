"""What reaches a terminal, a pipe and a closed pipe."""

from __future__ import annotations

import io
import json
import sys

import pytest

from aibos_realtime.cli.output import Output, ReaderGone, complain, escape_controls, note, to_json


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def attach_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From here on stdout is a narrow terminal with colours."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    return screen


HOSTILE = "\x1b[2Jclear\x07 \x9b31m red \u202egnp.exe\n[bold]"


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ud800"])
def test_control_characters_are_shown_not_obeyed(character: str) -> None:
    assert escape_controls(f"a{character}b") == f"a\\u{ord(character):04x}b"
    assert character not in to_json({character: character})


def test_what_is_escaped_in_json_is_still_the_same_json() -> None:
    value = {"text": HOSTILE, "umlaut": "ä", "sign": "€", "emoji": "🎉"}
    assert json.loads(to_json(value)) == value
    assert "ä" in to_json(value) and "🎉" in to_json(value)


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    Output().line(("room", "bold cyan"), "  ", HOSTILE)
    assert capsys.readouterr().out == f"room  {escape_controls(HOSTILE)}\n"


def test_a_terminal_gets_colours_and_no_line_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attach_terminal(monkeypatch)
    Output().line(("room", "bold cyan"), " ", "x" * 200, " [bold]not markup[/bold]")
    shown = terminal.getvalue()
    assert shown.startswith("\x1b[") and shown.count("\n") == 1
    assert "x" * 200 in shown and "[bold]not markup[/bold]" in shown


def test_a_terminal_gets_nothing_hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attach_terminal(monkeypatch)
    Output().line(("name", "dim"), HOSTILE)
    assert "\x1b[2J" not in terminal.getvalue() and "\x9b" not in terminal.getvalue()


def test_json_is_never_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attach_terminal(monkeypatch)
    Output().json({"a": [1, 2]})
    assert terminal.getvalue() == '{"a": [1, 2]}\n'


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Output().columns([["option", "value", "from"], ["host", ("0.0.0.0", "bold"), "default"]])
    assert capsys.readouterr().out == "option  value    from\nhost    0.0.0.0  default\n"


def test_notes_and_complaints_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    note("listening")
    complain("first\nsecond")
    assert capsys.readouterr() == ("", "listening\naibos-realtime: first\nsecond\n")


def test_a_reader_that_has_gone_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(ReaderGone):
        Output().json(1)
