"""The harness that ships: a server in memory, and clients by hand."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime import ConnectionClosed, PermissionDenied, RealtimeServer, Socket
from aibos_realtime.testing.server import memory_server

OPEN = {"authorization": {"permissions": {"*": ["read", "write"]}}}


async def test_two_clients_and_a_room() -> None:
    async with memory_server(**OPEN) as net:
        ann, bob = await net.connect("ann"), await net.connect("bob", codec="msgpack")
        assert ann.connected["user"] == {"id": "ann", "role": "user", "tenantId": None}
        await bob.request("join-room", "lobby")
        receipt = await ann.request("invoice.created", {"amount": 5}, room="lobby")
        event = await bob.receive("invoice.created")
        assert (event["data"], event["userId"], event["offset"]) == ({"amount": 5}, "ann", receipt["offset"])
        assert await ann.take_all() == [] and await bob.take_all() == []


async def test_who_somebody_is() -> None:
    async with memory_server(**OPEN) as net:
        client = await net.connect("ann", role="admin", tenant_id="t1", claims={"plan": "pro"}, address="192.0.2.7")
        user = client.socket.user
        assert user is not None
        assert (user.role, user.tenant_id, user.claims, client.socket.remote_address) == ("admin", "t1", {"plan": "pro"}, "192.0.2.7")
        nobody = await net.connect()
        assert nobody.connected["user"] is None and nobody.socket.user is None


async def test_errors_come_as_errors_and_what_came_before_is_kept() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        client.socket.emit("notice", 1)
        with pytest.raises(PermissionDenied) as caught:
            await client.request("join-room", "lobby")
        assert (caught.value.resource, caught.value.action) == ("lobby", "read")
        assert (await client.receive())["event"] == "notice"
        with pytest.raises(TimeoutError):
            await client.receive(timeout=0.01)


async def test_a_server_of_ones_own_with_its_handlers() -> None:
    server = RealtimeServer(authentication={"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, persistence={"database": {"url": "memory://"}})

    @server.event("double")
    async def double(socket: Socket, data: Any) -> Any:
        return 2 * await socket.call("what", None)

    async with memory_server(server) as net:
        assert net.server is server and server.is_running
        client = await net.connect("ann")
        client.send("double", ref=1)
        client.answer(await client.receive("what"), 21)
        assert (await client.receive("ack"))["data"] == 42
    assert not server.is_running


async def test_ends() -> None:
    async with memory_server() as net:
        first, second, third = [await net.connect("ann") for _ in range(3)]
        first.close()
        second.cut()
        third.socket.disconnect(4503, "go")
        assert [await client.closed() for client in (first, second, third)] == [1000, 1006, 4503]
        with pytest.raises(ConnectionClosed):
            first.send("x")
        fourth = await net.connect("ann")
        assert len(net.server.pool) == 1
    assert await fourth.closed() == 4001
    assert [message["event"] for message in await fourth.take_all()] == ["reconnect"]


async def test_who_is_not_let_in() -> None:
    async with memory_server(limits={"connections_per_user": 1}) as net:
        await net.connect("ann")
        with pytest.raises(ConnectionClosed) as caught:
            await net.connect("ann")
        assert caught.value.close_code == 4504
        late = await net.connect("bob", wait=False)
        assert (await late.receive())["event"] == "connected"
