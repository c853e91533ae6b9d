"""Somebody else's WebSocket under ASGI."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime.protocol.frames import BINARY, PING, TEXT, encode_frame
from aibos_realtime.testing.clock import settle
from aibos_realtime.transport.asgi import AsgiTransport

from .test_memory import Log


class Server:
    """The other side of ASGI: a queue each way; `gate` stops what is sent."""

    def __init__(self, **options: Any) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.transport = AsgiTransport(self.incoming.get, self.send, "192.0.2.1", **{"max_message": 100, "soft_limit": 1000} | options)
        self.log = Log()
        self.transport.attach(self.log)
        self.running = asyncio.create_task(self.transport.run())

    async def send(self, message: Any) -> None:
        await self.gate.wait()
        self.sent.append(message)

    def receive(self, **message: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.receive"} | message)


@pytest.fixture
async def server() -> Any:
    server = Server()
    yield server
    server.transport.abort()
    await server.running


async def test_messages_both_ways(server: Server) -> None:
    server.receive(text="é")
    server.receive(bytes=b"\0", text=None)
    server.receive(text="")
    server.transport.write(encode_frame(TEXT, b"a") + encode_frame(PING, b"") + encode_frame(BINARY, b"b"))
    await settle()
    assert server.log.seen == [(TEXT, "é".encode()), (BINARY, b"\0"), (TEXT, b"")]
    assert server.sent == [{"type": "websocket.send", "text": "a"}, {"type": "websocket.send", "bytes": b"b"}] and server.transport.buffered() == 0


async def test_a_jam_and_its_end(server: Server) -> None:
    server.gate.clear()
    for _ in range(4):
        server.transport.write(encode_frame(TEXT, "é".encode() * 200))
    await settle()
    assert server.log.seen == ["paused"] and server.transport.buffered() == 1600
    server.gate.set()
    await settle()
    assert server.log.seen == ["paused", "resumed"] and server.transport.buffered() == 0


async def test_reading_that_is_paused(server: Server) -> None:
    await settle()
    server.transport.pause_reading()
    for number in range(3):
        server.receive(text=str(number))
    await settle()
    assert len(server.log.seen) <= 1
    server.transport.resume_reading()
    await settle()
    assert server.log.seen == [(TEXT, b"0"), (TEXT, b"1"), (TEXT, b"2")]


async def test_a_message_that_is_too_large(server: Server) -> None:
    server.receive(text="é" * 51)
    server.receive(text="late")
    await server.running
    assert server.sent == [{"type": "websocket.close", "code": 1009, "reason": "message too big"}] and server.log.seen == [(1009, "message too big")]


async def test_closing_by_either_side() -> None:
    ours = Server()
    ours.transport.write(encode_frame(TEXT, b"last"))
    ours.transport.close(4001, "later")
    ours.transport.close(1000, "again")
    ours.transport.write(encode_frame(TEXT, b"late"))
    await ours.running
    assert [message["type"] for message in ours.sent] == ["websocket.send", "websocket.close"] and ours.log.seen == [(4001, "later")]
    theirs = Server()
    theirs.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": "bye"})
    await theirs.running
    assert theirs.log.seen == [(1001, "bye")]


async def test_a_peer_that_takes_nothing_is_left_after_the_time_to_close() -> None:
    server = Server()
    server.gate.clear()
    server.transport.write(encode_frame(TEXT, b"x"))
    server.transport.close(4008, "slow")
    async with asyncio.timeout(5):
        await server.running
    assert server.log.seen == [(4008, "slow")]


async def test_a_server_that_fails_ends_the_connection() -> None:
    server = Server()

    async def fail(message: Any) -> None:
        raise OSError("gone")

    server.transport._send = fail
    server.transport.write(encode_frame(TEXT, b"x"))
    await server.running
    assert server.log.seen == [(1006, "")]
