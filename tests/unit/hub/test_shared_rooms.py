"""Rooms that are one on two nodes over one Redis: joining, limits, presence, and what one node asks of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aibos_realtime import (
    BackendError,
    BrokerUnavailable,
    ConfigurationError,
    ConnectionClosed,
    GuestsNotAllowed,
    NotInRoom,
    ProtocolError,
    RoomFull,
    RoomLimitExceeded,
    RoomManager,
    RoomNotFound,
    TokenRevoked,
    User,
)
from aibos_realtime.backends.directory import PresentUser, RoomDraft
from aibos_realtime.backends.redis.revocations import RedisRevocations
from aibos_realtime.backends.revocations import Revoked
from aibos_realtime.hub.requests import CloseRoom
from aibos_realtime.hub.shared_rooms import SharedRooms
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
async def two(rig: RoomNodes, one: RoomNode) -> RoomNode:
    return await rig.node("two")


# — rooms —


async def test_the_snippets_on_two_nodes(one: RoomNode, two: RoomNode) -> None:
    room = await one.rooms.create_room("tenant_123", name="Tenant 123", type="tenant", settings={"max_users": 50, "allow_guests": False})
    again = await two.rooms.create_room("tenant_123", name="other", settings={"max_users": 9})
    assert (again.id, again.name, again.type, again.settings) == (room.id, room.name, room.type, room.settings)
    await two.rooms.join_room("tenant_123", "user_123")
    assert await one.users("tenant_123") == ["user_123"]
    info = await one.rooms.get_room_info("tenant_123")
    assert (info.id, info.name, info.type, info.user_count, info.connection_count) == ("tenant_123", "Tenant 123", "tenant", 1, 0)
    assert [found.id for found in (await two.rooms.list_rooms(prefix="tenant_"))[0]] == ["tenant_123"]
    await one.rooms.leave_room("tenant_123", "user_123")
    assert await two.users("tenant_123") == []
    await two.rooms.destroy_room("tenant_123")
    assert one.told == [("created", "tenant_123")]
    assert two.told == [("joined", "tenant_123", "user_123"), ("left", "tenant_123", "user_123"), ("destroyed", "tenant_123")]
    for call in (one.rooms.get_room_info, one.rooms.get_room_users, one.rooms.destroy_room):
        with pytest.raises(RoomNotFound):
            await call("tenant_123")


async def test_what_is_not_there(one: RoomNode, two: RoomNode) -> None:
    for call in (one.rooms.leave_room, one.rooms.kick):
        with pytest.raises(RoomNotFound):
            await call("x", "ann")
    await two.rooms.create_room("x")
    with pytest.raises(NotInRoom):
        await one.rooms.kick("x", "ann")
    for name in ("", "a b", "{x}"):
        with pytest.raises(ProtocolError):
            await one.rooms.join_room(name, "ann")
    for name in ("all", "user:ann"):
        with pytest.raises(RoomNotFound):
            await one.rooms.create_room(name)
    with pytest.raises(ConfigurationError):
        await one.rooms.create_room("y", settings={"max_user": 5})


async def test_limits_hold_on_both_nodes_together(rig: RoomNodes) -> None:
    one = await rig.node("one", rooms={"max_rooms": 2, "max_users_per_room": 2})
    two = await rig.node("two", rooms={"max_rooms": 2, "max_users_per_room": 2})
    await one.join("ann", "a")
    second = await two.join("bob", "a")
    with pytest.raises(RoomFull):
        await one.join("eve", "a")
    await two.join("ann", "a")
    await two.join("ann", "b")
    with pytest.raises(RoomLimitExceeded):
        await one.join("ann", "c")
    third = await one.connect("ann")
    with pytest.raises(RoomLimitExceeded):
        await third.request("hello", 1, room="c")
    await second.request("leave-room", "a")
    await two.directory.told("a")
    await one.join("eve", "a")


async def test_the_settings_of_a_room_count_on_every_node(one: RoomNode, two: RoomNode) -> None:
    with pytest.raises(GuestsNotAllowed):
        await one.join("g", "closed", role="guest")
    with pytest.raises(RoomNotFound):
        await two.rooms.get_room_info("closed")
    await one.rooms.create_room("open", settings={"allow_guests": True})
    await two.join("g", "open", role="guest")
    assert await one.users("open") == ["g"]


async def test_the_last_place_goes_to_one(rig: RoomNodes) -> None:
    nodes = [await rig.node(f"node{number}", rooms={"max_users_per_room": 1}) for number in range(3)]
    clients = [await node.connect(f"user_{number}") for number, node in enumerate(nodes)]
    for turn in range(10):
        results = await asyncio.gather(*(client.request("join-room", f"room{turn}") for client in clients), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["RoomFull", "RoomFull", "dict"]


async def test_an_empty_room_goes_after_its_time(rig: RoomNodes) -> None:
    one = await rig.node("one", rooms={"room_timeout": 0.3})
    two = await rig.node("two", rooms={"room_timeout": 0.3})
    client = await one.join("ann", "a")
    assert len(one.rooms) == 1 and len(two.rooms) == 0
    await client.request("leave-room", "a")
    assert len(one.rooms) == 0, "with nobody of a node in it, it is the directory's alone"
    waiting = [asyncio.ensure_future(node.until("destroyed", "a")) for node in (one, two)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    with pytest.raises(RoomNotFound):
        await two.rooms.get_room_info("a")
    assert sum(node.told.count(("destroyed", "a")) for node in (one, two)) == 1


async def test_destroying_ends_it_on_every_node(one: RoomNode, two: RoomNode) -> None:
    ann, bob = await one.join("ann", "a"), await two.join("bob", "a")
    await one.rooms.destroy_room("a")
    for client in (ann, bob):
        assert (await client.receive("room-closed"))["data"] == {"roomId": "a", "reason": "destroyed"} and client.socket.rooms == frozenset()
    assert [what for what in one.told if what[0] == "left"] == [("left", "a", "ann"), ("left", "a", "bob")] and one.told[-1] == ("destroyed", "a")
    assert ("left", "a", "bob") not in two.told
    await bob.request("join-room", "a")
    assert await one.users("a") == ["bob"]


async def test_who_joins_again_before_his_node_heard_of_the_end_stays(one: RoomNode, two: RoomNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory ends a room at once, the other node hears of it a moment later."""
    ann = await two.join("ann", "a")
    heard = asyncio.Event()
    take = two.bus._take

    def late(entry: Any) -> None:
        asyncio.get_running_loop().call_soon(lambda: entries.append(entry))
        heard.set()

    entries: list[Any] = []
    monkeypatch.setattr(two.bus, "_take", late)
    destroying = asyncio.ensure_future(one.rooms.destroy_room("a"))
    await asyncio.wait_for(heard.wait(), 5)
    second = await two.join("bob", "a")
    await settle()
    monkeypatch.setattr(two.bus, "_take", take)
    for entry in entries:
        two.bus._take(entry)
    await destroying
    assert (await ann.receive("room-closed"))["data"]["reason"] == "destroyed"
    assert second.socket.rooms == {"a"} and await one.users("a") == ["bob"] and await second.take_all() == []


async def test_publishing_makes_a_room_and_keeps_its_order(rig: RoomNodes, two: RoomNode) -> None:
    one = await rig.node("three", limits={"publishes_per_second": None})
    client = await one.connect("ann")
    for number in range(1, 30):
        client.send("note", number, room="a" if number % 3 else "b", ref=number)
    acks = [await client.receive("ack") for _ in range(29)]
    assert [ack["ref"] for ack in acks] == list(range(1, 30))
    assert [ack["data"]["offset"] for ack in acks if ack["ref"] % 3] == list(range(1, 21))
    assert sorted(one.told) == [("created", "a"), ("created", "b")]
    assert [info.id for info in (await two.rooms.list_rooms())[0]] == ["a", "b"]


async def test_publishing_where_rooms_are_not_made_by_it(rig: RoomNodes) -> None:
    one, two = [await rig.node(id, rooms={"create": False}) for id in ("one", "two")]
    client = await one.connect("ann")
    for call in (client.request("note", 1, room="a"), client.request("join-room", "a")):
        with pytest.raises(RoomNotFound):
            await call
    await two.rooms.create_room("a")
    assert (await client.request("note", 1, room="a"))["offset"] == 1
    await client.request("join-room", "a")


# — users —


async def test_a_user_on_two_nodes_is_one_user(one: RoomNode, two: RoomNode) -> None:
    first, second = await one.join("ann", "a"), await two.join("ann", "a")
    third = await one.join("ann", "a")
    info = await two.rooms.get_room_info("a")
    assert (info.user_count, info.connection_count) == (1, 3)
    await first.request("leave-room", "a")
    third.cut()
    await third.closed()
    await one.directory.told("a")
    assert await one.users("a") == ["ann"] and one.told == [("created", "a"), ("joined", "a", "ann")]
    await second.request("leave-room", "a")
    await two.until("left", "a", "ann")
    assert two.told == [("left", "a", "ann")]
    assert (await one.rooms.get_room_info("a")).connection_count == 0


async def test_a_join_lists_who_is_there_on_every_node(one: RoomNode, two: RoomNode) -> None:
    await one.join("ann", "a", role="admin")
    bob = await two.connect("bob")
    answer = await bob.request("join-room", "a")
    assert [(member["userId"], member.get("role")) for member in answer["members"]] == [("ann", "admin"), ("bob", "user")]
    assert answer["members"][0]["since"].endswith("Z")
    asked = await bob.request("presence", "a")
    assert asked["members"] == answer["members"] and asked["count"] == 2
    again = await bob.request("join-room", "a")
    assert again["members"] == answer["members"]
    assert (await bob.request("presence", "nowhere"))["members"] == []


async def test_large_rooms_are_listed_for_those_who_ask(rig: RoomNodes) -> None:
    one = await rig.node("one", rooms={"max_users_per_room": None})
    two = await rig.node("two", rooms={"max_users_per_room": None})
    await asyncio.gather(*(one.rooms.join_room("a", f"user_{number}") for number in range(101)))
    client = await two.connect("ann")
    assert "members" not in await client.request("join-room", "a")
    assert len((await client.request("join-room", {"roomId": "a", "presence": True}))["members"]) == 102


async def test_watchers_hear_who_comes_and_goes_on_any_node_once(one: RoomNode, two: RoomNode) -> None:
    ann = await one.connect("ann")
    await ann.request("join-room", {"roomId": "a", "presence": True})
    watcher = await two.connect("watcher")
    await watcher.request("join-room", {"roomId": "a", "presence": True})
    first, second = await one.join("bob", "a", role="admin"), await two.join("bob", "a", role="admin")
    await first.request("leave-room", "a")
    await second.request("leave-room", "a")
    for client, expected in ((ann, [("user.joined", "watcher"), ("user.joined", "bob"), ("user.left", "bob")]),
                             (watcher, [("user.joined", "bob"), ("user.left", "bob")])):  # fmt: skip
        heard = [await client.receive() for _ in expected]
        assert [(message["event"], message["data"]["userId"]) for message in heard] == expected
        assert heard[-1]["room"] == "a" and heard[-1]["data"]["role"] == "admin" and heard[-1]["data"]["since"].endswith("Z")
        assert await client.take_all() == []


async def test_a_notice_that_is_none(one: RoomNode) -> None:
    ann = await one.connect("ann")
    await ann.request("join-room", {"roomId": "a", "presence": True})
    for payload in (b"", b"\xff", b"{]", b"[" * 10_000, b'{"event":"user.exploded","user":"x","since":"1"}', b'{"event":"user.left","user":"x"}',
                    b'{"event":"user.left","user":"x","since":"999999999999999"}', b'{"event":"user.left","user":5,"since":"1"}'):  # fmt: skip
        one.rooms.hear_notice("a", payload)
    one.rooms.hear_notice("elsewhere", b'{"event":"user.left","user":"x","since":"1"}')
    assert await ann.take_all() == [] and one.server.metrics.foreign_records == 8
    one.rooms.hear_notice("a", b'{"event":"user.left","user":"x","since":"1"}')
    assert (await ann.receive("user.left"))["data"] == {"userId": "x", "since": "1970-01-01T00:00:00.001Z"}


async def test_the_server_puts_a_user_in_with_his_sockets_everywhere(one: RoomNode, two: RoomNode) -> None:
    first, second = await one.connect("ann", role="admin"), await two.connect("ann", role="admin")
    info = await one.rooms.join_room("a", "ann")
    assert (info.user_count, info.connection_count) == (1, 2)
    assert first.socket.rooms == second.socket.rooms == {"a"} and [*one.told, *two.told].count(("joined", "a", "ann")) == 1
    await second.request("leave-room", "a")
    await first.request("leave-room", "a")
    assert await two.users("a") == ["ann"], "the server's word holds until the server takes it back"
    await two.rooms.leave_room("a", "ann")
    assert await one.users("a") == []


async def test_putting_a_guest_where_none_is_allowed_changes_nothing(one: RoomNode, two: RoomNode) -> None:
    guest = await two.connect("g", role="guest")
    for node in (one, two):
        with pytest.raises(GuestsNotAllowed):
            await node.rooms.join_room("closed", "g")
        assert guest.socket.rooms == frozenset()
    assert [info.user_count for info in (await one.rooms.list_rooms())[0]] in ([0], [])


async def test_nothing_is_left_of_who_was_kicked_from_another_node(one: RoomNode, two: RoomNode) -> None:
    ann, same = await two.join("ann", "a"), await one.join("ann", "a")
    await one.rooms.kick("a", "ann")
    for client in (ann, same):
        assert client.socket.rooms == frozenset()
        assert (await client.receive())["data"] == {"roomId": "a", "reason": "kicked"}
    await two.server.broadcaster.broadcast_to_room("a", "after", None)
    assert await ann.take_all() == [] and await one.users("a") == []
    assert [*one.told, *two.told].count(("left", "a", "ann")) == 1


async def test_who_is_kicked_while_he_joins_gets_nothing(one: RoomNode, two: RoomNode, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await two.connect("ann")
    position, asked, go_on = two.server.broker.position, asyncio.Event(), asyncio.Event()

    async def slow(room: str) -> Any:
        asked.set()
        await go_on.wait()
        return await position(room)

    monkeypatch.setattr(two.server.broker, "position", slow)
    joining = asyncio.ensure_future(ann.request("join-room", "a"))
    await asyncio.wait_for(asked.wait(), 5)
    await one.rooms.kick("a", "ann")
    go_on.set()
    with pytest.raises(NotInRoom):
        await joining
    await two.server.broadcaster.broadcast_to_room("a", "after", None)
    assert [message["event"] for message in await ann.take_all()] == ["room-closed"] and ann.socket.rooms == frozenset()


async def test_a_connection_that_ends_while_it_joins_leaves_nobody_behind(one: RoomNode, two: RoomNode) -> None:
    await one.rooms.create_room("a")
    for turns in range(8):
        client = await two.connect(f"ann{turns}")
        client.send("join-room", "a", ref=1)
        await settle(turns)
        client.cut()
        await client.closed()
        await two.directory.told("a")
        await settle()
        await two.directory.told("a")
        assert await one.users("a") == [], turns
    assert two.rooms.get("a") is None and two.rooms._keeper._places == {}  # type: ignore[attr-defined]


async def test_a_second_socket_that_gives_up_does_not_take_the_first_one_out(one: RoomNode, two: RoomNode) -> None:
    first = await two.join("ann", "a")
    for turns in range(6):
        second = await two.connect("ann")
        second.send("join-room", "a", ref=1)
        await settle(turns)
        second.cut()
        await second.closed()
        await two.directory.told("a")
        assert await one.users("a") == ["ann"] and first.socket.rooms == {"a"}


async def test_a_second_socket_that_joins_while_the_first_one_leaves_keeps_him_there(one: RoomNode, two: RoomNode) -> None:
    for turns in range(8):
        room = f"a{turns}"
        first, second = await two.join("ann", room), await two.connect("ann")
        joining = asyncio.ensure_future(second.request("join-room", room))
        await settle(turns)
        await first.request("leave-room", room)
        await joining
        await two.directory.told(room)
        await two.directory.told(room)
        assert await one.users(room) == ["ann"] and second.socket.rooms == {room}, turns


async def test_a_kick_returns_when_the_directory_knows(one: RoomNode, two: RoomNode, monkeypatch: pytest.MonkeyPatch) -> None:
    await two.join("ann", "a")
    run = two.client.run

    async def slow(*arguments: Any) -> Any:
        await one.client.command("PING")
        await one.client.command("PING")
        await one.client.command("PING")
        return await run(*arguments)

    monkeypatch.setattr(two.client, "run", slow)
    await one.rooms.kick("a", "ann")
    assert await one.users("a") == []


async def test_filters_see_the_users_of_every_node(one: RoomNode, two: RoomNode) -> None:
    await one.join("ann", "a", role="admin", claims={"plan": "gold"})
    gone = await two.join("bob", "a", tenant_id="t1")
    await gone.request("leave-room", "a")
    found = {user.id: user for user in await one.rooms.users_within_reach("a")}
    assert found == {"ann": User("ann", "admin", None, {"plan": "gold"}), "bob": User("bob", "user", "t1")}
    eve, asked = await two.join("eve", "a"), []

    def only_eve(user: User) -> bool:
        asked.append(user.id)
        return user.id == "eve"

    await two.server.broadcaster.broadcast_to_room("a", "note", 1, filter=only_eve)
    assert (await eve.receive("note"))["data"] == 1 and sorted(asked) == ["ann", "bob", "eve"]
    asked.clear()
    await one.server.broadcaster.broadcast_to_all("note", 1, filter=only_eve)
    assert sorted(asked) == ["ann", "bob", "eve"], "who is connected anywhere"
    await one.server.broadcaster.broadcast_many([{"room": "a", "event": "note", "filter": only_eve}, {"all": True, "event": "x"}])
    assert len(asked) == 6


async def test_another_role_is_known_everywhere(one: RoomNode, two: RoomNode) -> None:
    ann = await two.join("ann", "a", role="user")
    assert await one.server.set_role("ann", "admin") == 1
    assert ann.socket.user is not None and ann.socket.user.role == "admin"
    await two.directory.told("a")
    assert [user.role for user in await one.rooms.users_within_reach("a")] == ["admin"]


# — connections and tokens on other nodes —


async def test_disconnecting_a_user_on_every_node(one: RoomNode, two: RoomNode) -> None:
    first, second, third = await one.connect("ann"), await two.connect("ann"), await two.connect("bob")
    assert await one.server.disconnect(user_id="ann") == 2
    assert await first.closed() == await second.closed() == 4503
    assert await one.server.disconnect(socket_id=third.socket.id, code=4001) == 1 and await third.closed() == 4001
    assert await one.server.disconnect(user_id="ann") == 0


async def test_a_revocation_reaches_every_node_and_those_that_start_later(rig: RoomNodes, one: RoomNode, two: RoomNode) -> None:
    token = one.server.auth.issue(user_id="ann")
    first = await two.connect("ann")
    await one.server.auth.revoke(user_id="ann")
    assert await first.closed() == 4503
    three = await rig.node("three")
    for node in (one, two, three):
        with pytest.raises(TokenRevoked):
            await node.server.auth.identify(token)


async def test_revocations_that_were_missed_are_found(one: RoomNode, two: RoomNode) -> None:
    token = one.server.auth.issue(user_id="ann")
    ann, bob = await two.connect("ann"), await two.connect("bob")
    missed = RedisRevocations(one.client, one.layout, memory=1000)
    await missed.add([Revoked("user", "ann", one.server._clock.now()), Revoked("token", "\0", one.server._clock.now())])
    await two.server.auth.load_revocations()
    assert await ann.closed() == 4503 and not bob.socket.closing
    later = await two.connect("ann")
    later.socket.token_issued_at = one.server._clock.now() + 1
    await two.server.auth.load_revocations()
    assert not later.socket.closing, "who came after it stays"
    with pytest.raises(TokenRevoked):
        await two.server.auth.identify(token)


async def test_revocations_that_redis_lost_are_kept_again(rig: RoomNodes, one: RoomNode) -> None:
    await one.server.auth.revoke(user_id="ann")
    token = one.server.auth.issue(user_id="bob")
    await one.client.command("DEL", one.layout.of_nodes("revoked"))
    await one.server.auth.keep_revocations()
    two = await rig.node("two")
    assert [(revoked.kind, revoked.name) for revoked in two.server.auth._revocations] == [("user", "ann")]
    assert (await two.server.auth.identify(token)).user.id == "bob"


# — when others are not there —


async def test_rooms_of_a_manager_that_was_made_before(rig: RoomNodes, one: RoomNode) -> None:
    own = RoomManager(max_users_per_room=7)
    await own.create_room("made_before", name="Made before", settings={"max_users": 3})
    await own.join_room("with_somebody", "ann")
    two = await rig.node("two", rooms=own)
    later = RoomManager()
    await later.create_room("shared_later")
    later.share(two.rooms)
    async with asyncio.timeout(5):
        while len((await one.rooms.list_rooms())[0]) < 3 or await one.users("with_somebody") != ["ann"]:
            pass
    info = await one.rooms.get_room_info("made_before")
    assert (info.name, info.settings.max_users) == ("Made before", 3)
    assert own.get("made_before") is None and own.get("with_somebody") is not None and two.told == []
    await later.kick("with_somebody", "ann")
    assert await one.users("with_somebody") == []


async def test_a_node_that_ends_takes_its_users_with_it(one: RoomNode, two: RoomNode) -> None:
    await one.join("ann", "a")
    await two.join("bob", "a")
    await two.server.stop(drain=0)
    assert await one.users("a") == ["ann"] and ("left", "a", "bob") in two.told


async def test_a_node_that_died_is_cleaned_up_after(one: RoomNode, two: RoomNode) -> None:
    watcher = await one.connect("ann")
    await watcher.request("join-room", {"roomId": "a", "presence": True})
    await two.join("bob", "a")
    await watcher.receive("user.joined")
    await one.directory.clean_up(two.id)
    assert (await watcher.receive("user.left"))["data"]["userId"] == "bob" and one.told[-1] == ("left", "a", "bob")
    two.directory.tell_again()
    assert (await watcher.receive("user.joined"))["data"]["userId"] == "bob"


@pytest.fixture
def mortal_redis() -> Iterator[RedisServer]:
    """A server that a test may stop."""
    with running_redis() as server:
        yield server


async def test_without_redis_nobody_joins_and_everybody_may_leave(mortal_redis: RedisServer, redis_prefix: str) -> None:
    rig = RoomNodes(mortal_redis.url, redis_prefix)
    try:
        one = await rig.node("one")
        ann, bob = await one.join("ann", "a"), await one.join("bob", "a")
        mortal_redis.stop()
        await ann.request("leave-room", "a")
        for call in (bob.request("join-room", "b", timeout=10), bob.request("note", 1, room="b", timeout=10)):
            with pytest.raises(BackendError):
                await call
        with pytest.raises(BrokerUnavailable):
            await one.rooms.kick("a", "bob")
        assert bob.socket.rooms == frozenset(), "this node did what it could"
        mortal_redis.start()
        await one.until("left", "a", "ann")
        await one.until("left", "a", "bob")
        assert await one.users("a") == [] and one.told.count(("left", "a", "ann")) == 1
        await bob.request("join-room", "b")
        assert await one.users("b") == ["bob"]
    finally:
        await rig.close()


async def test_a_thousand_who_come_and_go_at_once_are_told_together(rig: RoomNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await rig.node("one", rooms={"max_users_per_room": None})
    two = await rig.node("two", rooms={"max_users_per_room": None})
    clients = [await one.connect(f"user_{number}") for number in range(1000)]
    calls = 0
    run = one.client.run

    async def counting(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return await run(*arguments)

    monkeypatch.setattr(one.client, "run", counting)
    await asyncio.gather(*(client.request("join-room", "a", timeout=20) for client in clients))
    assert (await two.rooms.get_room_info("a")).user_count == 1000 and calls < 400, calls
    calls = 0
    for client in clients:
        client.cut()
    await clients[-1].closed()
    await one.directory.told("a")
    assert await two.users("a") == [] and calls < 100, calls


async def test_a_life_of_a_room_that_is_over_is_asked_about_once_more(one: RoomNode) -> None:
    """Its end is heard before the answer that somebody is in it; or the directory has lost its end, after a fail-over."""
    await one.join("ann", "a")
    presence = one.rooms.by_id["a"].users["ann"]
    keeper = one.rooms._keeper
    assert isinstance(keeper, SharedRooms)
    await one.bus.ask(CloseRoom("a", "over"))
    assert not keeper.user_is_in("a", "ann", "over") and keeper.user_is_in("a", "ann", "next") and presence.birth == "next"
    assert not keeper.user_is_in("a", "ann", "over") and keeper.user_is_in("a", "ann", "over") and presence.birth == "over"
    assert keeper.user_is_in("a", "ann", "over") and keeper.user_is_in("a", "bob", "x") and keeper.user_is_in("b", "ann", "x")
    await one.bus.ask(CloseRoom("a", "over"))
    assert "a" not in one.rooms.by_id


async def test_a_cancelled_call_leaves_nobody_behind(one: RoomNode, two: RoomNode) -> None:
    for turns in range(6):
        joining = asyncio.ensure_future(one.rooms.join_room("a", "ann"))
        await settle(turns)
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await one.directory.told("a")
        if await two.directory.has("a", "ann"):
            await two.rooms.leave_room("a", "ann")
        await one.directory.told("a")
        assert await two.directory.find("a") is None or await two.users("a") == []


async def test_what_nobody_admitted_does_not_enter(one: RoomNode) -> None:
    client = await one.connect("ann")
    with pytest.raises(RoomNotFound):
        one.rooms.enter(client.socket, "a")
    await one.directory.create(RoomDraft("a", "a", "room", None, False), max_rooms=None)
    await one.directory.enter(RoomDraft("a", "a", "room", None, False), PresentUser("bob"), create=True, max_rooms=None)
    with pytest.raises(RoomNotFound):
        one.rooms.enter(client.socket, "a")
    client.close()
    with pytest.raises(ConnectionClosed):
        await client.receive()
