"""A process without sockets among the nodes: it publishes, decides filters, kicks, disconnects, revokes, and is no instance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, ConfigurationError, EventBroadcaster, RoomManager, TokenRevoked, User, ValidationError
from aibos_realtime.cluster.cluster import Cluster
from aibos_realtime.testing.clock import settle
from tests.cluster.room_nodes import RoomNode, RoomNodes
from tests.servers.redis import RedisServer, running_redis


@pytest.fixture
async def rig(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[RoomNodes]:
    rig = RoomNodes(redis_server.url, redis_prefix)
    yield rig
    await rig.close()


@pytest.fixture
async def one(rig: RoomNodes) -> RoomNode:
    return await rig.node("one")


@pytest.fixture
async def cluster(rig: RoomNodes, one: RoomNode) -> AsyncIterator[Cluster]:
    async with Cluster(redis={"url": rig.url, "prefix": rig.prefix}, has_store=False, name="worker") as cluster:
        yield cluster


async def test_it_publishes_to_members_of_any_node(cluster: Cluster, rig: RoomNodes, one: RoomNode) -> None:
    two = await rig.node("two")
    ann, bob = await one.join("ann", "a", role="admin"), await two.join("bob", "a")
    broadcaster = EventBroadcaster(broker=cluster.broker, rooms=cluster.rooms)
    receipt = await broadcaster.broadcast_to_room("a", "hello", {"a": 1})
    assert receipt.position is not None and receipt.position.offset == 1
    for client in (ann, bob):
        message = await client.receive("hello")
        assert (message["data"], message["offset"]) == ({"a": 1}, 1)
    await broadcaster.broadcast_to_user("bob", "yours", 1)
    assert (await bob.receive("yours"))["data"] == 1


async def test_filters_are_decided_for_everybody_present(cluster: Cluster, rig: RoomNodes, one: RoomNode) -> None:
    two = await rig.node("two")
    ann, bob = await one.join("ann", "a", role="admin"), await two.join("bob", "a")
    other = await two.connect("eve", role="admin")
    broadcaster = EventBroadcaster(broker=cluster.broker, rooms=cluster.rooms)

    def is_admin(user: User) -> bool:
        return user.role == "admin"

    await broadcaster.broadcast_to_room("a", "for_admins", 1, filter=is_admin)
    await broadcaster.broadcast_to_all("for_all_admins", 1, filter=is_admin)
    await broadcaster.broadcast_to_all("for_all", 1)
    assert [(await ann.receive())["event"] for _ in range(3)] == ["for_admins", "for_all_admins", "for_all"]
    assert [(await other.receive())["event"] for _ in range(2)] == ["for_all_admins", "for_all"]
    assert (await bob.receive())["event"] == "for_all"


async def test_rooms_and_users(cluster: Cluster, one: RoomNode) -> None:
    await cluster.rooms.create_room("a", settings={"max_users": 2})
    ann = await one.join("ann", "a")
    assert [member.user_id for member in await cluster.rooms.get_room_users("a")] == ["ann"]
    assert [info.id for info in (await cluster.rooms.list_rooms())[0]] == ["a"]
    await cluster.rooms.kick("a", "ann")
    assert ann.socket.rooms == frozenset()
    await cluster.rooms.join_room("a", "ann")
    assert ann.socket.rooms == {"a"} and await one.users("a") == ["ann"]
    await cluster.rooms.destroy_room("a")
    assert ann.socket.rooms == frozenset()


async def test_connections_and_tokens(cluster: Cluster, one: RoomNode) -> None:
    ann, bob = await one.connect("ann"), await one.connect("bob")
    assert await cluster.set_role("ann", "admin") == 1 and ann.socket.user is not None and ann.socket.user.role == "admin"
    assert await cluster.disconnect(user_id="ann") == 1 and await ann.closed() == 4503
    token = one.server.auth.issue(user_id="bob", token_id="t1")
    await cluster.revoke(user_id="bob")
    assert await bob.closed() == 4503
    with pytest.raises(TokenRevoked):
        await one.server.auth.identify(token)
    await cluster.revoke(token_id="t2")
    for call in (cluster.revoke(), cluster.revoke(user_id="a", token_id="b"), cluster.disconnect(), cluster.disconnect(user_id="a", socket_id="b")):
        with pytest.raises(ConfigurationError):
            await call
    with pytest.raises(ValidationError):
        await cluster.revoke(user_id="\0")


async def test_it_is_a_node_that_serves_nobody(cluster: Cluster, one: RoomNode) -> None:
    assert [(record.name, record.role) for record in await cluster.nodes()] == [("one", "server"), ("worker", "process")]
    assert await one.nodes.list_instances() == []


async def test_what_it_put_into_a_room_goes_with_it(rig: RoomNodes, one: RoomNode) -> None:
    cluster = Cluster(redis={"url": rig.url, "prefix": rig.prefix}, has_store=False)
    await cluster.start()
    await cluster.start()
    await cluster.rooms.join_room("a", "ann")
    assert await one.users("a") == ["ann"]
    await cluster.stop()
    await cluster.stop()
    assert await one.users("a") == []
    assert [record.name for record in await one.nodes.list()] == ["one"]
    async with cluster:
        await cluster.rooms.join_room("a", "bob")
        async with asyncio.timeout(5):
            while await one.users("a") != ["ann", "bob"]:
                await settle(1)


async def test_a_manager_of_ones_own(rig: RoomNodes, one: RoomNode) -> None:
    rooms = RoomManager(max_users_per_room=7)
    async with Cluster(redis={"url": rig.url, "prefix": rig.prefix}, rooms=rooms, has_store=False) as cluster:
        assert cluster.rooms is rooms
        await rooms.create_room("a")
    assert (await one.rooms.get_room_info("a")).settings.max_users == 7


def test_mistakes_are_named() -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"redis": {"url": "http://x"}}, r"cluster\.redis\.url"),
        ({"redis": {}, "names": "x"}, r"cluster\.names"),
        ({"redis": {}, "rooms": {"max_room": 5}}, r"cluster\.rooms\.max_room"),
    ]
    for wrong, said in mistakes:
        with pytest.raises(ConfigurationError, match=said):
            Cluster(**wrong)


async def test_without_redis_it_says_so() -> None:
    with running_redis() as server:
        url = server.url
    with pytest.raises(BrokerUnavailable):
        await Cluster(redis={"url": url}).start()


async def test_what_it_does_to_people_is_in_its_audit_log(cluster: Cluster, rig: RoomNodes, one: RoomNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aibos_realtime.audit")
    await one.join("ann", "a")
    caplog.clear()
    await cluster.rooms.kick("a", "ann")
    await cluster.set_role("ann", "admin")
    await cluster.revoke(token_id="t-1")
    await cluster.disconnect(user_id="ann")
    noted = [
        (record.getMessage(), vars(record).get("user_id"), vars(record).get("reason"))
        for record in caplog.records
        if vars(record).get("node") == "worker"
    ]
    assert noted == [
        ("kick", "ann", None),
        ("role", "ann", "admin"),
        ("revoke", None, "token t-1"),
        ("disconnect", "ann", "on request, 1 connection"),
    ]
