"""A folder of its own and an environment without our variables for each test of the command line, and `command(…)` to run one in this process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aibos_realtime.audit import logger as audit_logger
from aibos_realtime.cli.app import main
from aibos_realtime.cli.logs import CommandLogs, set_up_audit_log
from aibos_realtime.config import VARIABLES

from .stub_api import StubApi

SECRET = "only-for-the-tests-of-the-command-line"


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test."""
    monkeypatch.chdir(tmp_path)
    for name in (*VARIABLES, *(name for name in os.environ if name.startswith(("REALTIME_", "REDIS_")))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture(autouse=True)
def _restore_what_is_global() -> Iterator[None]:
    modules, root = set(sys.modules), logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    set_up_audit_log(None)
    audit_logger.setLevel(logging.NOTSET)
    for handler in [one for one in root.handlers if isinstance(one, CommandLogs)]:
        root.removeHandler(handler)
    for name in set(sys.modules) - modules:
        if name.startswith("ours"):
            del sys.modules[name]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line to its end."""

    def run(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    """An HTTP API, which the commands find by REALTIME_URL, with a token."""
    with StubApi() as found:
        monkeypatch.setenv("REALTIME_URL", found.url)
        monkeypatch.setenv("REALTIME_TOKEN", "token_a")
        yield found
