"""Mounted in somebody else's app."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aibos_realtime import RealtimeServer

KEY: dict[str, Any] = {"authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, "persistence": {"database": {"url": "memory://"}}}
SCOPE: dict[str, Any] = {"type": "websocket", "path": "/realtime/ws", "root_path": "/realtime", "query_string": b"", "client": ("192.0.2.1", 5)}


class Call:
    """One call of the app, driven by hand."""

    def __init__(self, server: RealtimeServer, *headers: tuple[bytes, bytes], **scope: Any) -> None:
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Any] = asyncio.Queue()
        full = SCOPE | {"headers": [(b"host", b"a.example"), *headers], "scheme": "ws"} | scope
        self.task = asyncio.ensure_future(server.asgi()(full, self.incoming.get, self.outgoing.put))

    def give(self, type: str, **more: Any) -> None:
        self.incoming.put_nowait({"type": type} | more)

    async def take(self) -> Any:
        return await asyncio.wait_for(self.outgoing.get(), 5)


async def test_a_conversation() -> None:
    server = RealtimeServer(**KEY)
    token = server.auth.issue(user_id="ann", tenant_id="t1")
    call = Call(server, (b"sec-websocket-protocol", f"aibos.realtime.v1, bearer.{token}".encode()))
    call.give("websocket.connect")
    assert await call.take() == {"type": "websocket.accept", "subprotocol": "aibos.realtime.v1"}
    assert json.loads((await call.take())["text"])["data"]["user"]["id"] == "ann" and server.is_running
    call.give("websocket.receive", text='{"event":"join-room","data":"tenant_t1","ref":1}')
    assert json.loads((await call.take())["text"])["event"] == "joined-room"
    call.give("websocket.disconnect", code=1001)
    await asyncio.wait_for(call.task, 5)
    assert len(server.pool) == 0 and server.rooms.get("tenant_t1") is not None
    await server.stop(drain=0)


@pytest.mark.parametrize("can_say", [True, False])
async def test_refusals(can_say: bool) -> None:
    server = RealtimeServer(**KEY)
    extensions: dict[str, Any] = {"websocket.http.response": {}} if can_say else {}
    call = Call(server, (b"authorization", b"Bearer nonsense"), extensions=extensions)
    call.give("websocket.connect")
    first = await call.take()
    await call.task
    if can_say:
        assert (first["type"], first["status"]) == ("websocket.http.response.start", 401)
        assert json.loads((await call.take())["body"])["code"] == "not_authenticated"
    else:
        assert first == {"type": "websocket.close", "code": 1008, "reason": "not_authenticated"}
    await server.stop(drain=0)


async def test_its_life_and_its_http_side() -> None:
    server = RealtimeServer(**KEY)
    life = Call(server, type="lifespan")
    life.give("lifespan.startup")
    assert (await life.take())["type"] == "lifespan.startup.complete"
    assert server._status() == (True, "ok")
    http = Call(server, type="http", method="GET", path="/realtime/ready", scheme="http")
    assert (await http.take())["status"] == 200
    await http.task
    life.give("lifespan.shutdown")
    assert (await life.take())["type"] == "lifespan.shutdown.complete"
    assert server._status() == (False, "stopped")
    await life.task


async def test_no_subprotocol_is_chosen_where_none_was_offered() -> None:
    server = RealtimeServer(**KEY)
    call = Call(server)
    call.give("websocket.connect")
    assert (await call.take())["subprotocol"] is None
    call.give("websocket.disconnect")
    await call.task
    await server.stop(drain=0)
