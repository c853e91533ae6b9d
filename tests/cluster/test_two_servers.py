"""Two servers are one system to their clients: events, presence, kicks and revocations go from one to the other, over every kind of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from aibos_realtime import Event, RealtimeClient, RealtimeServer
from tests.cluster.two_servers import two_servers

Pair = tuple[RealtimeServer, RealtimeServer]


@pytest.fixture
async def servers(redis_url_any: str, redis_prefix: str) -> AsyncIterator[Pair]:
    async with two_servers(redis_url_any, redis_prefix) as both:
        yield both


class Clients:
    """Clients of users, each on one of the servers."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def connect(self, server: RealtimeServer, user: str, *rooms: str) -> tuple[RealtimeClient, asyncio.Queue[Event]]:
        client = RealtimeClient(server.url, token=server.auth.issue(user_id=user, tenant_id="1"))
        heard: asyncio.Queue[Event] = asyncio.Queue()
        client.on("note", lambda data, event: heard.put_nowait(event))
        await client.connect()
        self._stack.push_async_callback(client.close)
        for room in rooms:
            await client.join_room(room)
        return client, heard

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


async def test_events_go_from_one_to_the_other_in_order(servers: Pair, clients: Clients) -> None:
    one, two = servers
    ann, heard_by_ann = await clients.connect(one, "ann", "lobby")
    bob, heard_by_bob = await clients.connect(two, "bob", "lobby")
    for number in range(1, 11):
        await (ann if number % 2 else bob).send_message("note", number, room="lobby")
    for heard in (heard_by_ann, heard_by_bob):
        events = [await asyncio.wait_for(heard.get(), 5) for _ in range(10)]
        assert [(event.offset, event.data) for event in events] == [(number, number) for number in range(1, 11)]
    await two.broadcaster.broadcast_to_user("ann", "note", "yours")
    await one.broadcaster.broadcast_to_all("note", "everybody's")
    assert {(await asyncio.wait_for(heard_by_ann.get(), 5)).data for _ in range(2)} == {"yours", "everybody's"}
    assert (await asyncio.wait_for(heard_by_bob.get(), 5)).data == "everybody's"


async def test_presence_and_rooms_are_those_of_both(servers: Pair, clients: Clients) -> None:
    one, two = servers
    await clients.connect(one, "ann", "lobby")
    bob, _ = await clients.connect(two, "bob", "lobby")
    assert [member.user_id for member in await bob.presence("lobby")] == ["ann", "bob"]
    info = await one.rooms.get_room_info("lobby")
    assert (info.user_count, info.connection_count) == (2, 2)
    await bob.leave_room("lobby")
    assert [member.user_id for member in await two.rooms.get_room_users("lobby")] == ["ann"]


async def test_nothing_reaches_who_was_kicked_from_the_other_server(servers: Pair, clients: Clients) -> None:
    one, two = servers
    _, heard = await clients.connect(two, "bob", "lobby")
    await one.broadcaster.broadcast_to_room("lobby", "note", "before")
    assert (await asyncio.wait_for(heard.get(), 5)).data == "before"
    await one.rooms.kick("lobby", "bob")
    await one.broadcaster.broadcast_to_room("lobby", "note", "after")
    await one.broadcaster.broadcast_to_user("bob", "note", "last")
    assert (await asyncio.wait_for(heard.get(), 5)).data == "last"


async def test_disconnecting_and_revoking_on_the_other_server(servers: Pair, clients: Clients) -> None:
    one, two = servers
    bob, _ = await clients.connect(two, "bob", "lobby")
    ended = asyncio.Event()
    bob.on("error", lambda error: ended.set())
    await one.auth.revoke(user_id="bob")
    await asyncio.wait_for(ended.wait(), 5)
    assert two.pool.get_user_connections("bob") == [] and await one.rooms.get_room_users("lobby") == []
    await clients.connect(two, "eve", "lobby")
    assert await one.disconnect(user_id="eve") == 1


async def test_a_server_that_stops_takes_its_users_with_it(redis_url_any: str, redis_prefix: str, clients: Clients) -> None:
    async with two_servers(redis_url_any, redis_prefix) as (one, two):
        await clients.connect(one, "ann", "lobby")
        bob, _ = await clients.connect(two, "bob", "lobby")
        await bob.close()
        await two.stop(drain=0)
        assert [member.user_id for member in await one.rooms.get_room_users("lobby")] == ["ann"]
        assert await one.rooms.get_room_info("lobby")
