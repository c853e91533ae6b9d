"""The command line as a whole: help, mistyped words, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aibos_realtime import __version__
from aibos_realtime.cli.exits import ExitCode

from .conftest import Command

COMMANDS = ("serve", "token", "publish", "listen", "history", "rooms", "connections", "top", "nodes", "check", "database", "queue")


def test_help_names_every_command_and_exit_code(command: Command) -> None:
    shown = command("--help")
    assert shown.code == 0 and shown.err == ""
    for name in COMMANDS:
        assert f"  {name} " in shown.out
    for code in ExitCode:
        assert f"{code.value:5}  " in shown.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_documents_its_exit_codes(command: Command, name: str) -> None:
    shown = command(name, "-h")
    assert shown.code == 0 and "Exit codes:" in shown.out
    assert "\x1b" not in shown.out and "…" not in shown.out


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"aibos-realtime {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["srve"], "Did you mean 'serve'?"),
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--port", "abc"], "'--port'"),
        (["serve", "--port", "65536"], "65535"),
        (["publish", "tenant_1", "a"], "Missing argument 'JSON'"),
        (["listen"], "Missing argument 'ROOM'"),
        (["listen", "tenant_1", "--count", "0"], "'--count'"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(command: Command, words: list[str], says: str) -> None:
    ended = command(*words)
    assert ended.code == 2 and ended.out == ""
    assert says in ended.err and "Traceback" not in ended.err


def test_help_imports_nothing_heavy() -> None:
    heavy = ("uvicorn", "jwt", "websockets", "pydantic", "rich", "urllib.request")
    code = f"import sys; import aibos_realtime.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"
