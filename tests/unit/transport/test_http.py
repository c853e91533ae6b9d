"""The port by hand, over loopback: what is refused before it costs anything, and the way to a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aibos_realtime import RealtimeServer
from aibos_realtime.transport.http import Refusal, refusal_response

KEY: dict[str, Any] = {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}
UPGRADE = (
    b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@asynccontextmanager
async def serve(**options: Any) -> AsyncIterator[RealtimeServer]:
    server = RealtimeServer(host="127.0.0.1", port=0, authentication=KEY, persistence={"database": {"url": "memory://"}}, **options)
    async with server:
        yield server


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with serve() as server:
        yield server


async def ask(server: RealtimeServer, request: bytes, *, until: bytes | None = None) -> bytes:
    """What the server says to these bytes: up to `until`, or to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(10):
            writer.write(request)
            return await (reader.readuntil(until) if until else reader.read())
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.transport.abort()


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


async def test_the_way_to_a_websocket(server: RealtimeServer) -> None:
    answer = await ask(server, b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n", until=b'"limits":')
    assert status(answer) == 101 and b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer and b'{"event":"connected"' in answer


async def test_frames_that_come_with_the_request_are_not_lost(server: RealtimeServer) -> None:
    ping = b'{"event":"ping","ref":1}'
    frame = bytes([0x81, 0x80 | len(ping)]) + b"\0\0\0\0" + ping
    answer = await ask(server, b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n" + frame, until=b'"event":"pong","ref":1')
    assert status(answer) == 101


REFUSED = {
    "no http": (b"\x16\x03\x01\x00\x00\r\n\r\n", 400),
    "bare lf": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "nul in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "long url": (b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "many fields": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 65 + b"\r\n", 431),
    "a long field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 8192 + b"\r\n\r\n", 431),
    "long fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: " % n + b"y" * 6000 + b"\r\n" for n in range(5)) + b"\r\n", 431),
    "old upgrade": (b"GET / HTTP/1.0\r\n" + UPGRADE + b"\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: b\r\n" + UPGRADE + b"\r\n", 400),
    "no key": (b"GET / HTTP/1.1\r\n" + UPGRADE.partition(b"Sec-WebSocket-Key")[0] + b"\r\n", 400),
    "forbidden origin": (b"GET / HTTP/1.1\r\nOrigin: https://evil.example\r\n" + UPGRADE + b"\r\n", 403),
    "bad token": (b"GET / HTTP/1.1\r\nAuthorization: Bearer x\r\n" + UPGRADE + b"\r\n", 401),
    "another path": (b"GET /other HTTP/1.1\r\n" + UPGRADE + b"\r\n", 404),
}


@pytest.mark.parametrize(("request_bytes", "expected"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused_is_answered_and_counted(server: RealtimeServer, request_bytes: bytes, expected: int) -> None:
    answer = await ask(server, request_bytes)
    assert status(answer) == expected and answer.count(b"HTTP/1.1 4") == 1
    assert server.metrics.handshakes_refused == {expected: 1}


async def test_what_is_just_allowed(server: RealtimeServer) -> None:
    for request in (
        b"GET /health?" + b"x" * 8000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"X: y\r\n" * 62 + b"\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
    ):
        assert status(await ask(server, request)) == 200


async def test_a_head_that_does_not_come_to_an_end() -> None:
    async with serve(limits={"handshake_seconds": 0.05}) as server:
        assert status(await ask(server, b"GET / HTTP/1.1\r\nHost: a\r\n")) == 408
        assert await ask(server, b"") == b"", "who says nothing gets nothing"
        assert status(await ask(server, b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n", until=b"connected")) == 101


async def test_bytes_one_by_one(server: RealtimeServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        for byte in b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert status(await reader.readuntil(b"connected")) == 101
    finally:
        writer.transport.abort()


async def test_several_requests_on_one_connection_and_then_an_upgrade(server: RealtimeServer) -> None:
    plain = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(5):
            for _ in range(2):
                writer.write(plain)
                answer = await reader.readuntil(b'{"status":"ok"}')
                assert status(answer) == 200
            writer.write(b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"\r\n")
            assert status(await reader.readuntil(b"connected")) == 101
    finally:
        writer.transport.abort()


def test_the_answer_of_a_refusal() -> None:
    answer = refusal_response(Refusal(429, "rate_limited", "Slow down.", (("Retry-After", "2"),)))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n") and b"Retry-After: 2" in head and b"Connection: close" in head
    assert body == b'{"code":"rate_limited","message":"Slow down.","retryable":true}' and f"Content-Length: {len(body)}".encode() in head
