"""Two servers with ports of their own, over one Redis: as somebody runs them who follows the documentation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aibos_realtime import RealtimeServer
from tests.contracts.peer import serving


@asynccontextmanager
async def two_servers(url: str, prefix: str, **options: Any) -> AsyncIterator[tuple[RealtimeServer, RealtimeServer]]:
    """`url`, `prefix`: of Redis. `options`: of both servers; events live in Redis alone unless `persistence` says otherwise."""
    defaults: dict[str, Any] = {"persistence": {"database": {"url": "memory://"}}, "authorization": {"permissions": {"*": ["read", "write"]}}}
    given = [
        defaults | {"scaling": {"enabled": True, "redis": {"url": url, "prefix": prefix}, "instance_id": name}} | options for name in ("one", "two")
    ]
    async with serving(**given[0]) as one, serving(**given[1]) as two:
        yield one, two
