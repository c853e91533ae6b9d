"""A whole server inside the test, and clients that speak its protocol by hand: no port, no network, no time-outs to tune.

Everything but the handshake is the real thing: the same frames, limits, handlers and rooms. For the handshake, start the server on port 0.

    async with memory_server(authorization={"permissions": {"*": ["read", "write"]}}) as net:
        ann, bob = await net.connect("ann"), await net.connect("bob")
        await bob.request("join-room", "lobby")
        await ann.request("invoice.created", {"amount": 5}, room="lobby")
        assert (await bob.receive("invoice.created"))["data"] == {"amount": 5}
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from ..auth.user import NO_CLAIMS, Identity, User
from ..errors import ConnectionClosed, from_wire
from ..hub.socket import Socket
from ..protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK
from ..server.handshake import Arrival
from ..server.server import RealtimeServer
from ..transport.memory import MemoryEnd, MemoryTransport
from .clock import settle

Message = dict[str, Any]


class MemoryClient:
    """The client's end of one connection.

    `end` carries the raw messages, `socket` is the server's view of it, `connected` the data of the message by that name.
    """

    def __init__(self, end: MemoryEnd, socket: Socket, *, is_binary: bool) -> None:
        self.end = end
        self.socket = socket
        self.connected: Message = {}
        self._is_binary = is_binary
        self._refs = count(1)
        self._waiting: deque[Message] = deque()

    def send(self, event: str, data: Any = None, **members: Any) -> None:
        """Send a message and wait for nothing. `members`: `room`, `ref`, `id`. Raises `ConnectionClosed`."""
        message = {"event": event, "data": data} | members
        self.end.send(msgspec.msgpack.encode(message) if self._is_binary else msgspec.json.encode(message).decode())

    async def request(self, event: str, data: Any = None, *, timeout: float = 5.0, **members: Any) -> Any:
        """Send a request and return the `data` of its answer; what arrives before the answer is kept for `receive`.

        Raises the error that the server answers with (`PermissionDenied`, `RoomFull`, …), `TimeoutError`, `ConnectionClosed`.
        """
        ref = f"test-{next(self._refs)}"
        self.send(event, data, ref=ref, **members)
        answer = await self._next(lambda message: message.get("ref") == ref, timeout)
        if answer["event"] in ("error", "permission_denied"):
            raise from_wire(answer["data"])
        return answer.get("data")

    async def receive(self, event: str | None = None, *, timeout: float = 5.0) -> Message:
        """The next message, or the next one of an event; those before it are kept. Raises `TimeoutError`, `ConnectionClosed`."""
        return await self._next(lambda message: event is None or message["event"] == event, timeout)

    async def take_all(self) -> list[Message]:
        """Every message that has arrived, the loop given time to finish what it began: to show that nothing more came, or what did."""
        await settle()
        try:
            while True:
                self._waiting.append(self._decode(await self.end.receive(timeout=0)))
        except (TimeoutError, ConnectionClosed):
            taken, self._waiting = list(self._waiting), deque()
            return taken

    def answer(self, call: Message, data: Any = None) -> None:
        """Answer a `socket.call` of the server."""
        self.send("ack", data, ref=call["ref"])

    async def closed(self, timeout: float = 5.0) -> int:
        """Read to the end of the connection, keeping what comes; its close code, once the server has noticed too. Raises `TimeoutError`."""
        while True:
            try:
                self._waiting.append(self._decode(await self.end.receive(timeout)))
            except ConnectionClosed as end:
                await settle()
                return end.close_code

    def close(self, code: int = 1000) -> None:
        """Close the connection, as a client does."""
        self.end.close(code)

    def cut(self) -> None:
        """Be gone without a word."""
        self.end.cut()

    async def _next(self, fits: Any, timeout: float) -> Message:
        for number, message in enumerate(self._waiting):
            if fits(message):
                del self._waiting[number]
                return message
        while True:
            message = self._decode(await self.end.receive(timeout))
            if fits(message):
                return message
            self._waiting.append(message)

    def _decode(self, message: str | bytes) -> Message:
        decoded: Message = msgspec.msgpack.decode(message) if isinstance(message, bytes) else msgspec.json.decode(message)
        return decoded


class MemoryServer:
    """A running server and its clients; made by `memory_server`."""

    def __init__(self, server: RealtimeServer) -> None:
        self.server = server

    async def connect(
        self,
        user: str | None = None,
        *,
        role: str = "user",
        tenant_id: str | None = None,
        claims: dict[str, Any] | None = None,
        expires_in: float = 3600.0,
        codec: str = "json",
        address: str = "192.0.2.1",
        wait: bool = True,
    ) -> MemoryClient:
        """A client that is let in as this user, as if a token had said so; None: nobody yet, as without a token.

        `expires_in`: seconds until the token ends. `codec`: "json" or "msgpack". `address`: whence it seems to come.
        `wait`: until the server has said `connected`; otherwise that comes first. Raises `ConnectionClosed` where it is not let in.
        """
        transport = MemoryTransport(remote_address=address, soft_limit=self.server.config.limits.outbox_soft_bytes)
        identity = None
        if user is not None:
            identity = Identity(User(user, role, tenant_id, claims or NO_CLAIMS), self.server._clock.now() + expires_in)
        is_binary = codec == "msgpack"
        arrival = Arrival(address, SUBPROTOCOL_MSGPACK if is_binary else SUBPROTOCOL, b"", identity=identity)
        client = MemoryClient(transport.far, self.server.sockets.welcome(arrival, transport), is_binary=is_binary)
        if wait:
            client.connected = (await client.receive("connected"))["data"]
        return client


@asynccontextmanager
async def memory_server(server: RealtimeServer | None = None, /, **options: Any) -> AsyncIterator[MemoryServer]:
    """Run a server without a port: yours, with its handlers, or one made of `options` (those of `RealtimeServer`; a secret is made up, and
    events live in memory unless `persistence` says otherwise).

    At the end it is stopped, without waiting for handlers that still run.
    """
    if server is None:
        defaults: dict[str, Any] = {"authentication": {"jwt_secret": secrets.token_urlsafe(32)}, "persistence": {"database": {"url": "memory://"}}}
        server = RealtimeServer(**defaults | options)
    await server.open()
    try:
        yield MemoryServer(server)
    finally:
        await server.stop(drain=0)
