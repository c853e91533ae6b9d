"""The probe, against servers that answer, refuse, hang, and talk nonsense."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from aibos_realtime.cluster.instances import Instance
from aibos_realtime.cluster.probe import is_ready

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def serve(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads a request's head and says each of `answers`; None: it says nothing. Yields its port and what it was asked."""
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            for answer in answers:
                if answer is None:
                    await reader.read()
                else:
                    writer.write(answer)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await server.wait_closed()


async def test_it_asks_for_ready_and_believes_200() -> None:
    async with serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, asked):
        assert await is_ready(Instance(f"ws://127.0.0.1:{port}/realtime/ws"), timeout=2)
        assert asked[0].startswith(b"GET /realtime/ready HTTP/1.1\r\n") and f"Host: 127.0.0.1:{port}\r\n".encode() in asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x 200 \r\n",
        b"\xff" * 5000,
        b"x" * 5000 + b"\r\n",
        b"HTTP/1.1 200",
        b"",
    ],
)
async def test_anything_else_is_a_no(answer: bytes) -> None:
    async with serve(answer) as (port, _):
        assert not await is_ready(Instance(f"ws://127.0.0.1:{port}"), timeout=2)


async def test_one_that_says_nothing_costs_the_time_out_and_no_more() -> None:
    async with serve(None) as (port, asked):
        began = asyncio.get_running_loop().time()
        assert not await is_ready(Instance(f"ws://127.0.0.1:{port}"), timeout=0.05)
        assert asyncio.get_running_loop().time() - began < 2 and asked


async def test_one_that_drips_is_a_no() -> None:
    async with serve(b"HTTP", None) as (port, _):
        assert not await is_ready(Instance(f"ws://127.0.0.1:{port}"), timeout=0.05)


async def test_nobody_there() -> None:
    async with serve() as (port, _):
        pass
    assert not await is_ready(Instance(f"ws://127.0.0.1:{port}"), timeout=2)
    assert not await is_ready(Instance(f"ws://{'a' * 64}.invalid:1"), timeout=2), "a name that no look-up takes"


async def test_cancelling_closes_the_connection() -> None:
    async with serve(None) as (port, asked):
        task = asyncio.create_task(is_ready(Instance(f"ws://127.0.0.1:{port}"), timeout=10))
        async with asyncio.timeout(5):
            while not asked:  # noqa: ASYNC110
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_wss_is_asked_over_tls_with_the_trust_that_is_given() -> None:
    authority = trustme.CA()
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(inside)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with serve(b"HTTP/1.1 200 OK\r\n\r\n", tls=inside) as (port, _):
        instance = Instance(f"wss://127.0.0.1:{port}")
        assert await is_ready(instance, timeout=5, tls=trust)
        assert not await is_ready(instance, timeout=5), "a certificate that nobody vouches for"
