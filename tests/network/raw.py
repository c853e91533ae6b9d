"""One TCP connection as bytes: requests as they are written, frames as they are built. Nothing is answered, masked or closed by itself."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aibos_realtime import RealtimeServer
from aibos_realtime.protocol.frames import CLOSE, TEXT, close_payload, encode_frame, parse_close

PATIENCE = 5.0
"""Seconds after which something that should have come is taken not to come."""
SECRET = "only these tests sign with this key, which is long"
MASK = b"\x37\xfa\x21\x3d"
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the answer to KEY, as in RFC 6455, section 1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

FIELDS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def request(*further: str, line: str = "GET / HTTP/1.1", fields: Mapping[str, str | None] | None = None) -> bytes:
    """A handshake. `fields` replace those of the usual one, None leaves one out; `further`: whole lines after them."""
    chosen = {**FIELDS, **(fields or {})}
    lines = [line, *(f"{name}: {value}" for name, value in chosen.items() if value is not None), *further]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def smallest(payload: bytes) -> bytes:
    """A message as raw DEFLATE (RFC 7692), as small as zlib makes it: bombs are, and our own compressor is for speed."""
    deflater = zlib.compressobj(9, wbits=-15)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Response(NamedTuple):
    status: int
    fields: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The body of a refusal."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class Raw:
    """A connection to a server, with a deadline for everything that is waited for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def send(self, data: bytes) -> None:
        """Write, and wait until the kernel has it. A connection that is gone counts as having it."""
        async with asyncio.timeout(PATIENCE):
            try:
                self.writer.write(data)
                await self.writer.drain()
            except OSError:
                pass

    async def response(self, *, method: str = "GET") -> Response:
        """The next HTTP answer; the body is what its length says, none for HEAD, 101, 204."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            status = int(head[0].split(" ")[1])
            size = 0 if method == "HEAD" or status in (101, 204) else int(fields["content-length"])
            return Response(status, fields, await self.reader.readexactly(size))

    async def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame, which a server does not mask."""
        return (await self.whole_frame())[1:]

    async def whole_frame(self) -> tuple[int, int, bytes]:
        """(first byte, opcode, payload) of the next frame."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            assert second < 128, "a server masks nothing"
            size = second
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return first, first & 0x0F, await self.reader.readexactly(size)

    async def message(self, event: str | None = None) -> dict[str, Any]:
        """The next text message; with `event`, the next one of this name."""
        while True:
            opcode, payload = await self.frame()
            assert opcode == TEXT, (opcode, payload)
            message: dict[str, Any] = json.loads(payload)
            if event is None or message["event"] == event:
                return message

    async def close_code(self) -> int:
        """The code of the close frame, after whatever comes before it."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return parse_close(payload)[0]

    async def ended(self, timeout: float = PATIENCE) -> bytes:
        """What still comes before the server's end of the connection, or a reset."""
        rest = b""
        async with asyncio.timeout(timeout):
            try:
                while chunk := await self.reader.read(65536):
                    rest = (rest + chunk)[-65536:]
            except ConnectionError:
                pass
        return rest

    def say(self, event: str, data: Any = None, **members: Any) -> None:
        """Send a message of the protocol."""
        self.write(text({"event": event, "data": data, **members}))

    async def ask(self, event: str, data: Any = None, **members: Any) -> dict[str, Any]:
        """Send a request and return its answer; what comes before it is dropped."""
        self.say(event, data, ref="ask", **members)
        while True:
            message = await self.message()
            if message.get("ref") == "ask":
                return message

    def stop_reading(self) -> None:
        """Take nothing more from the kernel."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def reset(self) -> None:
        """End with a TCP reset instead of a goodbye."""
        if not self.writer.transport.is_closing():
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.writer.transport.abort()


def text(message: Any) -> bytes:
    """A masked text frame."""
    return encode_frame(TEXT, json.dumps(message).encode(), mask=MASK)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A masked frame."""
    return encode_frame(opcode, payload, mask=MASK, fin=fin, rsv1=rsv1)


def closing(code: int = 1000) -> bytes:
    """A masked close frame."""
    return frame(CLOSE, close_payload(code))


@asynccontextmanager
async def raw(port: int, *, receive_bytes: int | None = None, source: str | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    """A TCP connection to a port of this machine. `receive_bytes`: size of the kernel's buffer; `source`: the address to come from."""
    handle = socket.socket()
    handle.setblocking(False)
    if receive_bytes is not None:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    if source is not None:
        handle.bind((source, 0))
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(handle, ("127.0.0.1", port))
            options: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
            reader, writer = await asyncio.open_connection(sock=handle, limit=receive_bytes or 65536, **options)
    except BaseException:
        handle.close()
        raise
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except OSError:
            pass


@asynccontextmanager
async def upgraded(port: int, *further: str, data: bytes = b"", **options: Any) -> AsyncIterator[Raw]:
    """A connection after its handshake. `further`: header lines; `data`: what is sent in the same segment as the request."""
    async with raw(port, **options) as connection:
        connection.write(request(*further) + data)
        response = await connection.response()
        assert response.status == 101, response
        yield connection


@asynccontextmanager
async def member(server: RealtimeServer, user_id: str, *rooms: str, role: str = "user", **options: Any) -> AsyncIterator[Raw]:
    """A user of tenant 1, welcomed, in these rooms."""
    async with member_of(server.port, server.auth.issue(user_id=user_id, tenant_id="1", role=role), *rooms, **options) as connection:
        yield connection


@asynccontextmanager
async def member_of(port: int, token: str, *rooms: str, **options: Any) -> AsyncIterator[Raw]:
    """The bearer of a token, welcomed by the server on this port, in these rooms."""
    async with upgraded(port, f"Authorization: Bearer {token}", **options) as connection:
        await connection.message("connected")
        for room in rooms:
            answer = await connection.ask("join-room", room)
            assert answer["event"] == "joined-room", answer
        yield connection


def make_server(**options: Any) -> RealtimeServer:
    """A server on a free port whose addresses may shake hands as often as they like, unless `limits` says otherwise."""
    options.setdefault("authentication", {"jwt_secret": SECRET})
    options.setdefault("persistence", {"database": {"url": "memory://"}})
    options["limits"] = {"handshakes_per_second": None, "handshakes_per_second_per_address": None} | options.get("limits", {})
    return RealtimeServer(host="127.0.0.1", port=0, **options)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[RealtimeServer]:
    """A running server; see `make_server`."""
    server = make_server(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(drain=0)


async def until(condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Wait for what nobody announces, with a look every few milliseconds."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.wait((never,), timeout=0.005)


async def echoes(connection: Raw) -> None:
    """A canary: fails unless a `ping` of the protocol is answered."""
    assert (await connection.ask("ping"))["event"] == "pong"
