"""The server's life, and what an operator does with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeServer
from aibos_realtime.testing.server import memory_server

KEY: dict[str, Any] = {"authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, "persistence": {"database": {"url": "memory://"}}}


def make(**options: Any) -> RealtimeServer:
    return RealtimeServer(**KEY | {"host": "127.0.0.1", "port": 0} | options)


def test_construction_opens_nothing_and_needs_no_loop() -> None:
    server = make()
    assert not server.is_running and server.port == 0
    assert make(host="0.0.0.0", port=3001).url == "ws://localhost:3001" and make(host="::1", port=3001).url == "ws://[::1]:3001"


async def test_starting_and_stopping_twice_and_again() -> None:
    server = make()
    for _ in range(2):
        await server.start()
        await server.start()
        assert server.is_running
        await asyncio.gather(server.stop(drain=0), server.stop(drain=0))
        await server.stop()
        assert not server.is_running


async def test_serving_until_it_is_stopped_or_cancelled() -> None:
    server = make()
    serving = asyncio.create_task(server.serve_forever())
    async with asyncio.timeout(5):
        while not server.port:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await server.stop(drain=0)
        await serving
    serving = asyncio.create_task(server.serve_forever())
    async with asyncio.timeout(5):
        while not server.port:  # noqa: ASYNC110
            await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert server._status() == (False, "stopped")


async def test_disconnecting_people() -> None:
    async with memory_server() as net:
        ann, again, bob = await net.connect("ann"), await net.connect("ann"), await net.connect("bob")
        assert await net.server.disconnect(user_id="ann") == 2 and await net.server.disconnect(user_id="ann", code=4000) == 2
        assert [await ann.closed(), await again.closed()] == [4503, 4503] and bob.socket.is_open
        assert await net.server.disconnect(socket_id=bob.socket.id, code=4000) == 1 and await bob.closed() == 4000
        assert await net.server.disconnect(socket_id="nobody") == 0
        mistakes: list[dict[str, Any]] = [{}, {"user_id": "a", "socket_id": "b"}]
        for wrong in mistakes:
            with pytest.raises(ConfigurationError, match="exactly one"):
                await net.server.disconnect(**wrong)


async def test_revoking_ends_connections() -> None:
    async with memory_server(**KEY) as net:
        auth = net.server.auth
        ann, one, other, bob = await net.connect("ann"), await net.connect(), await net.connect(), await net.connect("bob")
        await one.request("authenticate", auth.issue(user_id="zoe", token_id="t1"))
        await other.request("authenticate", auth.issue(user_id="zoe", token_id="t2"))
        await auth.revoke(token_id="t1")
        assert await one.closed() == 4503 and other.socket.is_open
        await auth.revoke(user_id="ann")
        assert await ann.closed() == 4503 and bob.socket.is_open


async def test_a_role_changes_for_the_live_connections() -> None:
    async with memory_server() as net:
        ann, again = await net.connect("ann"), await net.connect("ann", role="admin")
        assert await net.server.set_role("ann", "admin") == 2
        assert {client.socket.user.role for client in (ann, again) if client.socket.user} == {"admin"}
        assert await net.server.set_role("nobody", "admin") == 0


async def test_names_of_events_once() -> None:
    server = make()
    server.event("note")(lambda socket, data: None)
    with pytest.raises(ConfigurationError, match="already"):
        server.event("note")(lambda socket, data: None)
    with pytest.raises(ConfigurationError):
        server.on("conection")


async def test_within_the_life_of_another_app() -> None:
    server = make()
    async with server.lifespan(None):
        assert server.is_running and server.port == 0
    assert not server.is_running
