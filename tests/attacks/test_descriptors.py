"""A server whose file descriptors run out, and connections that come and go by the thousand: who is in stays well, and nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.attacks.arena import Arena, Field
from tests.attacks.idle import cpu_seconds, hold
from tests.network.raw import echoes, request

FILES = 256
PATIENCE = 10.0
RESET = struct.pack("ii", 1, 0)
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@asynccontextmanager
async def crowd(field: Field, count: int, first: bytes = b"") -> AsyncIterator[list[socket.socket]]:
    """So many connections of a stranger, which say `first` and nothing more. They are in a backlog at the latest when this begins."""
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", field.port))
            one.setblocking(False)
            found.append(one)
            if first:
                one.send(first)
        yield found
    finally:
        for one in found:
            one.close()


async def share_of_core(field: Field, seconds: float) -> float:
    """What the server takes of a core."""
    before, begin = cpu_seconds(field), time.perf_counter()
    await pause(seconds)
    return (cpu_seconds(field) - before) / (time.perf_counter() - begin)


async def until_healthy(field: Field, tries: int = 20) -> int:
    """Ask for /health until it is answered; returns how often that was not so."""
    for failed in range(tries):
        try:
            assert await field.server.ask("/health") == 200
        except (OSError, IndexError):  # the connection was reset, or ended without an answer
            await pause()
        else:
            return failed
    raise AssertionError(f"/health was not answered {tries} times")


@LOOPS
@pytest.mark.parametrize("first", [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["silent", "half a request", "idle"])
async def test_more_connections_than_descriptors(arena: Arena, loop: str, first: bytes) -> None:
    """A stranger with 400 connections that asked for nothing took all 256 descriptors for ten seconds: nobody else got in, /health stayed without an
    answer, and on the standard library's loop the log got thousands of traces a second.
    """
    name = f"400 connections, 256 descriptors, {loop}, {len(first)} bytes"
    async with arena(name, attackers=400, loop=loop, files=FILES) as field:
        async with crowd(field, 400, first):
            field.figures["failed at first"] = await until_healthy(field)
            field.figures["core while full"] = share = round(await share_of_core(field, 1.0), 2)
            assert share < 0.3
            assert field.descriptors() < FILES
            async with field.member("user", "tenant_1") as member:
                await echoes(member)
            assert await until_healthy(field) == 0
        await field.until(lambda figures: figures["connections"] == 1)
    assert len(field.process.lines) < 60, field.process.lines


@LOOPS
async def test_as_many_members_as_there_are_descriptors_for(arena: Arena, loop: str) -> None:
    """A server took WebSockets up to `max_connections` = 1000, and with 256 descriptors could not answer /health or open a file after the 240th."""
    async with arena(f"300 WebSockets, 256 descriptors, {loop}", attackers=300, loop=loop, files=FILES) as field:
        assert any("206 connections are taken at most" in line for line in field.process.lines)
        with ExitStack() as stack:
            statuses = await asyncio.to_thread(lambda: [handshake(field.port, stack) for _ in range(300)])
            assert statuses == [101] * 205 + [503] * 95, "the canary has the 206th"
            assert await until_healthy(field) == 0 and field.descriptors() < FILES
        await field.until(lambda figures: figures["connections"] == 1)
        async with field.member("user") as member:
            await echoes(member)


@LOOPS
async def test_more_tls_handshakes_than_descriptors(arena: Arena, loop: str) -> None:
    """Whoever connected over TLS and said nothing kept his descriptor for 60 seconds, six times as long as `limits.handshake_seconds` tells."""
    name = f"400 silent connections over TLS, 256 descriptors, {loop}"
    async with arena(name, attackers=400, loop=loop, files=FILES, tls=True, limits={"handshake_seconds": 1.0}) as field:
        async with crowd(field, 400):
            assert await share_of_core(field, 0.5) < 0.3
            async with asyncio.timeout(PATIENCE):  # the first ones had their second, and others have their place
                while not await is_let_in(field):
                    await pause()


@pytest.mark.parametrize(("loop", "first"), [("asyncio", b""), ("uvloop", request())], ids=["at once", "in the handshake"])
async def test_connections_that_are_reset_by_the_thousand(arena: Arena, loop: str, first: bytes) -> None:
    async with arena(f"1,500 connections reset, {loop}, {len(first)} bytes", attackers=1500, loop=loop) as field:
        begin = time.perf_counter()
        await asyncio.to_thread(reset_many, field.port, 1500, first)
        field.figures["a second"] = round(1500 / (time.perf_counter() - begin))
        async with field.member("user") as member:
            await echoes(member)
        await field.until(lambda figures: figures["connections"] == 1)
        assert len(field.process.lines) < 100


def handshake(port: int, stack: ExitStack) -> int:
    """The status that a handshake gets. The connection ends with the stack."""
    one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
    one.sendall(request())
    return int(one.recv(4096)[9:12])


async def is_let_in(field: Field) -> bool:
    """Whether a new member is answered."""
    try:
        async with field.member("user") as member:
            await echoes(member)
    except (OSError, EOFError):
        return False
    return True


async def pause(seconds: float = 0.1) -> None:
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=seconds)


def reset_many(port: int, count: int, first: bytes) -> None:
    """Connect, say `first`, and reset, one after the other, a thousand in a second."""
    pace, begin = threading.Event(), time.perf_counter()
    for number in range(count):
        pace.wait(max(0.0, begin + number / 1000 - time.perf_counter()))
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.send(first)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def test_silent_clients_are_pinged_and_none_is_dropped(arena: Arena) -> None:
    """The long form: `python -m tests.attacks.idle`."""
    options: dict[str, Any] = {"connections": {"max_connections": 1000}, "heartbeat": {"interval": 1.0, "timeout": 3.0}}
    async with arena("500 clients that say nothing but pongs", attackers=500, **options) as field:
        found = await hold(field, 500, 4.0)
        field.figures |= {"bytes each": found.bytes_each, "core": found.core, "pings": found.pings}
        assert found.dropped == 0 and found.pings >= 500
        assert found.bytes_each < 20_000
