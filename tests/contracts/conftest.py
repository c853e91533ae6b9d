"""What holds for every contract test: nothing that is secret gets into a log, whatever the test does."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aibos_realtime import RealtimeServer
from tests.contracts.peer import SECRET, serving

TOKEN = re.compile(r"eyJ[\w-]{8,}|[\w-]{16,}\.[\w-]{16,}\.[\w-]{16,}")


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default store is a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_secret_in_a_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """All levels, all loggers but that of the test's own client library."""
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.INFO, "websockets"):
        yield
    format = logging.Formatter().format
    lines = [format(record) for when in ("setup", "call", "teardown") for record in caplog.get_records(when)]
    leaks = [line for line in lines if TOKEN.search(line) or SECRET in line or "PAYLOAD" in line]
    assert leaks == [], "a token, a key or a payload was logged"


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    """A server of default limits, but for the handshakes of one address."""
    async with serving() as running:
        yield running
