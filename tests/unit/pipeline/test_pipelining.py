"""Publishes of one connection follow one another without waiting for their receipts; what is answered keeps the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import RealtimeServer, Socket
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server
from aibos_realtime.testing.store import MemoryStore

OPTIONS: dict[str, Any] = {
    "authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3},
    "authorization": {"permissions": {"lobby": ["read", "write"], "hall": ["read", "write"]}},
}
LIMITS: dict[str, Any] = {"messages_per_second": None, "publishes_per_second": None}


class Slow:
    """A server whose store takes nothing until its gate is opened."""

    def __init__(self, **options: Any) -> None:
        self.store = MemoryStore()
        self.store.gate.clear()
        self.handled: list[Any] = []
        self.server = RealtimeServer(broker=StoredBroker(self.store), **OPTIONS | options)

        @self.server.event("count")
        async def count(socket: Socket, data: Any) -> Any:
            self.handled.append(data)
            await asyncio.sleep(0)
            return data


@pytest.fixture
async def slow() -> Slow:
    return Slow(limits=LIMITS)


@pytest.fixture
async def net(slow: Slow) -> AsyncIterator[MemoryServer]:
    async with memory_server(slow.server) as net:
        yield net
        slow.store.gate.set()


async def answers(client: MemoryClient, count: int) -> list[tuple[str, Any]]:
    """The next messages with a `ref`: (event, ref)."""
    found: list[tuple[str, Any]] = []
    while len(found) < count:
        message = await client.receive()
        if "ref" in message:
            found.append((message["event"], message["ref"]))
    return found


async def test_publishes_do_not_wait_for_one_another(slow: Slow, net: MemoryServer) -> None:
    client = await net.connect("ann")
    for number in range(1, 65):
        client.send("note", number, room="lobby", ref=number)
    await settle()
    assert await client.take_all() == [] and slow.store.batches == []
    slow.store.gate.set()
    assert await answers(client, 64) == [("ack", number) for number in range(1, 65)]
    assert max(slow.store.batches) >= 63, "they were stored together"
    assert [row.data for row in slow.store.rows] == [b"%d" % number for number in range(1, 65)]


async def test_whatever_else_is_asked_waits_for_the_publishes_before_it(slow: Slow, net: MemoryServer) -> None:
    client = await net.connect("ann")
    client.send("note", 1, room="lobby", ref=1)
    client.send("count", "handler", ref=2)
    client.send("note", 2, room="lobby", ref=3)
    client.send("join-room", "hall", ref=4)
    client.send("count", "again", ref=5)
    client.send("note", 3, room="lobby", ref=6)
    client.send("ping", ref=7)
    await settle()
    assert await answers(client, 1) == [("pong", 7)], "a ping passes by"
    assert slow.handled == []
    slow.store.gate.set()
    found = await answers(client, 6)
    assert found == [("ack", 1), ("ack", 2), ("ack", 3), ("joined-room", 4), ("ack", 5), ("ack", 6)]
    assert slow.handled == ["handler", "again"]


async def test_refusals_keep_the_order_too(slow: Slow, net: MemoryServer) -> None:
    slow.store.poisoned = {"bad"}
    client = await net.connect("ann")
    client.send("note", 1, room="lobby", ref=1)
    client.send("note", 1, room="secret", ref=2)
    client.send("note", 1, room="lobby", ref=3, id="bad")
    client.send("note", 1, room="lobby", ref=4)
    await settle()
    assert await client.take_all() == []
    slow.store.gate.set()
    assert await answers(client, 4) == [("ack", 1), ("permission_denied", 2), ("error", 3), ("ack", 4)]


async def test_publishes_without_a_ref_are_not_acknowledged(slow: Slow, net: MemoryServer) -> None:
    client = await net.connect("ann")
    client.send("note", 1, room="lobby")
    client.send("note", 2, room="lobby", ref=2)
    client.send("note", 3, room="secret")
    slow.store.gate.set()
    first = await client.receive()
    second = await client.receive()
    assert (first["event"], first["ref"]) == ("ack", 2)
    assert second["event"] == "permission_denied" and "ref" not in second


async def test_they_are_not_too_many() -> None:
    slow = Slow(limits=LIMITS | {"requests_waiting": 4})
    async with memory_server(slow.server) as net:
        client = await net.connect("ann")
        for number in range(1, 41):
            client.send("note", number, room="lobby", ref=number)
        await settle()
        assert len(client.socket.publishes or ()) == 4, "the others wait, and then reading stops"
        slow.store.gate.set()
        assert await answers(client, 40) == [("ack", number) for number in range(1, 41)]
        assert client.socket.publishes is None and client.socket.backlog is None


async def test_what_is_refused_for_its_rate_is_refused_at_once_and_piles_up_nowhere() -> None:
    """Sixty thousand refusals of one connection once stood in line behind a publish that the store did not take."""
    slow = Slow(limits={"messages_per_second": 1, "messages_burst": 3, "publishes_per_second": None})
    async with memory_server(slow.server) as net:
        client = await net.connect("ann")
        for number in range(1, 11):
            client.send("note", number, room="lobby", ref=number)
        await settle()
        refused = [(message["ref"], message["data"]["code"]) for message in await client.take_all()]
        assert refused == [(number, "rate_limited") for number in range(4, 11)] and len(client.socket.publishes or ()) == 3
        slow.store.gate.set()
        assert await answers(client, 3) == [("ack", number) for number in range(1, 4)]


async def test_a_client_that_goes_meanwhile_has_published(slow: Slow, net: MemoryServer) -> None:
    gone, stays = await net.connect("ann"), await net.connect("bob")
    gone.send("note", 1, room="lobby", ref=1)
    stays.send("note", 2, room="lobby", ref=1)
    await settle()
    gone.socket.disconnect()
    slow.store.gate.set()
    assert await answers(stays, 1) == [("ack", 1)]
    assert len(slow.store.rows) == 2


async def test_stopping_acknowledges_what_is_on_its_way(slow: Slow) -> None:
    async with memory_server(slow.server) as net:
        client = await net.connect("ann")
        client.send("note", 1, room="lobby", ref=1)
        await settle()
        stopping = asyncio.create_task(slow.server.stop(drain=5))
        assert (await client.receive())["event"] == "reconnect"
        slow.store.gate.set()
        assert await answers(client, 1) == [("ack", 1)]
        await stopping
