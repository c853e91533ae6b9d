"""A TCP proxy that misbehaves on demand: between client and node, node and PostgreSQL, node and Redis.

What it does to bytes is a `Mode`, which may change at any time, for connections that are open too. It understands no protocol, and as TCP never
loses a byte of a connection that lives on, neither does it: what it holds back goes on when the mode does.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Collection
from types import TracebackType
from typing import Literal, Self

from aibos_realtime.clock import SYSTEM_CLOCK

Direction = Literal["up", "down"]
"""up: towards the server; down: towards the client."""

CHUNK = 16 * 1024
CHUNKS = 16
"""Chunks that wait in one direction of one connection; past that the proxy does not read."""

OPENING = 4096
"""Bytes by which a connection is recognised."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time: closing sends RST."""


class Mode:
    """Everything goes through at once. The other modes say what they do differently."""

    resets = False
    """Whether connections, open and new ones, are reset."""

    def holds(self, direction: Direction, link: Link) -> bool:
        """Whether bytes of this direction of a connection wait until the mode changes."""
        return False

    def latency(self) -> float:
        """Seconds from a chunk's arrival to its departure."""
        return 0.0

    def seconds_for(self, size: int) -> float:
        """How long the line is busy with so many bytes."""
        return 0.0

    def cut(self, link: Link, direction: Direction, chunk: bytes) -> int | None:
        """How many bytes of a chunk still go through before the connection is cut; None: all, and it is not."""
        return None


class Pass(Mode):
    """As if it were not there."""


class Delay(Mode):
    """Every chunk arrives `seconds` later, give or take `jitter`; the order stays."""

    def __init__(self, seconds: float, jitter: float = 0.0, *, seed: int = 0) -> None:
        self._seconds = seconds
        self._jitter = jitter
        self._random = random.Random(seed)

    def latency(self) -> float:
        return max(0.0, self._seconds + self._random.uniform(-self._jitter, self._jitter))


class Rate(Mode):
    """So many bytes a second, in each direction of each connection."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second

    def seconds_for(self, size: int) -> float:
        return size / self._rate


class Blackhole(Mode):
    """Connections are accepted and stay open; nothing arrives, in one direction only (half-open) or in both. `links`: of these alone."""

    def __init__(self, direction: Direction | None = None, links: Collection[Link] | None = None) -> None:
        self._direction = direction
        self._links = links

    def holds(self, direction: Direction, link: Link) -> bool:
        return self._direction in (None, direction) and (self._links is None or link in self._links)


class Reset(Mode):
    """Every connection, open or new, ends with a TCP reset."""

    resets = True


class CutAfter(Mode):
    """Each connection ends after so many more bytes, both directions counted together; `times`: how many connections, None: all."""

    def __init__(self, size: int, *, times: int | None = None) -> None:
        self._size = size
        self._times = times
        self._passed: dict[Link, int] = {}

    def cut(self, link: Link, direction: Direction, chunk: bytes) -> int | None:
        if self._times == 0:
            return None
        before = self._passed.get(link, 0)
        self._passed[link] = before + len(chunk)
        if before + len(chunk) < self._size:
            return None
        if self._times is not None:
            self._times -= 1
        return self._size - before


class CutBeforeReply(Mode):
    """A connection ends when its `number`-th reply comes, of which nothing goes through: the server acted, and nobody hears of it.

    A reply is the first that comes down after something went up. `to`: only replies to what contains these bytes count. `times`: how many
    connections.
    """

    def __init__(self, number: int = 1, *, to: bytes = b"", times: int = 1) -> None:
        self._number = number
        self._to = to
        self._times = times
        self._asked: dict[Link, bool] = {}
        self._replies: dict[Link, int] = {}

    def cut(self, link: Link, direction: Direction, chunk: bytes) -> int | None:
        if direction == "up":
            self._asked[link] = self._to in chunk
            return None
        if not self._asked.pop(link, False) or self._times == 0:
            return None
        self._replies[link] = self._replies.get(link, 0) + 1
        if self._replies[link] < self._number:
            return None
        self._times -= 1
        return 0


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: Stream, far: Stream) -> None:
        self._proxy = proxy
        self._near = near
        self._far = far
        self.opening = b""
        """The first bytes that went up."""

    async def run(self) -> None:
        """Carry bytes until both sides are done, or the connection is cut."""
        try:
            async with asyncio.TaskGroup() as group:
                for direction, source, target in (("up", self._near, self._far), ("down", self._far, self._near)):
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS)
                    group.create_task(self._fill(direction, source, queue))  # type: ignore[arg-type]
                    group.create_task(self._drain(direction, queue, target))  # type: ignore[arg-type]
        except* (_Cut, OSError):
            pass
        finally:
            for stream in (self._near, self._far):
                stream.writer.close()

    def reset(self) -> None:
        """End both connections with RST, whatever waits."""
        for stream in (self._near, self._far):
            stream.reset()

    async def _fill(self, direction: Direction, source: Stream, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            chunk = await source.reader.read(CHUNK)
            if direction == "up" and len(self.opening) < OPENING:
                self.opening += chunk
            await queue.put((SYSTEM_CLOCK.monotonic(), chunk))
            if not chunk:
                return

    async def _drain(self, direction: Direction, queue: asyncio.Queue[tuple[float, bytes]], target: Stream) -> None:
        while True:
            arrived, chunk = await queue.get()
            mode = await self._proxy.allow(direction, self)
            await asyncio.sleep(max(0.0, arrived + mode.latency() - SYSTEM_CLOCK.monotonic()))
            await asyncio.sleep(mode.seconds_for(len(chunk)))
            mode = await self._proxy.allow(direction, self)  # it may have changed meanwhile
            if not chunk:
                if target.writer.can_write_eof():
                    target.writer.write_eof()
                return
            size = mode.cut(self, direction, chunk)
            target.writer.write(chunk if size is None else chunk[:size])
            await target.writer.drain()
            if size is not None:
                self._proxy.count_cut()
                raise _Cut


class Stream:
    """One side of a link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def reset(self) -> None:
        end: socket.socket | None = self.writer.get_extra_info("socket")
        if end is not None and not self.writer.transport.is_closing():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()


class _Cut(Exception):
    """The mode ends this connection."""


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to `target`: (host, port), or the path of a unix socket.

    A target that is away: the client's connection is reset.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self.target = target
        """Where new connections go; those that are open stay."""
        self._mode: Mode = Pass()
        self._changed = asyncio.Event()
        self._has_cut = asyncio.Event()
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self.cuts = 0
        """Connections that a mode has cut."""

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode.resets:
            self.reset()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """For WebSocket clients."""
        return f"ws://127.0.0.1:{self.port}"

    def __len__(self) -> int:
        """Open connections."""
        return len(self._links)

    def reset(self) -> None:
        """End the connections that are open, by RST. New ones are the mode's business."""
        for link in self._links:
            link.reset()

    def find(self, words: bytes) -> set[Link]:
        """The open connections that have said this among the first bytes that went up."""
        return {link for link in self._links if words in link.opening}

    async def until_cut(self, count: int = 1) -> None:
        """Wait until modes have cut so many connections."""
        while self.cuts < count:
            self._has_cut.clear()
            await self._has_cut.wait()

    async def allow(self, direction: Direction, link: Link) -> Mode:
        """Wait while the mode holds this direction back; returns the mode that lets it go."""
        while self._mode.holds(direction, link):
            await self._changed.wait()
        return self._mode

    def count_cut(self) -> None:
        self.cuts += 1
        self._has_cut.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near = Stream(reader, writer)
        try:
            far = Stream(*await self._dial())
        except OSError:
            near.reset()
            return
        link = Link(self, near, far)
        if self._mode.resets:
            link.reset()
            return
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.run()
        except asyncio.CancelledError:
            link.reset()  # the proxy ends; a cancelled callback of a stream server would be reported as an error
        finally:
            del self._links[link]

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)
