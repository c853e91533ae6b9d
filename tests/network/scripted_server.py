"""A server of the tests' own that misbehaves on purpose: attempt n of a client meets step n of a script.

It shares no code with the server of the package: frames are those of `websockets`, driven by hand. A step is a coroutine function that
gets a `Peer`;
what a step asserts fails the test.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Self

import msgspec
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

GREETING: dict[str, Any] = {
    "socketId": "socket_1",
    "protocol": 1,
    "node": "node_1",
    "user": {"id": "user_123", "role": "user"},
    "expiresAt": None,
    "heartbeat": {"interval": 30, "timeout": 60},
    "limits": {"messageBytes": 65536, "rooms": 128},
}


_quiet = logging.getLogger("tests.scripted_server")
_quiet.setLevel(logging.CRITICAL)  # tests look into the log for what the client should not write there


class Gone(Exception):
    """The client has left."""


class Peer:
    """One connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attempt: int) -> None:
        self.attempt = attempt
        self.request: Request
        self.close_code: int | None = None
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol(subprotocols=[Subprotocol("aibos.realtime.v1")], logger=_quiet)
        self._events: list[Any] = []

    # Before the upgrade.

    async def read_request(self) -> Request:
        event = await self._next_event()
        assert isinstance(event, Request)
        self.request = event
        return event

    async def refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Answer the upgrade with an HTTP error."""
        await self.read_request()
        lines = [f"HTTP/1.1 {status} Refused", "Content-Length: 0", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._writer.close()

    async def upgrade(self, subprotocol: str = "aibos.realtime.v1") -> None:
        """Do the handshake, and say nothing yet."""
        self._protocol.available_subprotocols = [Subprotocol(subprotocol)]
        request = await self.read_request()
        self._protocol.send_response(self._protocol.accept(request))
        await self._flush()

    async def accept(self, **greeting: Any) -> None:
        """Do the handshake and say `connected`; keywords replace parts of the greeting."""
        await self.upgrade()
        await self.tell("connected", GREETING | greeting)

    @property
    def is_msgpack(self) -> bool:
        return self._protocol.subprotocol == "aibos.realtime.v1.msgpack"

    # Messages.

    async def tell(self, event: str, data: Any = None, **members: Any) -> None:
        message = {"event": event, "data": data, **members}
        if self.is_msgpack:
            self._protocol.send_binary(msgspec.msgpack.encode(message))
            await self._flush()
        else:
            await self.send_text(json.dumps(message))

    async def publish(self, room: str, offset: int, event: str = "tick", *, id: str | None = None, data: Any = None) -> None:
        """An event of a room, as every member gets it."""
        await self.tell(
            event,
            {"n": offset} if data is None else data,
            room=room,
            offset=offset,
            id=id or f"id-{offset}",
            timestamp="2025-09-17T12:00:00.123Z",
            userId="user_9",
        )

    async def send_text(self, text: str) -> None:
        self._protocol.send_text(text.encode("utf-8", "surrogatepass"))
        await self._flush()

    async def send_binary(self, data: bytes) -> None:
        self._protocol.send_binary(data)
        await self._flush()

    async def receive(self) -> dict[str, Any]:
        """The next message of the client. Raises `Gone`."""
        while True:
            event = await self._next_event()
            assert isinstance(event, Frame)
            if event.opcode is Opcode.TEXT:
                message = json.loads(bytes(event.data))
            elif event.opcode is Opcode.BINARY:
                message = msgspec.msgpack.decode(bytes(event.data))
            else:
                continue
            assert isinstance(message, dict)
            return message

    async def expect(self, event: str) -> dict[str, Any]:
        """The next message, which must be this one."""
        message = await self.receive()
        assert message["event"] == event, message
        return message

    async def answer(self, message: dict[str, Any], event: str, data: Any = None) -> None:
        await self.tell(event, data, ref=message["ref"])

    async def acknowledge(self, message: dict[str, Any], offset: int = 1, epoch: str = "e1", duplicate: bool = False) -> None:
        await self.answer(message, "ack", {"id": message["id"], "offset": offset, "epoch": epoch, "duplicate": duplicate})

    async def fail(self, request: dict[str, Any], code: str, **members: Any) -> None:
        await self.answer(request, "error", {"code": code, "message": "No.", "retryable": False, **members})

    async def join(self, room: str = "tenant_123", *, offset: int = 0, epoch: str = "e1", recovered: bool | None = None) -> dict[str, Any]:
        """Expect a join of this room and answer it; returned is what the client asked."""
        message = await self.expect("join-room")
        asked: dict[str, Any] = message["data"]
        assert asked["roomId"] == room, asked
        await self.answer(message, "joined-room", {"roomId": room, "epoch": epoch, "offset": offset, "recovered": recovered})
        return asked

    # The end.

    async def close(self, code: int, reason: str = "") -> None:
        self._protocol.send_close(code, reason)
        await self._flush()
        await self.hang()

    async def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        """Say nothing more, so that the client reads to the end of what was said; then wait until it has left."""
        self._writer.write_eof()
        while await self._reader.read(65536):
            pass

    def cut(self) -> None:
        """Break the connection off, with a reset."""
        self._writer.transport.abort()

    async def hang(self) -> None:
        """Say nothing more, until the client has left."""
        try:
            while True:
                await self._next_event()
        except Gone:
            pass

    async def stall(self) -> None:
        """Read nothing more either, for as long as the test runs."""
        await asyncio.Event().wait()

    async def _next_event(self) -> Any:
        while not self._events:
            data = await self._reader.read(65536)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            self._events += self._protocol.events_received()
            await self._flush()
            if not data and not self._events:
                raise Gone
        event = self._events.pop(0)
        if isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
            self.close_code = Close.parse(bytes(event.data)).code
        return event

    async def _flush(self) -> None:
        try:
            for data in self._protocol.data_to_send():
                if data:
                    self._writer.write(data)
                elif not self._writer.is_closing() and self._writer.can_write_eof():
                    self._writer.write_eof()
            await self._writer.drain()
        except OSError:
            raise Gone from None


Step = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """`async with ScriptedServer(step_1, step_2, …) as server`; further attempts meet the last step again. `attempts` counts them."""

    def __init__(self, *steps: Step, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.steps = list(steps)
        self.attempts = 0
        self.port = port
        self._tls = tls
        self._server: asyncio.Server
        self._owner: asyncio.Task[object] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if self._failures:
            if self._owner is not None:
                self._owner.uncancel()
            raise self._failures[0]

    async def until_attempts(self, count: int) -> None:
        """Wait until so many attempts have begun."""
        while self.attempts < count:
            self._changed.clear()
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        step = self.steps[min(self.attempts, len(self.steps) - 1)]
        self.attempts += 1
        self._changed.set()
        try:
            await step(Peer(reader, writer, self.attempts))
        except (Gone, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as failure:
            if not self._failures and self._owner is not None:
                self._owner.cancel()
            self._failures.append(failure)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
