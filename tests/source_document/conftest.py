"""What the snippets take for granted: the secret in the environment, a server that runs, and a client of user 123 in tenant 123."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import RealtimeClient, RealtimeServer
from tests.contracts.peer import SECRET, serving

Connect = Callable[..., AbstractAsyncContextManager[RealtimeClient]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default store is a file in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def realtime_server() -> AsyncIterator[RealtimeServer]:
    async with serving() as server:
        yield server


@pytest.fixture
def connect(realtime_server: RealtimeServer) -> Connect:
    """`async with connect("user_123") as client:`, with a token of the tenant 123. Lost connections come back at once."""

    @asynccontextmanager
    async def connecting(user_id: str = "user_123", role: str = "user", **options: Any) -> AsyncIterator[RealtimeClient]:
        token = realtime_server.auth.issue(user_id=user_id, tenant_id="123", role=role)
        client = RealtimeClient(realtime_server.url, token=token, random=lambda: 0.0, **options)
        async with client:
            yield client

    return connecting
