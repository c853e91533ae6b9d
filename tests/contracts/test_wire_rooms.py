"""The protocol, "Rooms": joining, publishing, presence, and how one is put out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aibos_realtime import RealtimeServer
from tests.contracts.peer import Peer, connecting, joined, serving

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)")


# — join and leave —


@pytest.mark.parametrize("data", ["tenant_1", {"roomId": "tenant_1"}], ids=["text", "object"])
async def test_join(server: RealtimeServer, data: Any) -> None:
    async with joined(server) as peer:
        answer = await peer.ask("join-room", data, ref=17)
        assert answer["event"] == "joined-room" and answer["ref"] == 17
        state = answer["data"]
        assert set(state) <= {"roomId", "epoch", "offset", "recovered", "members"}
        assert state["roomId"] == "tenant_1" and isinstance(state["epoch"], str)
        assert state["offset"] == 0 and state["recovered"] is None


async def test_join_says_who_is_there(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1"), joined(server, user_id="user_2") as peer:
        state = await peer.data("join-room", "tenant_1")
        assert {member["userId"] for member in state["members"]} == {"user_1", "user_2"}


async def test_joining_twice_is_being_there_once(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        assert (await peer.data("join-room", "tenant_1"))["roomId"] == "tenant_1"
        await peer.data("x", room="tenant_1")
        assert [message["event"] for message in await peer.heard()] == ["x"]
        await peer.data("leave-room", "tenant_1")
        await peer.data("x", room="tenant_1")
        assert await peer.heard() == []


@pytest.mark.parametrize("data", ["tenant_1", {"roomId": "tenant_1"}], ids=["text", "object"])
async def test_leave(server: RealtimeServer, data: Any) -> None:
    async with joined(server, "tenant_1") as peer:
        answer = await peer.ask("leave-room", data)
        assert answer["event"] == "left-room" and answer["data"] == {"roomId": "tenant_1"}
        await server.broadcaster.broadcast_to_room("tenant_1", "x", {})
        assert await peer.heard() == []


async def test_leaving_where_one_is_not(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        data = await peer.refusal("leave-room", "tenant_1")
        assert data["code"] == "not_in_room" and data["retryable"] is False


# — publish —


async def test_publish_is_acknowledged_with_its_position(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        for offset in (1, 2, 3):
            answer = await peer.ask("invoice.created", {"n": offset}, room="tenant_1", id=f"id-{offset}", ref=offset)
            assert answer["event"] == "ack" and answer["ref"] == offset
            assert set(answer["data"]) == {"id", "offset", "epoch", "duplicate"}
            assert answer["data"]["id"] == f"id-{offset}" and answer["data"]["offset"] == offset and answer["data"]["duplicate"] is False
        assert [message["offset"] for message in await peer.heard()] == [1, 2, 3]


async def test_the_event_of_a_room(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as one, joined(server, "tenant_1", user_id="user_2") as two:
        data = {"invoiceId": "inv_001", "amount": 1000, "note": "ü€𝄞", "nothing": None, "float": 1.5, "list": [[], {}]}
        await one.send("invoice.created", data, room="tenant_1", id="key")
        heard = [await one.connection.recv(), await two.connection.recv()]
        assert heard[0] == heard[1], "the same bytes for every member"
        event = json.loads(heard[0])
        assert set(event) == {"event", "room", "offset", "id", "data", "userId", "timestamp"}
        assert event["event"] == "invoice.created" and event["room"] == "tenant_1" and event["offset"] == 1 and event["id"] == "key"
        assert event["data"] == data and event["userId"] == "user_1"
        assert RFC_3339.fullmatch(event["timestamp"])


async def test_without_a_ref_there_is_no_acknowledgement(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        await peer.send("x", {}, room="tenant_1")
        assert await peer.heard() == []


async def test_publishing_needs_write_and_no_membership_and_creates_the_room(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        assert (await peer.data("x", {}, room="tenant_1"))["offset"] == 1
        assert (await server.rooms.get_room_info("tenant_1")).id == "tenant_1"
        assert await peer.heard() == []


async def test_an_event_without_data_is_an_event(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        await peer.data("x", room="tenant_1")
        assert (await peer.next("x")).get("data") is None


async def test_unknown_members_are_ignored(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        await peer.data("x", {}, room="tenant_1", colour="blue", offset=99, userId="somebody", timestamp="never")
        event = await peer.next("x")
        assert event["offset"] == 1 and event["userId"] == "user_1" and "colour" not in event


async def test_with_a_room_it_is_always_a_publish(server: RealtimeServer) -> None:
    called = []
    server.event("invoice.create")(lambda socket, data: called.append(data))
    async with joined(server, "tenant_1") as peer:
        assert (await peer.data("invoice.create", {}, room="tenant_1"))["offset"] == 1
        assert (await peer.next("invoice.create"))["room"] == "tenant_1" and called == []


async def test_without_a_room_in_the_only_room(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        assert (await peer.data("x", {"a": 1}))["offset"] == 1
        assert (await peer.next("x"))["room"] == "tenant_1"


async def test_without_a_room_in_several() -> None:
    async with serving(authorization={"permissions": {"a": ["read", "write"], "b": ["read", "write"]}}) as server:
        async with joined(server, "a", "b") as peer:
            data = await peer.refusal("x", {})
            assert data["code"] == "room_required" and data["retryable"] is False


async def test_without_a_room_in_none(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        data = await peer.refusal("x", {})
        assert data["code"] == "unknown_event" and data["retryable"] is False


RESERVED = [
    "joined-room",
    "left-room",
    "ack",
    "error",
    "connected",
    "resync",
    "room-closed",
    "permission_denied",
    "user.joined",
    "token-expiring",
]


@pytest.mark.parametrize("event", RESERVED)
async def test_nobody_publishes_under_a_name_of_the_protocol(server: RealtimeServer, event: str) -> None:
    async with joined(server, "tenant_1", user_id="member") as member, joined(server) as peer:
        await peer.send(event, {"roomId": "tenant_1"}, room="tenant_1")
        await peer.ask("ping")
        assert await member.heard() == []


# — idempotency —


async def test_the_same_id_publishes_once(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        first = await peer.data("x", {"a": 1}, room="tenant_1", id="key")
        again = await peer.data("x", {"a": 1}, room="tenant_1", id="key")
        assert again == first | {"duplicate": True}
        assert len(await peer.heard()) == 1


@pytest.mark.parametrize(("event", "data"), [("x", {"a": 2}), ("y", {"a": 1})], ids=["other data", "other name"])
async def test_the_same_id_with_other_content(server: RealtimeServer, event: str, data: Any) -> None:
    async with joined(server, "tenant_1") as peer:
        await peer.data("x", {"a": 1}, room="tenant_1", id="key")
        refusal = await peer.refusal(event, data, room="tenant_1", id="key")
        assert refusal["code"] == "idempotency_conflict" and refusal["retryable"] is False
        assert len(await peer.heard()) == 1


async def test_an_id_is_its_publishers_own_in_one_room() -> None:
    async with serving(authorization={"permissions": {"a": ["read", "write"], "b": ["read", "write"]}}) as server:
        async with joined(server) as one, joined(server, user_id="user_2") as two, joined(server) as same:
            assert (await one.data("x", {"a": 1}, room="a", id="key"))["offset"] == 1
            assert (await one.data("x", {"a": 2}, room="b", id="key"))["duplicate"] is False
            assert (await two.data("x", {"a": 3}, room="a", id="key"))["offset"] == 2
            assert (await same.data("x", {"a": 1}, room="a", id="key")) | {"epoch": ""} == {
                "id": "key",
                "epoch": "",
                "offset": 1,
                "duplicate": True,
            }


# — rights —


ACTS: list[tuple[str, dict[str, Any], str]] = [
    ("join-room", {"data": "ROOM"}, "read"),
    ("history", {"data": {"roomId": "ROOM"}}, "read"),
    ("presence", {"data": {"roomId": "ROOM"}}, "read"),
    ("x", {"room": "ROOM", "data": {}}, "write"),
]


def at(room: str, members: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(members).replace("ROOM", room))
    return found


@pytest.mark.parametrize(("event", "members", "action"), ACTS, ids=[event for event, *_ in ACTS])
async def test_permission_denied(server: RealtimeServer, event: str, members: dict[str, Any], action: str) -> None:
    await server.rooms.create_room("tenant_2")
    async with joined(server) as peer:
        there, missing = await peer.ask(event, **at("tenant_2", members)), await peer.ask(event, **at("tenant_3", members))
    for room, answer in (("tenant_2", there), ("tenant_3", missing)):
        assert answer["event"] == "permission_denied" and answer["ref"]
        assert set(answer["data"]) == {"code", "resource", "action", "message", "retryable"}
        assert answer["data"]["code"] == "permission_denied" and answer["data"]["retryable"] is False
        assert answer["data"]["resource"] == room and answer["data"]["action"] == action
        assert room not in answer["data"]["message"]
    assert there["data"] | {"resource": ""} == missing["data"] | {"resource": ""}, "a room that is missing and one that one may not see"


async def test_without_a_ref_a_refusal_is_still_told(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        await peer.send("x", {}, room="tenant_2")
        answer = await peer.next("permission_denied")
        assert "ref" not in answer


async def test_read_alone_does_not_write() -> None:
    async with serving(authorization={"permissions": {"news": ["read"], "box": ["write"]}}) as server, joined(server, "news") as peer:
        assert (await peer.ask("x", {}, room="news"))["data"]["action"] == "write"
        assert (await peer.ask("join-room", "box"))["data"]["action"] == "read"
        assert (await peer.ask("history", {"roomId": "box"}))["data"]["action"] == "read"
        assert (await peer.data("x", {}, room="box"))["offset"] == 1


EVERYTHING = {"permissions": {"*": ["read", "write", "manage"]}}


@pytest.mark.parametrize("room", ["all", "user:user_1", "user:user_2"])
async def test_own_streams_are_written_by_the_server_alone(room: str) -> None:
    """Also by nobody whom a pattern permits everything."""
    async with serving(authorization=EVERYTHING) as server, joined(server) as peer:
        answer = await peer.ask("x", {}, room=room)
        assert answer["event"] == "permission_denied" and answer["data"]["action"] == "write"
        assert await peer.heard() == []


async def test_own_streams_are_read_by_their_owner_alone() -> None:
    """Also by nobody whom a pattern permits everything."""
    async with serving(authorization=EVERYTHING) as server, joined(server) as peer:
        await server.broadcaster.broadcast_to_user("user_2", "x", {})
        for room in ("all", "user:user_1"):
            assert (await peer.data("history", {"roomId": room}))["events"] == []
        for event in ("join-room", "history", "presence"):
            assert (await peer.ask(event, {"roomId": "user:user_2"}))["event"] == "permission_denied", event
        assert await peer.heard() == []


# — limits —


async def test_room_full() -> None:
    async with serving(rooms={"max_users_per_room": 1}) as server, joined(server, "tenant_1"), joined(server, user_id="user_2") as peer:
        data = await peer.refusal("join-room", "tenant_1")
        assert data["code"] == "room_full"
        async with joined(server, "tenant_1"):
            assert await server.rooms.get_room_users("tenant_1")


async def test_room_limit_of_the_server() -> None:
    async with (
        serving(rooms={"max_rooms": 1}, authorization={"permissions": {"*": ["read", "write"]}}) as server,
        joined(server, "a") as peer,
    ):
        assert (await peer.refusal("join-room", "b"))["code"] == "room_limit"
        assert (await peer.refusal("x", {}, room="b"))["code"] == "room_limit"


async def test_room_limit_of_a_connection_counts_no_own_streams() -> None:
    async with serving(limits={"rooms_per_connection": 2}, authorization={"permissions": {"*": ["read", "write"]}}) as server:
        async with joined(server) as peer:
            position = {"epoch": "x", "offset": 0}
            await peer.data("join-room", {"roomId": "all", "recover": position})
            await peer.data("join-room", {"roomId": "user:user_1", "recover": position})
            await peer.data("join-room", "a")
            await peer.data("join-room", "b")
            assert (await peer.refusal("join-room", "c"))["code"] == "room_limit"
            await peer.data("leave-room", "a")
            await peer.data("join-room", "c")


async def test_guests_need_a_permission_and_a_room_that_takes_them() -> None:
    async with serving(authorization={"permissions": {"open": ["read"], "shut": ["read"]}}) as server:
        await server.rooms.create_room("open", settings={"allow_guests": True})
        await server.rooms.create_room("shut", settings={"allow_guests": False})
        await server.rooms.create_room("other", settings={"allow_guests": True})
        async with joined(server, "open", role="guest") as guest:
            assert (await guest.refusal("join-room", "shut"))["code"] == "guests_not_allowed"
            assert (await guest.ask("join-room", "other"))["event"] == "permission_denied"


async def test_rooms_that_only_the_application_creates() -> None:
    async with serving(rooms={"create": False}) as server, joined(server) as peer:
        for event, members in (("join-room", {"data": "tenant_1"}), ("x", {"data": {}, "room": "tenant_1"})):
            data = await peer.refusal(event, **members)
            assert data["code"] == "room_not_found" and data["retryable"] is False
        await server.rooms.create_room("tenant_1")
        await peer.data("join-room", "tenant_1")


# — presence —


async def test_presence(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1"), joined(server, "tenant_1"), joined(server, "tenant_1", user_id="user_2", role="admin") as peer:
        data = await peer.data("presence", {"roomId": "tenant_1"})
        assert set(data) == {"roomId", "members", "count"} and data["roomId"] == "tenant_1" and data["count"] == 2
        members = {member["userId"]: member for member in data["members"]}
        assert set(members) == {"user_1", "user_2"} and members["user_2"]["role"] == "admin"
        assert all(set(member) <= {"userId", "role", "since"} and RFC_3339.fullmatch(member["since"]) for member in members.values())


async def test_watching_who_comes_and_goes(server: RealtimeServer) -> None:
    async with joined(server) as watcher, joined(server, "tenant_1", user_id="blind") as blind:
        await watcher.data("join-room", {"roomId": "tenant_1", "presence": True})
        async with joined(server, "tenant_1", user_id="user_2") as first:
            notice = await watcher.next("user.joined")
            assert notice["room"] == "tenant_1" and notice["data"]["userId"] == "user_2" and "offset" not in notice
            async with joined(server, "tenant_1", user_id="user_2"):
                pass
            await first.data("leave-room", "tenant_1")
            left = await watcher.next("user.left")
            assert left["room"] == "tenant_1" and left["data"]["userId"] == "user_2" and "offset" not in left
        assert [message["event"] for message in await blind.heard()] == []


# — out —


async def test_room_closed_by_a_kick(server: RealtimeServer) -> None:
    async with (
        joined(server, "tenant_1") as peer,
        joined(server, "tenant_1") as same,
        joined(server, "tenant_1", user_id="user_2") as other,
    ):
        await server.rooms.kick("tenant_1", "user_1")
        await server.broadcaster.broadcast_to_room("tenant_1", "x", {})
        for kicked in (peer, same):
            closed = await kicked.next("room-closed")
            assert set(closed["data"]) == {"roomId", "reason"} and closed["data"]["roomId"] == "tenant_1" and closed["data"]["reason"]
            assert await kicked.heard() == []
        assert [message["event"] for message in await other.heard()] == ["x"]


async def test_room_closed_by_its_destruction(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        await server.rooms.destroy_room("tenant_1")
        assert (await peer.next("room-closed"))["data"]["roomId"] == "tenant_1"
        assert (await peer.refusal("leave-room", "tenant_1"))["code"] == "not_in_room"


async def test_room_closed_by_a_change_of_role() -> None:
    async with serving(authorization={"roles": {"admin": {"vault": ["read"]}, "user": {"hall": ["read"]}}}) as server:
        async with joined(server, "vault", role="admin") as peer:
            await server.set_role("user_1", "user")
            assert (await peer.next("room-closed"))["data"]["roomId"] == "vault"
            assert (await peer.ask("join-room", "vault"))["event"] == "permission_denied"
            await peer.data("join-room", "hall")


async def test_own_streams_come_without_a_join(server: RealtimeServer) -> None:
    async with joined(server) as one, joined(server) as same, joined(server, user_id="user_2") as other, connecting(server) as nobody:
        await nobody.next("connected")
        await server.broadcaster.broadcast_to_user("user_1", "notification", {"a": 1})
        await server.broadcaster.broadcast_to_all("system.maintenance", {"b": 2})
        for peer in (one, same):
            message = await peer.next("notification")
            assert message["room"] == "user:user_1" and message["offset"] == 1 and message["data"] == {"a": 1}
            assert (await peer.next("system.maintenance"))["room"] == "all"
        assert [message["event"] for message in await other.heard()] == ["system.maintenance"]
        assert await nobody.heard() == []


async def test_one_peers_leaving_without_a_word_is_no_trouble_to_the_rest(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as stays:
        async with joined(server, "tenant_1", user_id="user_2") as goes:
            assert isinstance(goes, Peer)
            goes.connection.transport.abort()
        await stays.data("x", {}, room="tenant_1")
        await stays.next("x")
