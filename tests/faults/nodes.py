"""Several servers over one Redis, as processes that may be killed and paused; each reaches Redis through a line of its own that may fail.

Which faults there are, and what is promised of them, is for others to say.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.processes import Server, Zygote
from tests.faults.proxy import Proxy
from tests.servers.redis import RedisServer

PREFIX = "faults"
"""How the names of the keys begin."""


class Nodes:
    """`count` servers. What they and Redis say goes into `folder` at the end. `has_lines`: they reach Redis by proxies, which cost this process time.

    `database`, `ack`, `options`: as of `server_program.make_server`.
    """

    def __init__(
        self, zygote: Zygote, redis: RedisServer, folder: Path, *, database: str, ack: str | None = None, count: int = 3, has_lines: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        self.redis = redis
        self.lines = [Proxy(str(redis.path)) for _ in range(count)] if has_lines else []
        """Between each node and Redis."""
        self._count = count
        self.servers: list[Server] = []
        self._zygote = zygote
        self._folder = folder
        self._options = {"database": database, "ack": ack, **options}
        self._life = AsyncExitStack()

    def __len__(self) -> int:
        return self._count

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as life:
            for number in range(self._count):
                url = self.redis.url
                if self.lines:
                    url = f"redis://127.0.0.1:{(await life.enter_async_context(self.lines[number])).port}"
                scaling = {"enabled": True, "instance_id": f"node-{number}", "redis": {"url": url, "prefix": PREFIX}}
                self.servers.append(Server(self._zygote, scaling=scaling, **self._options))
            for server in self.servers:
                life.push_async_exit(server)
            await asyncio.gather(*(server.start() for server in self.servers))
            self._life = life.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._life.__aexit__(kind, error, trace)
        finally:
            for number, server in enumerate(self.servers):
                (self._folder / f"node-{number}.log").write_text("\n".join(server.lines))
            shutil.copy(self.redis.folder / "log", self._folder / "redis.log")

    async def stop(self) -> None:
        """Stop all at once, in an orderly way. Raises `AssertionError` where one does not end well."""
        await asyncio.gather(*(server.stop() for server in self.servers))
