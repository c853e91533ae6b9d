"""Several nodes in this process behind one address: real servers on real ports. They share one log, as the nodes of a cluster share Redis.

What is between the nodes of a real cluster is not here; what stands before them is what these are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self, cast

from aibos_realtime import Position, RealtimeServer
from aibos_realtime.backends.base import Broker, LoggedEvent, Receiver
from aibos_realtime.backends.memory.broker import MemoryBroker
from tests.faults.processes import find_free_port
from tests.faults.proxy import Blackhole, Pass, Proxy
from tests.faults.server_program import SECRET, UNLIMITED


class SharedLog(MemoryBroker):
    """The log of all nodes: every event goes to each of them."""

    def __init__(self) -> None:
        super().__init__()
        self._everybody = _Everybody()
        super().attach(self._everybody)

    def attach(self, receiver: Receiver) -> None:
        self._everybody.receivers.append(receiver)


class _Everybody:
    def __init__(self) -> None:
        self.receivers: list[Receiver] = []

    def deliver(self, event: LoggedEvent) -> None:
        for receiver in self.receivers:
            receiver.deliver(event)

    def deliver_volatile(self, event: LoggedEvent) -> None:
        for receiver in self.receivers:
            receiver.deliver_volatile(event)

    def resync(self, room: str, position: Position) -> None:
        for receiver in self.receivers:
            receiver.resync(room, position)

    def is_watched(self, room: str) -> bool:
        return any(receiver.is_watched(room) for receiver in self.receivers)


class WayToLog:
    """One node's way to the log. `is_available`: set it to False, and the node is not ready."""

    def __init__(self, log: SharedLog) -> None:
        self._log = log
        self.is_available = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Line(Proxy):
    """The way to a node, on a port that nobody takes once it is gone. Leaving it is the node's sudden death, as others see that."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", find_free_port())
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await super()._accept(reader, writer)
        except* RuntimeError:  # what uvloop raises where a connection is closed
            pass


class Node:
    """One server, and the way to it. `port`: where the node is found, that of its line if it has one."""

    def __init__(self, name: str, log: SharedLog, *, has_line: bool = False, app: Any = None, **options: Any) -> None:
        self.name = name
        self.log = WayToLog(log)
        self._listen_on = find_free_port()
        self.server = RealtimeServer(
            host="127.0.0.1",
            port=self._listen_on,
            broker=cast(Broker, self.log),
            scaling={"instance_id": name},
            **(NODE | options),
        )
        if app is not None:
            self.server.host_app(app, "/")
        self.line = Line(("127.0.0.1", self._listen_on)) if has_line else None

    @property
    def port(self) -> int:
        return self._listen_on if self.line is None else self.line.port

    def __len__(self) -> int:
        """Connections."""
        return len(self.server.pool)

    def fail(self, *, is_silent: bool) -> None:
        """Lose the log, or answer nobody any more; no connection is lost by it."""
        assert self.line is not None
        self.log.is_available = is_silent
        self.line.mode = Blackhole() if is_silent else Pass()

    def recover(self) -> None:
        assert self.line is not None
        self.log.is_available = True
        self.line.mode = Pass()

    async def die(self) -> None:
        """All its connections are reset, and its port refuses new ones."""
        assert self.line is not None
        await self.line.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        await self.server.start()
        if self.line is not None:
            await self.line.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.line is not None:
            await self.line.__aexit__(kind, error, trace)
        await self.server.stop(drain=0)


NODE: dict[str, Any] = {
    "authentication": {"jwt_secret": SECRET},
    "authorization": {"permissions": {"*": ["read", "write"]}},
    "limits": UNLIMITED,
    "rooms": {"patterns": {"*": {"history_size": 100_000}}},
    "persistence": {"database": {"url": "memory://"}},
    "trusted_proxies": ["127.0.0.1"],
}


@asynccontextmanager
async def running_nodes(count: int = 3, *, first: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[list[Node]]:
    """`node-1`, `node-2`, … `first`: options of the first one alone, over those of all."""
    log = SharedLog()
    async with AsyncExitStack() as stack:
        nodes = [Node(f"node-{number}", log, **(options | (first or {} if number == 1 else {}))) for number in range(1, count + 1)]
        for node in nodes:
            await stack.enter_async_context(node)
        yield nodes
