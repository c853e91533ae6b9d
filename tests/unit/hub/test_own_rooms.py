"""The rooms of a node that is alone, beyond what `test_rooms` shows: what callbacks see, and what is asked that only several nodes have to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aibos_realtime import RoomLimitExceeded, RoomManager, RoomNotFound
from aibos_realtime.testing.server import MemoryServer, memory_server

OPEN = {"permissions": {"*": ["read", "write"]}}


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    async with memory_server(authorization=OPEN, rooms={"max_rooms": 2}) as net:
        yield net


async def test_a_callback_sees_the_user_in_the_room() -> None:
    rooms, seen = RoomManager(), []

    @rooms.on("user.joined")
    def note(room_id: str, user_id: str) -> None:
        room = rooms.get(room_id)
        assert room is not None
        seen.append(list(room.users))

    await rooms.join_room("a", "ann")
    await rooms.join_room("a", "bob")
    assert seen == [["ann"], ["ann", "bob"]]


async def test_another_role_is_known_in_the_room(net: MemoryServer) -> None:
    ann = await net.connect("ann", role="user")
    await ann.request("join-room", "a")
    await net.server.set_role("ann", "admin")
    assert [user.role for user in await net.server.rooms.users_within_reach("a")] == ["admin"]
    assert (await ann.request("presence", "a"))["members"][0]["role"] == "admin"


async def test_who_is_connected_or_was(net: MemoryServer) -> None:
    await net.connect("ann")
    bob = await net.connect("bob")
    bob.cut()
    await bob.closed()
    assert sorted(user.id for user in await net.server.rooms.everybody_within_reach(300.0)) == ["ann", "bob"]
    assert await RoomManager().everybody_within_reach(300.0) == []


async def test_publishing_makes_a_room_within_the_limit(net: MemoryServer) -> None:
    ann = await net.connect("ann")
    for room in ("a", "b"):
        await ann.request("note", 1, room=room)
    with pytest.raises(RoomLimitExceeded, match="All 2"):
        await ann.request("note", 1, room="c")
    assert net.server.rooms.opening("a") is None
    with pytest.raises(RoomNotFound):
        RoomManager(create=False).opening("a")


async def test_a_connection_that_is_closing_does_not_stand_in_the_way(net: MemoryServer) -> None:
    ann = await net.connect("ann")
    ann.socket.disconnect(4001)
    info = await net.server.rooms.join_room("a", "ann")
    assert info.user_count == 1


async def test_there_is_nobody_to_tell_anything(net: MemoryServer) -> None:
    ann = await net.connect("ann")
    await ann.request("join-room", {"roomId": "a", "presence": True})
    net.server.rooms.hear_notice("a", b'{"event":"user.left","user":"x","since":"1"}')
    await net.server.rooms.start()
    assert await ann.take_all() == []


async def test_a_room_that_was_only_joined_makes_place_once_it_is_empty(net: MemoryServer) -> None:
    """One user who joined and left as many rooms as there may be had them all for `room_timeout`: nobody else could open one."""
    ann, bob = await net.connect("ann"), await net.connect("bob")
    for room in ("a", "b"):
        await ann.request("join-room", room)
        await ann.request("leave-room", room)
    await bob.request("join-room", "b")
    await bob.request("join-room", "c")
    assert sorted(net.server.rooms.by_id) == ["b", "c"], "the empty one went"
    with pytest.raises(RoomLimitExceeded):
        await ann.request("join-room", "d")


async def test_a_room_that_somebody_made_or_published_to_makes_no_place(net: MemoryServer) -> None:
    ann = await net.connect("ann")
    await net.server.rooms.create_room("made")
    await ann.request("join-room", "heard")
    await ann.request("note", 1, room="heard")
    await ann.request("leave-room", "heard")
    with pytest.raises(RoomLimitExceeded):
        await ann.request("join-room", "c")
    assert sorted(net.server.rooms.by_id) == ["heard", "made"]
