"""A replica of the tests' Redis, behind a line that may fail, and how it takes over. There are no sentinels here: the test decides."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tests.faults.clients import PATIENCE, pause
from tests.faults.proxy import Blackhole, Pass, Proxy
from tests.servers.redis import RedisServer, running_redis

QUICK = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


class Replica:
    """Of a Redis that runs, in step with it once entered. `settings`: of its configuration, and of its primary's."""

    def __init__(self, primary: RedisServer, program: str | None, settings: Mapping[str, str]) -> None:
        self.line = Proxy(str(primary.path))
        """Between it and its primary."""
        self._primary = primary
        self._program = program
        self._settings = settings
        self._life = AsyncExitStack()
        self._server: RedisServer | None = None

    @property
    def server(self) -> RedisServer:
        assert self._server is not None
        return self._server

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as life:
            await life.enter_async_context(self.line)
            for name, value in QUICK.items():
                assert self._primary.execute("CONFIG", "SET", name, value) == b"+OK\r\n"
            self._server = life.enter_context(running_redis(self._program, **{**QUICK, **self._settings}))  # ends with the thread that starts it
            self.server.execute("REPLICAOF", "127.0.0.1", str(self.line.port))
            await asyncio.to_thread(self.server.until, b"master_link_status:up", "INFO", "replication")
            self._life = life.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._life.__aexit__(kind, error, trace)

    def hold_back(self) -> None:
        """It hears nothing of what is written from now on; its primary takes it for connected, until it misses its acknowledgements."""
        self.line.mode = Blackhole()

    def catch_up(self) -> None:
        self.line.mode = Pass()

    async def until_in_step(self) -> None:
        """Wait until it has all that its primary has, which writes nothing meanwhile. Raises `AssertionError`."""
        goal = _read_offset(self._primary)
        until = time.monotonic() + PATIENCE
        while _read_offset(self.server) < goal:
            assert time.monotonic() < until, "the replica is not in step"
            await pause(0.01)

    def promote(self) -> None:
        """It is the primary, with what it has."""
        self.line.reset()
        assert self.server.execute("REPLICAOF", "NO", "ONE") == b"+OK\r\n"
        assert self.server.execute("CONFIG", "SET", "min-replicas-to-write", "0") == b"+OK\r\n"  # of which it has none

    def kill_primary(self) -> None:
        self._primary.stop(signal.SIGKILL)


def _read_offset(server: RedisServer) -> int:
    found = re.search(rb"\nmaster_repl_offset:(\d+)", server.execute("INFO", "replication"))
    assert found is not None
    return int(found[1])
