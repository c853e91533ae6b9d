"""The tests here run on both event loops: on uvloop with what is compiled, on asyncio's own with Python alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from aibos_realtime.client import lifecycle, link, reconnect, websocket
from aibos_realtime.protocol import frames, masking
from aibos_realtime.transport import batch
from tests.loops import ASYNCIO, BOTH, Loops
from tests.network.conftest import clean_log as clean_log

ONE_LOOP = ("test_hostile_handshakes.py", "test_hostile_messages.py")
"""What they look at is above the loop, and above what is compiled."""


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    return ASYNCIO if item.path.name in ONE_LOOP else BOTH


@pytest.fixture(autouse=True)
def _pure_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "[asyncio" in request.node.name:
        monkeypatch.setattr(batch, "compiled", None)
        monkeypatch.setattr(frames, "apply_mask", masking.mask_by_integers)


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default store is a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers get less time to end a client's connection."""
    for module in (websocket, link, reconnect, lifecycle):
        monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.1)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()
