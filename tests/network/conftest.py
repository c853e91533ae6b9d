"""The tests of the server run on both event loops, with and without the compiled part, and leave no error in the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aibos_realtime.transport import batch
from tests.loops import ASYNCIO, BOTH, Loops

TOKEN = re.compile(r"eyJ[\w-]{8,}")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    return ASYNCIO if item.path.name.startswith("test_client") else BOTH


@pytest.fixture(autouse=True)
def _pure_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On asyncio's own loop, a server in this process sends in Python; on uvloop with the compiled part, where there is one."""
    if "[asyncio" in request.node.name:
        monkeypatch.setattr(batch, "compiled", None)


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default store is a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clean_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No error, no traceback, no token: what a peer does is not news to an operator."""
    with caplog.at_level(logging.DEBUG):
        yield
    records = [record for when in ("setup", "call", "teardown") for record in caplog.get_records(when)]
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR or record.exc_info] == []
    assert [record.getMessage() for record in records if TOKEN.search(record.getMessage())] == []
