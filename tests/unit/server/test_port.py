"""Listening: which port, a taken one, the app beside it, and the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeServer

KEY: dict[str, Any] = {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}


def make(**options: Any) -> RealtimeServer:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "authentication": KEY, "persistence": {"database": {"url": "memory://"}}} | options
    return RealtimeServer(**given)


async def fetch(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.transport.abort()


async def test_a_free_port_is_found_and_given_back() -> None:
    async with make() as server:
        port = server.port
        assert port > 0 and server.url == f"ws://127.0.0.1:{port}"
        answer = await fetch(port, "/ready")
        assert answer.startswith(b"HTTP/1.1 200") and b"\r\ndate: " in answer and b"\r\nserver: " not in answer.lower()
    with pytest.raises(OSError):
        await fetch(port, "/ready")


async def test_a_taken_port_is_told_and_the_server_can_start_elsewhere() -> None:
    async with make() as first:
        second = make(port=first.port)
        with pytest.raises(ConfigurationError, match=f"^port: 127.0.0.1:{first.port} cannot be listened on"):
            await second.start()
        assert not second.is_running
        second.listen_on(port=0)
        async with second:
            assert second.port != first.port


async def test_an_app_on_the_same_port_with_its_life_cycle() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                told.append(message["type"])
                await send({"type": "lifespan.startup.complete"})
            told.append("lifespan.shutdown")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"from the app"})

    server = make()
    server.host_app(app, "/realtime")
    async with server:
        assert b"from the app" in await fetch(server.port, "/anything")
        with pytest.raises(ConfigurationError, match="before start"):
            server.host_app(app, "/")
    assert told == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    server = make()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5):
        await server.stop(drain=0)
        assert await reader.read() == b""
    writer.transport.abort()
