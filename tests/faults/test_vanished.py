"""Who is gone without a word is given up after the time of the heartbeats: his place in the room, his connection and his descriptor are free."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack

import pytest

from aibos_realtime import RealtimeClient, RealtimeServer
from tests.faults.clients import pause
from tests.faults.vanished import ADDRESS, ROOM, cable, has_cables, victim

INTERVAL, TIMEOUT = 0.5, 1.0
LIMIT = 3.5
"""Seconds beyond the time-out: a look every second at each connection, two for an answer to the close, and the rest."""
SLACK = 2.0
LATE = 0.5
"""Seconds that an event to the others may take meanwhile."""


async def until_free(server: RealtimeServer, connections: int) -> None:
    async with asyncio.timeout(TIMEOUT + LIMIT * SLACK):
        while len(server.pool) > connections:
            await asyncio.to_thread(os.sched_yield)


HOWS = ["it stands still", *(["its cable is pulled"] if has_cables() else [])]
"""The second needs root and iproute2; the first is the same to the server, but for the kernel that goes on acknowledging."""


@pytest.mark.parametrize("how", HOWS)
async def test_a_client_that_is_gone_without_a_word_is_given_up(how: str) -> None:
    with ExitStack() as stack:
        namespace = stack.enter_context(cable()) if how == "its cable is pulled" else None
        host = ADDRESS if namespace is not None else "127.0.0.1"
        server = RealtimeServer(
            host=host, port=0, authentication={"jwt_secret": "a secret of this test alone, of 32 bytes or more"},
            authorization={"permissions": {"*": ["read", "write"]}}, persistence={"database": {"url": "memory://"}},
            connections={"heartbeat_interval": INTERVAL, "heartbeat_timeout": TIMEOUT},
        )  # fmt: skip
        async with server, RealtimeClient(server.url, token=server.auth.issue(user_id="ann")) as ann:
            left: asyncio.Queue[object] = asyncio.Queue()
            heard: asyncio.Queue[object] = asyncio.Queue()
            ann.on("user.left", left.put_nowait)
            ann.on("note", heard.put_nowait)
            await ann.join_room(ROOM, presence=True)
            descriptors = len(os.listdir("/proc/self/fd"))
            one = stack.enter_context(victim(server.url, server.auth.issue(user_id="bob"), namespace))
            await one.until_joined()
            assert len(server.pool) == 2
            one.vanish()
            began = time.monotonic()
            async with asyncio.timeout(TIMEOUT + LIMIT * SLACK):
                while left.empty():
                    sent = time.monotonic()
                    await server.broadcaster.broadcast_to_room(ROOM, "note", 1)
                    await heard.get()
                    assert time.monotonic() - sent < LATE * SLACK, "he who is gone holds up the others"
                    await pause(0.05)
            took = time.monotonic() - began
            assert took <= TIMEOUT + LIMIT * SLACK
            print(f"{how}: given up after {took:.2f} s")
            await until_free(server, 1)
            assert server.metrics.close_codes[4012] == 1
            one.process.kill()
            one.process.wait()
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 1, "his descriptor is not free"  # the pipe from the victim's process
            await asyncio.sleep(0)
            assert left.qsize() == 1
