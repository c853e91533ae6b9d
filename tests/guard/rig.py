"""A server in this process on a clock that stands still, and clients on streams that lead nowhere: what is counted here is the server's own work.

All but the kernel is the real thing: HTTP and WebSocket protocol, limits, rooms and handlers. The compiled part is off: it is not there on every
machine, and what is kept here is the Python beside it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from aibos_realtime import RealtimeServer
from aibos_realtime.protocol.frames import BINARY, TEXT, encode_frame
from aibos_realtime.protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK
from aibos_realtime.testing.clock import ManualClock

MASK = b"\x37\xfa\x21\x3d"
PLENTY = 1e9
"""Of everything that is limited by rate: the limits are on, and never reached."""

OPTIONS: dict[str, Any] = {
    "authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3},
    "authorization": {"roles": {"user": {"*": ["read", "write"]}, "accountant": {"*": ["read"]}}},
    "persistence": {"database": {"url": "memory://"}},
    "rooms": {"max_rooms": None, "max_users_per_room": None, "patterns": {"live:*": {"ephemeral": True}}},
    "connections": {"max_connections": None},
    "sender": "python",
    "limits": {
        "messages_per_second": PLENTY, "publishes_per_second": PLENTY, "control_frames_per_second": PLENTY, "handshakes_per_second": PLENTY,
        "handshakes_per_second_per_address": PLENTY, "connections_per_user": None, "connections_per_address": None,
    },
}  # fmt: skip

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: realtime.example.com\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n"
    b"Upgrade: websocket\r\nOrigin: http://realtime.example.com\r\nSec-WebSocket-Version: 13\r\nAccept-Language: en-US,en;q=0.9\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s, bearer.%s\r\n\r\n"
)

Write = Callable[[bytes], object]
nowhere: Write = deque[bytes](maxlen=0).append


class Stream(asyncio.Transport):
    """The event loop's transport of one connection, as far as the server uses it. Bytes go to `write`, which is no method: it is called so often."""

    def __init__(self, write: Write) -> None:
        super().__init__({"peername": ("192.0.2.1", 30_000), "sockname": ("192.0.2.2", 3001)})
        self.write = write  # type: ignore[assignment, method-assign]
        self._protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.end)

    def abort(self) -> None:
        self.close()

    def end(self) -> None:
        """The connection is gone."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(None)


class Client:
    """A peer whose bytes reach the server at once, and who never reads."""

    def __init__(self, stream: Stream, *, is_binary: bool = False) -> None:
        self.stream = stream
        self._is_binary = is_binary

    def frame(self, event: str, data: Any = None, **members: Any) -> bytes:
        """The masked frame of a message."""
        encode = msgspec.msgpack.encode if self._is_binary else msgspec.json.encode
        return encode_frame(BINARY if self._is_binary else TEXT, encode({"event": event, "data": data} | members), mask=MASK)

    def send(self, data: bytes) -> None:
        """Have the server read these bytes; what it does at once is done when this returns."""
        protocol = self.stream.get_protocol()
        if isinstance(protocol, asyncio.Protocol):  # asked first, as uvloop does
            protocol.data_received(data)
        else:
            assert isinstance(protocol, asyncio.BufferedProtocol)
            size = len(data)
            memoryview(protocol.get_buffer(size))[:size] = data
            protocol.buffer_updated(size)

    def join(self, room: str, **options: Any) -> None:
        self.send(self.frame("join-room", {"roomId": room} | options, ref=1))


class Net:
    """A running server and its clients; made by `net`. `accept` makes the protocol of a new connection, as for the port."""

    def __init__(self, server: RealtimeServer, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        self.server = server
        self._accept = accept

    def open(self, handshake: bytes, write: Write = nowhere, *, is_binary: bool = False) -> Client:
        """A client who connects and sends this: what follows from it at once is done when this returns."""
        stream = Stream(write)
        protocol = self._accept()
        stream.set_protocol(protocol)
        protocol.connection_made(stream)
        client = Client(stream, is_binary=is_binary)
        client.send(handshake)
        return client

    def handshake(self, user: str, role: str = "user", codec: str = "json") -> bytes:
        """A browser's request to become a WebSocket, with this user's token."""
        protocol = SUBPROTOCOL_MSGPACK if codec == "msgpack" else SUBPROTOCOL
        return HANDSHAKE % (protocol.encode(), self.server.auth.issue(user_id=user, role=role).encode())

    def connect(self, user: str, role: str = "user", codec: str = "json", write: Write = nowhere) -> Client:
        """A client who was let in as this user."""
        return self.open(self.handshake(user, role, codec), write, is_binary=codec == "msgpack")

    async def fill(self, room: str, users: list[str], role: str = "user", codec: str = "json", write: Write = nowhere, **options: Any) -> None:
        """Clients in a room."""
        for user in users:
            self.connect(user, role, codec, write).join(room, **options)
            await asyncio.sleep(0)


@asynccontextmanager
async def net(**options: Any) -> AsyncIterator[Net]:
    """Run a server; at the end its clients are gone."""
    server = RealtimeServer(host="127.0.0.1", port=0, **OPTIONS | options, clock=ManualClock())
    accept = await start(server)
    server._operation.figures.stop()  # it looks at the loop by the real time, and so would be counted by chance
    try:
        yield Net(server, accept)
    finally:
        for socket in list(server.pool):
            socket.transport.abort()  # nobody is there to answer a close frame
        await server.stop(drain=0)


async def start(server: RealtimeServer) -> Callable[[], asyncio.BaseProtocol]:
    """Start a server; returns what it gave the loop to make the protocols of connections with."""
    loop, made = asyncio.get_running_loop(), []
    create_server = loop.create_server

    async def listen(accept: Callable[[], asyncio.BaseProtocol], *where: Any, **options: Any) -> asyncio.Server:
        made.append(accept)
        return await create_server(accept, *where, **options)

    loop.create_server = listen  # type: ignore[assignment, method-assign]
    try:
        await server.start()
    finally:
        loop.create_server = create_server  # type: ignore[method-assign]
    (accept,) = made
    return accept
