"""Peers for attacks by many, and by much: what they do takes the test process as little time as can be."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from tests.network.raw import Raw

NO_PACE = {"messages_per_second": None, "publishes_per_second": None, "control_frames_per_second": None}
LONG = "ATTACKS_LONG" in os.environ
"""Whether attacks are made in full size, and limits of time are the default ones: `ATTACKS_LONG=1 make test ARGS=tests/attacks`."""
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def flood(attacker: Raw, data: bytes, limit: int) -> int:
    """Send over and over, `limit` bytes in all, until the other side ends the connection; returns how many were taken."""
    sent = 0
    try:
        while sent < limit:
            attacker.write(data)
            await attacker.writer.drain()
            sent += len(data)
    except (OSError, RuntimeError):  # the loop's own error for a transport that is closed
        pass
    return sent


async def close_code(attacker: Raw) -> int | None:
    """The code of the server's close frame; None where a reset ate it, since the attacker went on sending."""
    try:
        return await attacker.close_code()
    except (OSError, asyncio.IncompleteReadError):
        return None


async def pause(seconds: float) -> None:
    """Keep to a pace."""
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=max(0.0, seconds))


@contextmanager
def crowd(port: int, count: int, first: bytes = b"", *, receive_bytes: int | None = None) -> Iterator[list[socket.socket]]:
    """So many TCP connections, from several addresses, each of which has said this. They block no more than 5 s."""
    members: list[socket.socket] = []
    try:
        for number in range(count):
            member = socket.socket()
            members.append(member)
            if receive_bytes is not None:
                member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            member.settimeout(5)
            member.bind((f"127.0.0.{2 + number % 50}", 0))
            member.connect(("127.0.0.1", port))
            if first:
                member.sendall(first)
        yield members
    finally:
        for member in members:
            member.close()


async def ended(members: Sequence[socket.socket], timeout: float) -> list[bytes]:
    """What each was told until its end. Raises `TimeoutError` where one is not ended."""
    loop = asyncio.get_running_loop()

    async def read(member: socket.socket) -> bytes:
        told = b""
        try:
            while chunk := await loop.sock_recv(member, 65536):
                told = (told + chunk)[-4096:]
        except OSError:
            pass
        return told

    for member in members:
        member.setblocking(False)
    async with asyncio.timeout(timeout):
        return await asyncio.gather(*(read(member) for member in members))


@asynccontextmanager
async def at_most(seconds: float) -> AsyncIterator[None]:
    """Fail where the block takes longer."""
    begin = time.perf_counter()
    yield
    took = time.perf_counter() - begin
    assert took <= seconds, f"it took {took:.2f} s"
