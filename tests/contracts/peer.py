"""A client that speaks the protocol by hand, and a server to speak to. It knows the shape of a message and nothing of what one means."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Origin, Subprotocol

from aibos_realtime import RealtimeServer

SECRET = "a secret of these tests alone, of 32 bytes or more"
PROTOCOL = "aibos.realtime.v1"
PATIENCE = 5.0
"""Seconds after which something that should have come is taken not to come."""

Message = dict[str, Any]
MISSING: Any = object()


class Peer:
    """One connection. `ask` finds the answer to its `ref`; what comes before it waits for `next`, in the order in which it came."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._refs = itertools.count(1)
        self._waiting: deque[Message] = deque()

    async def send(self, event: str, data: Any = MISSING, **members: Any) -> None:
        if data is not MISSING:
            members["data"] = data
        await self.send_text(json.dumps({"event": event, **members}))

    async def send_text(self, text: str | bytes) -> None:
        await self.connection.send(text)

    async def receive(self) -> Message:
        """The next message off the wire."""
        async with asyncio.timeout(PATIENCE):
            message = json.loads(await self.connection.recv())
        assert isinstance(message, dict)
        return message

    async def next(self, event: str | None = None) -> Message:
        """The next message; with `event` it must be of that name."""
        message = self._waiting.popleft() if self._waiting else await self.receive()
        assert event is None or message["event"] == event, f"expected {event}, got {message}"
        return message

    async def answer(self, ref: int | str) -> Message:
        """The answer of this `ref`."""
        while True:
            message = await self.receive()
            if message.get("ref") == ref:
                return message
            self._waiting.append(message)

    async def ask(self, event: str, data: Any = MISSING, **members: Any) -> Message:
        """Send with a fresh `ref`, and return the answer."""
        ref = members.setdefault("ref", f"ask-{next(self._refs)}")
        await self.send(event, data, **members)
        return await self.answer(ref)

    async def data(self, event: str, data: Any = MISSING, **members: Any) -> Any:
        """The `data` of the answer, which must not be an error."""
        message = await self.ask(event, data, **members)
        assert message["event"] not in ("error", "permission_denied"), message
        return message["data"]

    async def refusal(self, event: str, data: Any = MISSING, **members: Any) -> Message:
        """The `data` of the answer, which must be an `error` frame."""
        message = await self.ask(event, data, **members)
        assert message["event"] == "error", message
        assert message["data"]["message"], message
        refused: Message = message["data"]
        return refused

    async def heard(self) -> list[Message]:
        """Everything that has come and was not taken, up to a `pong` that is asked for now."""
        await self.ask("ping")
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    async def closed(self) -> int:
        """The close code, after whatever still comes."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    self._waiting.append(json.loads(await self.connection.recv()))
                except websockets.ConnectionClosed:
                    break
        assert self.connection.close_code is not None
        assert len((self.connection.close_reason or "").encode()) < 123
        return self.connection.close_code


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[RealtimeServer]:
    """A server on a free port of this machine, whose address may open as many connections as it likes."""
    server = make_server(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(drain=1)


def make_server(**options: Any) -> RealtimeServer:
    options.setdefault("authentication", {"jwt_secret": SECRET})
    options.setdefault("persistence", {"database": {"url": "sqlite://"}})  # the road of the default, and no file
    options["limits"] = {"handshakes_per_second_per_address": None, "handshakes_per_second": None} | options.get("limits", {})
    return RealtimeServer(host="127.0.0.1", port=0, **options)


@asynccontextmanager
async def connecting(
    server: RealtimeServer,
    token: str | None = None,
    *,
    path: str = "",
    protocols: list[str] | None = None,
    headers: dict[str, str] | None = None,
    origin: str | None = None,
) -> AsyncIterator[Peer]:
    """A connection that has not heard anything yet. Raises `websockets.InvalidStatus` where the server refuses it."""
    headers = dict(headers or {})
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    offered = [Subprotocol(name) for name in protocols] if protocols else None
    async with websockets.connect(
        server.url + path,
        additional_headers=headers,
        subprotocols=offered,
        origin=None if origin is None else Origin(origin),
        proxy=None,
        close_timeout=PATIENCE,
    ) as connection:
        yield Peer(connection)


@asynccontextmanager
async def joined(server: RealtimeServer, *rooms: str, user_id: str = "user_1", tenant_id: str = "1", role: str = "user") -> AsyncIterator[Peer]:
    """A user, connected and welcomed, in these rooms."""
    token = server.auth.issue(user_id=user_id, tenant_id=tenant_id, role=role)
    async with connecting(server, token) as peer:
        await peer.next("connected")
        for room in rooms:
            assert (await peer.ask("join-room", room))["event"] == "joined-room"
        yield peer


async def until(event: asyncio.Event) -> None:
    """Wait for it, at most as long as is decent."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def open_by_hand(server: RealtimeServer, token: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection without a client library, after the handshake: nothing answers a ping, nothing masks, nothing closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = ["GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="] + ([f"Authorization: Bearer {token}"] if token else [])
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(opcode, payload) of a frame without a mask: RFC 6455, 5.2."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first & 0x0F, await reader.readexactly(size)
