"""Several servers over one Redis, as processes that may be killed and paused; each reaches Redis through a line of its own that may fail.

Which faults there are, and what is promised of them, is for others to say.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg  # type: ignore[import-untyped]

from aibos_realtime.backends.redis.layout import Layout
from tests.faults.processes import Server, Zygote
from tests.faults.proxy import Proxy
from tests.servers.redis import RedisServer, redis_folder

PREFIX = "faults"
INTAKE = Layout(PREFIX, 1).of_shard(0, "intake")
"""The key of what waits for the store."""


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


async def start_redis(redis: RedisServer) -> None:
    """Start it again, and wait until it has read its data."""
    redis.launch()  # by this thread: Redis ends with whoever started it
    await asyncio.to_thread(redis.until_ready)


def empty(redis: RedisServer) -> None:
    """Have a stopped Redis begin anew with an empty memory."""
    for path in redis.folder.glob("appendonly*"):
        shutil.rmtree(path)


Intake = set[tuple[str, str, int]]
"""(room, epoch, offset) of what waits for the store."""


def read_intake(redis: RedisServer) -> Intake:
    """What a stopped Redis kept for the store and the store had not taken, read from its files by another one."""
    with redis_folder() as folder:
        shutil.copytree(redis.folder, folder, dirs_exist_ok=True, ignore=lambda _, names: [name for name in names if name in ("socket", "log")])
        other = RedisServer(redis.program, folder)
        try:
            other.start()
            return _read_intake(other)
        finally:
            other.stop(signal.SIGKILL)


def flush(redis: RedisServer) -> Intake:
    """Have Redis lose everything without a stop. What waited for the store then."""
    with _connect(redis) as client, client.pipeline(transaction=True) as pipeline:
        pipeline.xrange(INTAKE).flushall()
        entries, _ = pipeline.execute()
    return _read_entries(entries)


def _read_intake(redis: RedisServer) -> Intake:
    with _connect(redis) as client:
        return _read_entries(client.xrange(INTAKE))


def _read_entries(entries: Any) -> Intake:
    found: Intake = set()
    for _, fields in entries:
        epoch, offset, _ = fields[b"p"].decode().split(" ")
        found.add((fields[b"m"].decode(), epoch, int(offset)))
    return found


def read_used_memory(redis: RedisServer) -> int:
    """Bytes."""
    with _connect(redis) as client:
        return int(client.info("memory")["used_memory"])


@asynccontextmanager
async def held_store(url: str) -> AsyncIterator[None]:
    """A transaction of somebody else lets nobody write events."""
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()
    else:
        holder = await asyncpg.connect(url, timeout=10)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE realtime_messages IN EXCLUSIVE MODE", timeout=10)
                yield
        finally:
            await holder.close(timeout=10)


def _connect(redis: RedisServer) -> Any:
    from redis import Redis

    return Redis(unix_socket_path=str(redis.path))
