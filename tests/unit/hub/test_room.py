"""A room as a value: which index a socket is in."""

from __future__ import annotations

from aibos_realtime.hub.room import Room, RoomSettings
from aibos_realtime.testing.server import memory_server
from aibos_realtime.types import User


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


async def test_a_room_that_everybody_left_keeps_nothing_that_leads_back_to_it() -> None:
    async with memory_server() as net:
        ann, bob = (await net.connect("ann")).socket, (await net.connect("bob")).socket
        lobby = room()
        lobby.go_live(ann)
        lobby.joining[bob] = []
        shared = lobby.alone
        lobby.drop(ann)
        assert lobby.alone is shared and shared == {"lobby": lobby}
        lobby.drop(bob)
        assert lobby._alone is None and shared == {"lobby": lobby}, "who was in it may still look at this"


async def test_an_index_of_the_live_members_is_kept_up() -> None:
    async with memory_server() as net:
        ann, bob, cid = [(await net.connect(name, role=role)).socket for name, role in (("ann", "admin"), ("bob", "user"), ("cid", "user"))]
        lobby = room()
        lobby.go_live(ann)
        lobby.joining[bob] = []
        index = lobby.index(("role",))
        admins, users = (ann.encoding, "admin"), (ann.encoding, "user")
        assert index.groups == {admins: {ann: None}} and lobby.index(("role",)) is index is not lobby.index(("role", "tenant_id"))
        lobby.go_live(bob)
        lobby.go_live(cid)
        lobby.hold(bob)
        assert index.groups == {admins: {ann: None}, users: {cid: None}} and lobby.indexes[1].kind(cid) == (cid.encoding, ("user", None))
        lobby.refile(ann)
        lobby.refile(bob)
        assert lobby.index(("role",)) is index, "who is where he belongs, and who is on his way in, change nothing"
        ann.user = User("ann", "user", "t1")
        lobby.refile(ann)
        assert lobby.indexes == () and lobby.index(("role",)).groups == {users: {ann: None, cid: None}}
        lobby.drop(ann)
        lobby.drop(cid)
        assert lobby.index(("role",)).groups == {}


def test_what_is_told_of_it() -> None:
    info = room().info()
    assert (info.id, info.name, info.type, info.created_at, info.user_count, info.connection_count) == ("lobby", "Lobby", "room", 5.0, 0, 0)
    assert info.settings == RoomSettings(max_users=100, allow_guests=False) and room().is_empty and repr(room()) == "<Room lobby users=0>"
