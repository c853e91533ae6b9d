"""What a node tells of its connections."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct

from aibos_realtime.admin.node import Node
from aibos_realtime.admin.reports import ConnectionReport
from aibos_realtime.admin.requests import ListActs, ListConnections
from aibos_realtime.audit import Audit
from aibos_realtime.backends.bus import LocalBus
from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.testing.server import MemoryServer, memory_server


class Desk:
    """A second `Node` beside a server's own, on a bus of its own."""

    def __init__(self, net: MemoryServer) -> None:
        self.bus = LocalBus()
        self.audit = Audit(SYSTEM_CLOCK)
        Node(name="web-1", pool=net.server.pool, audit=self.audit, figures=None, bus=self.bus, clock=SYSTEM_CLOCK)  # type: ignore[arg-type]

    async def ask(self, request: Struct) -> Any:
        (answer,) = await self.bus.ask(request)
        return answer

    async def users(self, **query: Any) -> list[str | None]:
        return [one["userId"] for one in (await self.ask(ListConnections(**query)))["connections"]]


OPEN = {"permissions": {"*": ["read", "write"]}}


async def test_connections_are_found_by_what_is_known_of_them() -> None:
    async with memory_server(authorization=OPEN) as net:
        desk = Desk(net)
        ann = await net.connect("annabel", tenant_id="Northern", address="192.0.2.7")
        bob = await net.connect("bob")
        nobody = await net.connect(None, wait=False)
        await bob.request("join-room", "lobby")
        assert set(await desk.users()) == {"annabel", "bob", None}
        assert await desk.users(user_id="bob") == ["bob"] and await desk.users(room_id="lobby") == ["bob"] and await desk.users(room_id="none") == []
        for search in ("ANNABE", "norther", "2.0.2.7"):
            assert await desk.users(search=search) == ["annabel"]
        assert await desk.users(search=nobody.socket.id) == [None] and await desk.users(user_id="bob", room_id="other") == []
        assert await desk.users(socket_id=ann.socket.id) == ["annabel"] and await desk.users(socket_id="none") == []
        answer = await desk.ask(ListConnections(limit=1))
        assert (answer["total"], answer["matching"], len(answer["connections"])) == (3, 3, 1)


async def test_the_order_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_server() as net:
        desk = Desk(net)
        clients = {name: await net.connect(name) for name in ("ann", "bob", "carl")}
        for at, client in enumerate(clients.values()):
            client.socket.connected_at = 1000.0 + at
        monkeypatch.setattr(clients["bob"].socket.transport, "buffered", lambda: 500)
        assert await desk.users() == ["carl", "bob", "ann"] and await desk.users(limit=2) == ["carl", "bob"]
        assert (await desk.users(order="outbox"))[0] == "bob"


async def test_what_is_told_of_one() -> None:
    async with memory_server(authorization=OPEN) as net:
        desk = Desk(net)
        ann = await net.connect("ann", codec="msgpack")
        for number in range(25):
            await ann.request("join-room", f"room_{number:02}")
        found = ConnectionReport.model_validate((await desk.ask(ListConnections()))["connections"][0])
        assert (found.room_count, len(found.rooms), found.codec, found.state, found.node) == (25, 20, "msgpack", "open", "web-1")
        assert found.heard_at <= SYSTEM_CLOCK.now() and found.expires_at is not None


async def test_it_answers_itself_as_it_answers_the_others() -> None:
    async with memory_server() as net:
        await net.connect("ann")
        node = Node(name="web-1", pool=net.server.pool, audit=Audit(SYSTEM_CLOCK), figures=None, bus=LocalBus(), clock=SYSTEM_CLOCK)  # type: ignore[arg-type]
        assert node.answer(ListConnections())["connections"][0]["userId"] == "ann" and node.answer(ListActs()) == []


async def test_acts_of_one_connection() -> None:
    async with memory_server() as net:
        desk = Desk(net)
        desk.audit.note("connect", socket_id="s1", user_id="ann")
        desk.audit.note("connect", socket_id="s2", user_id="bob")
        assert [act["socketId"] for act in await desk.ask(ListActs())] == ["s2", "s1"]
        assert [act["node"] for act in await desk.ask(ListActs(socket_id="s1"))] == ["web-1"]
