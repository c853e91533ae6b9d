"""A room as a value: which index a socket is in."""

from __future__ import annotations

from aibos_realtime.hub.room import Room, RoomSettings
from aibos_realtime.testing.server import memory_server


def room() -> Room:
    return Room("lobby", "Lobby", "room", RoomSettings(), 5.0)


async def test_on_the_way_in_then_live_then_out() -> None:
    async with memory_server() as net:
        ann, bob = (await net.connect("ann")).socket, (await net.connect("bob", codec="msgpack")).socket
        lobby = room()
        lobby.joining[ann] = []
        assert lobby.sockets == [ann] and lobby.groups == {}
        lobby.go_live(ann)
        lobby.go_live(bob)
        assert {encoding.codec.subprotocol for encoding in lobby.groups} == {"aibos.realtime.v1", "aibos.realtime.v1.msgpack"}
        assert set(lobby.sockets) == {ann, bob} and lobby.joining == {}
        lobby.drop(ann)
        lobby.drop(ann)
        assert lobby.sockets == [bob] and len(lobby.groups) == 1


async def test_holding_a_member_keeps_that_it_watches() -> None:
    async with memory_server() as net:
        ann = (await net.connect("ann")).socket
        lobby = room()
        lobby.go_live(ann)
        lobby.watchers[ann] = None
        lobby.hold(ann)
        assert lobby.joining == {ann: []} and lobby.groups == {} and ann in lobby.watchers
        lobby.drop(ann)
        assert lobby.sockets == [] and lobby.watchers == {}


def test_what_is_told_of_it() -> None:
    info = room().info()
    assert (info.id, info.name, info.type, info.created_at, info.user_count, info.connection_count) == ("lobby", "Lobby", "room", 5.0, 0, 0)
    assert info.settings == RoomSettings(max_users=100, allow_guests=False) and room().is_empty and repr(room()) == "<Room lobby users=0>"
