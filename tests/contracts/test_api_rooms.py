"""The public API, "Rooms": a manager alone, and as a server's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import (
    ConfigurationError,
    EventBroadcaster,
    NotInRoom,
    ProtocolError,
    RealtimeServer,
    RoomFull,
    RoomLimitExceeded,
    RoomManager,
    RoomNotFound,
)
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.types import Room, RoomInfo
from tests.contracts.peer import joined, serving, until


def record(rooms: RoomManager) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []
    rooms.on("room.created", lambda room: seen.append(("created", room.id)))
    rooms.on("room.destroyed", lambda room_id: seen.append(("destroyed", room_id)))
    rooms.on("user.joined", lambda room_id, user_id: seen.append(("joined", room_id, user_id)))
    rooms.on("user.left", lambda room_id, user_id: seen.append(("left", room_id, user_id)))
    return seen


async def users_of(rooms: RoomManager, room_id: str) -> list[str]:
    return [member.user_id for member in await rooms.get_room_users(room_id)]


async def test_the_program_of_the_page() -> None:
    rooms = RoomManager(max_rooms=1000, max_users_per_room=100, room_timeout=300)
    seen = record(rooms)
    room = await rooms.create_room("tenant_123", name="Tenant 123", type="tenant", settings={"max_users": 50, "allow_guests": False})
    assert isinstance(room, Room) and room.id == "tenant_123"
    await rooms.join_room("tenant_123", "user_123")
    assert await users_of(rooms, "tenant_123") == ["user_123"]
    info = await rooms.get_room_info("tenant_123")
    assert isinstance(info, RoomInfo)
    assert (info.id, info.name, info.type, info.user_count) == ("tenant_123", "Tenant 123", "tenant", 1)
    assert info.settings.max_users == 50 and info.settings.allow_guests is False
    await rooms.leave_room("tenant_123", "user_123")
    assert await users_of(rooms, "tenant_123") == []
    await rooms.destroy_room("tenant_123")
    with pytest.raises(RoomNotFound):
        await rooms.get_room_info("tenant_123")
    await settle()
    joined_and_left = [("joined", "tenant_123", "user_123"), ("left", "tenant_123", "user_123")]
    assert seen == [("created", "tenant_123"), *joined_and_left, ("destroyed", "tenant_123")]


@pytest.mark.parametrize("name", ["get_room_info", "get_room_users", "destroy_room"])
async def test_a_room_that_is_not_there(name: str) -> None:
    with pytest.raises(RoomNotFound):
        await getattr(RoomManager(), name)("nowhere")


async def test_leaving_where_one_is_not() -> None:
    rooms = RoomManager()
    with pytest.raises(RoomNotFound):
        await rooms.leave_room("a", "user_1")
    await rooms.create_room("a")
    with pytest.raises(NotInRoom):
        await rooms.leave_room("a", "user_1")
    with pytest.raises(NotInRoom):
        await rooms.kick("a", "user_1")


async def test_a_join_creates_the_room_unless_that_is_off() -> None:
    await RoomManager().join_room("a", "user_1")
    rooms = RoomManager(create=False)
    with pytest.raises(RoomNotFound):
        await rooms.join_room("a", "user_1")
    await rooms.create_room("a")
    await rooms.join_room("a", "user_1")


async def test_creating_a_room_twice_creates_it_once() -> None:
    rooms = RoomManager()
    seen = record(rooms)
    first = await rooms.create_room("a", name="first")
    again = await rooms.create_room("a", name="second")
    await settle()
    assert again is first and (await rooms.get_room_info("a")).name == "first" and seen == [("created", "a")]


@pytest.mark.parametrize("room_id", ["", "a b", "ü", "x" * 129])
async def test_bad_names(room_id: str) -> None:
    with pytest.raises(ProtocolError):
        await RoomManager().create_room(room_id)


@pytest.mark.parametrize("settings", [{"max_user": 5}, {"max_users": "many"}, {"max_users": 0}, {"allow_guests": "perhaps"}])
async def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        await RoomManager().create_room("a", settings=settings)


async def test_the_limit_of_rooms_under_concurrent_creation() -> None:
    rooms = RoomManager(max_rooms=5)
    results = await asyncio.gather(*(rooms.create_room(f"room-{n}") for n in range(20)), return_exceptions=True)
    assert sum(isinstance(result, RoomLimitExceeded) for result in results) == 15


async def test_the_limit_of_users_under_concurrent_joins() -> None:
    rooms = RoomManager(max_users_per_room=3)
    results = await asyncio.gather(*(rooms.join_room("a", f"user_{n}") for n in range(20)), return_exceptions=True)
    assert sum(isinstance(result, RoomFull) for result in results) == 17
    assert len(await rooms.get_room_users("a")) == 3


async def test_a_rooms_own_limit_comes_before_the_default() -> None:
    rooms = RoomManager(max_users_per_room=1)
    await rooms.create_room("large", settings={"max_users": 3})
    for n in range(3):
        await rooms.join_room("large", f"user_{n}")
    with pytest.raises(RoomFull):
        await rooms.join_room("large", "user_3")
    await rooms.join_room("large", "user_2")


async def test_patterns_apply_in_their_order_and_the_first_alone() -> None:
    rooms = RoomManager(max_users_per_room=1, patterns={"bench:vip:*": {"max_users": 2}, "bench:*": {"max_users": 3}, "tenant_*": {}})
    for room_id, limit in (("bench:vip:1", 2), ("bench:1", 3), ("tenant_1", 1), ("other", 1)):
        for n in range(limit):
            await rooms.join_room(room_id, f"user_{n}")
        with pytest.raises(RoomFull):
            await rooms.join_room(room_id, "one-too-many")


async def test_limits_that_are_off() -> None:
    rooms = RoomManager(max_rooms=None, max_users_per_room=None, room_timeout=None)
    for n in range(200):
        await rooms.join_room("a", f"user_{n}")
    assert len(await rooms.get_room_users("a")) == 200


async def test_list_rooms_page_by_page() -> None:
    rooms = RoomManager()
    for n in range(7):
        await rooms.create_room(f"tenant_{n}")
    await rooms.create_room("other")
    found: list[str] = []
    page, cursor = await rooms.list_rooms(prefix="tenant_", limit=3)
    found += [info.id for info in page]
    while cursor is not None:
        page, cursor = await rooms.list_rooms(prefix="tenant_", limit=3, cursor=cursor)
        found += [info.id for info in page]
        assert len(found) <= 7
    assert found == [f"tenant_{n}" for n in range(7)]
    everything, _ = await rooms.list_rooms()
    assert len(everything) == 8


async def test_an_empty_room_is_destroyed_after_its_time() -> None:
    clock = ManualClock()
    rooms = RoomManager(room_timeout=300, clock=clock)
    seen = record(rooms)
    await rooms.create_room("never-used")
    await rooms.join_room("used", "user_1")
    await clock.advance(299)
    assert len(rooms) == 2
    await clock.advance(2)
    assert seen[-1] == ("destroyed", "never-used") and len(rooms) == 1
    await rooms.leave_room("used", "user_1")
    await clock.advance(200)
    await rooms.join_room("used", "user_1")
    await clock.advance(1000)
    assert len(rooms) == 1, "it was not empty for that long"
    await rooms.leave_room("used", "user_1")
    await clock.advance(301)
    assert len(rooms) == 0


async def test_a_user_of_two_sockets_is_one_user(server: RealtimeServer) -> None:
    seen, left = record(server.rooms), asyncio.Event()
    server.rooms.on("user.left", lambda room_id, user_id: left.set())
    async with joined(server, "tenant_1") as first:
        async with joined(server, "tenant_1"):
            assert await users_of(server.rooms, "tenant_1") == ["user_1"]
            info = await server.rooms.get_room_info("tenant_1")
            assert info.user_count == 1
            await first.data("leave-room", "tenant_1")
            await settle()
            assert [what for what, *_ in seen] == ["created", "joined"]
        await until(left)
        assert [what for what, *_ in seen] == ["created", "joined", "left"]


async def test_callbacks_may_be_coroutines_and_may_fail(server: RealtimeServer) -> None:
    seen, called = [], asyncio.Event()

    @server.rooms.on("user.joined")
    async def fail(room_id: str, user_id: str) -> None:
        raise ValueError("no")

    @server.rooms.on("user.joined")
    async def note(room_id: str, user_id: str) -> None:
        seen.append(user_id)
        called.set()

    async with joined(server, "tenant_1") as peer:
        await peer.data("x", room="tenant_1")
        await until(called)
        assert seen == ["user_1"]


def test_a_callback_for_an_event_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError):
        RoomManager().on("room.exploded", lambda room: None)


async def test_join_room_brings_the_users_sockets_in(server: RealtimeServer) -> None:
    async with joined(server) as peer, joined(server) as same, joined(server, user_id="other") as other:
        await server.rooms.join_room("board", "user_1")
        await server.broadcaster.broadcast_to_room("board", "x", {})
        for one in (peer, same):
            assert [message["event"] for message in await one.heard()] == ["x"]
        assert await other.heard() == []
        await server.rooms.leave_room("board", "user_1")
        await server.broadcaster.broadcast_to_room("board", "x", {})
        assert [message["event"] for message in await peer.heard()] == ["room-closed"]


async def test_a_destroyed_rooms_log_lives_on(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        first = await peer.data("x", room="tenant_1")
        await server.rooms.destroy_room("tenant_1")
        second = await peer.data("x", room="tenant_1")
        assert (second["epoch"], second["offset"]) == (first["epoch"], 2)
        assert len((await peer.data("history", {"roomId": "tenant_1"}))["events"]) == 2


async def test_a_broadcast_to_a_room_with_nobody_in_it_is_logged(server: RealtimeServer) -> None:
    receipt = await server.broadcaster.broadcast_to_room("tenant_1", "x", {"a": 1})
    assert receipt.position is not None and receipt.position.offset == 1
    async with joined(server) as peer:
        await peer.data("join-room", {"roomId": "tenant_1", "rewind": 1})
        assert (await peer.next("x"))["data"] == {"a": 1}


async def test_a_manager_of_ones_own_is_the_servers() -> None:
    rooms = RoomManager(max_rooms=1000, max_users_per_room=1, room_timeout=300)
    async with serving(rooms=rooms) as server, joined(server, "tenant_1"), joined(server, user_id="other") as other:
        assert await users_of(rooms, "tenant_1") == ["user_1"]
        assert (await other.refusal("join-room", "tenant_1"))["code"] == "room_full"


async def test_a_manager_given_to_a_broadcaster_is_the_servers_from_then_on(server: RealtimeServer) -> None:
    """The source document builds the three apart: a server, a room manager, and a broadcaster of both."""
    rooms = RoomManager(max_rooms=1000, max_users_per_room=100, room_timeout=300)
    seen = record(rooms)
    await rooms.create_room("tenant_1", name="Tenant 1")
    broadcaster = EventBroadcaster(server=server, rooms=rooms)
    async with joined(server, "tenant_1") as peer:
        assert await users_of(rooms, "tenant_1") == ["user_1"] and (await server.rooms.get_room_info("tenant_1")).name == "Tenant 1"
        await broadcaster.broadcast_to_room("tenant_1", "x", {})
        await peer.next("x")
        await rooms.kick("tenant_1", "user_1")
        await peer.next("room-closed")
    assert ("joined", "tenant_1", "user_1") in seen


async def test_a_managers_limits_hold_after_it_became_the_servers(server: RealtimeServer) -> None:
    rooms = RoomManager(max_users_per_room=1)
    EventBroadcaster(server=server, rooms=rooms)
    async with joined(server, "tenant_1"), joined(server, user_id="other") as other:
        assert (await other.refusal("join-room", "tenant_1"))["code"] == "room_full"
