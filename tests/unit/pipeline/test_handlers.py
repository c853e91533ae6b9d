"""The built-in requests, one by one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import (
    AuthenticationError,
    IdempotencyConflict,
    MessageTooLarge,
    NotInRoom,
    PermissionDenied,
    ProtocolError,
    RealtimeServer,
    RoomLimitExceeded,
    RoomNotFound,
    Socket,
    User,
    WebSocketAuthorization,
    where,
)
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.errors import RealtimeError
from aibos_realtime.pipeline.eager import start
from aibos_realtime.protocol.messages import Position
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import MemoryServer, memory_server

SECRET = "k7Qz-0pLr5Tn2Wx8" * 3
OPEN: dict[str, Any] = {"authorization": {"permissions": {"*": ["read", "write"]}}}
KEY: dict[str, Any] = {"authentication": {"jwt_secret": SECRET}, "persistence": {"database": {"url": "memory://"}}}


async def refused(answer: Any, kind: type[RealtimeError]) -> RealtimeError:
    with pytest.raises(kind) as caught:
        await answer
    return caught.value


# — authenticate —


@pytest.mark.parametrize("shape", ["text", "mapping"])
async def test_authenticating_later(shape: str) -> None:
    async with memory_server(**KEY) as net:
        client = await net.connect()
        await refused(client.request("join-room", "tenant_t1"), AuthenticationError)
        token = net.server.auth.issue(user_id="ann", tenant_id="t1", expires_in=100)
        data = await client.request("authenticate", token if shape == "text" else {"token": token})
        assert data["success"] and data["user"] == {"id": "ann", "role": "user", "tenantId": "t1"} and data["streams"].keys() == {"user:ann", "all"}
        assert data["expiresAt"] == client.socket.expires_at
        await client.request("join-room", "tenant_t1")


async def test_a_bad_token_is_answered_and_closes_with_4500() -> None:
    async with memory_server(**KEY) as net:
        client = await net.connect()
        data = await client.request("authenticate", "nonsense")
        assert data == {"success": False, "error": "The token is not valid."}
        assert await client.closed() == 4500
        silent = await net.connect()
        silent.send("authenticate", "nonsense")
        assert (await silent.receive())["event"] == "authenticated", "said also where no ref was given"


async def test_what_is_no_token_at_all() -> None:
    async with memory_server(**KEY) as net:
        client = await net.connect()
        shapes: list[Any] = [5, {}, {"token": 5}, [], None]
        for wrong in shapes:
            assert (await refused(client.request("authenticate", wrong), ProtocolError)).code == "bad_request"
        assert client.socket.is_open


async def test_refreshing_keeps_the_connection_and_rechecks_rights() -> None:
    async with memory_server(**KEY, authorization={"roles": {"admin": {"*": ["read"]}, "user": {"a": ["read"]}}}) as net:
        issue = net.server.auth.issue
        client = await net.connect("ann", role="admin")
        for room in ("a", "b"):
            await client.request("join-room", room)
        assert (await client.request("authenticate", issue(user_id="ann", role="user")))["success"]
        assert client.socket.rooms == {"a"}
        assert (await client.receive("room-closed"))["data"] == {"roomId": "b", "reason": "permission"}
        other = await client.request("authenticate", issue(user_id="bob"))
        assert not other["success"] and client.socket.user is not None and client.socket.user.id == "ann" and client.socket.is_open
        assert not (await client.request("authenticate", "nonsense"))["success"] and client.socket.is_open


async def test_too_many_connections_of_one_user() -> None:
    async with memory_server(**KEY, limits={"connections_per_user": 2}) as net:
        for _ in range(2):
            await net.connect("ann")
        late = await net.connect()
        assert not (await late.request("authenticate", net.server.auth.issue(user_id="ann")))["success"]
        assert await late.closed() == 4504


async def test_bad_tokens_are_held_back_and_good_ones_never() -> None:
    clock = ManualClock()
    async with memory_server(**KEY, clock=clock, limits={"connections_per_user": 1}) as net:
        for _ in range(5):
            client = await net.connect()
            client.send("authenticate", "nonsense")
            assert len(await client.take_all()) == 1, "five a minute are answered at once"
        slow = await net.connect()
        slow.send("authenticate", "nonsense")
        assert await slow.take_all() == []
        good = await net.connect()
        assert (await good.request("authenticate", net.server.auth.issue(user_id="ann")))["success"]
        await clock.advance(1)
        assert [message["event"] for message in await slow.take_all()] == ["authenticated"]


async def test_a_good_token_for_which_there_is_no_place_is_no_failed_attempt() -> None:
    async with memory_server(**KEY, limits={"connections_per_user": 1}) as net:
        await net.connect("ann")
        for _ in range(7):
            client = await net.connect()
            client.send("authenticate", net.server.auth.issue(user_id="ann"))
            assert len(await client.take_all()) == 1, "a good token is never delayed"


# — rooms —


@pytest.mark.parametrize(
    "data", [None, 5, {}, {"roomId": 5}, {"roomId": "a b"}, {"roomId": ""}, "x" * 129, {"roomId": "a", "recover": {"epoch": "x"}}]
)
async def test_what_names_no_room(data: Any) -> None:
    async with memory_server(**OPEN) as net:
        client = await net.connect("ann")
        await refused(client.request("join-room", data), ProtocolError)
        assert len(net.server.rooms) == 0


async def test_a_connection_is_in_128_rooms_at_most() -> None:
    async with memory_server(**OPEN, limits={"messages_per_second": None}) as net:
        client = await net.connect("ann")
        for number in range(128):
            await client.request("join-room", f"r{number}")
        assert (await refused(client.request("join-room", "r128"), RoomLimitExceeded)).code == "room_limit"
        await client.request("join-room", "r5")
        await client.request("leave-room", "r5")
        await client.request("join-room", "r128")
        assert client.connected["limits"]["rooms"] == 128


@pytest.mark.parametrize("ephemeral", [True, False])
async def test_a_join_between_two_events_of_one_turn(ephemeral: bool) -> None:
    async with memory_server(**OPEN, rooms={"patterns": {"a": {"ephemeral": ephemeral}}}) as net:
        ann, broadcaster = await net.connect("ann"), net.server.broadcaster
        before = asyncio.ensure_future(broadcaster.broadcast_to_room("a", "before", 1))
        joining = asyncio.ensure_future(ann.request("join-room", "a"))
        after = asyncio.ensure_future(broadcaster.broadcast_to_room("a", "after", 2))
        position = (await joining)["offset"]
        await asyncio.gather(before, after)
        told = [message for message in await ann.take_all() if message["event"] in ("before", "after")]
        assert [message["offset"] for message in told] == list(range(position + 1, 3)), "what the answer does not cover, once and in order"
        [room] = [net.server.rooms.get("a")]
        assert room is not None and not room.joining and room.socket_count == 1


async def test_what_is_published_while_the_position_is_asked_for_is_covered_by_it() -> None:
    class Slow(MemoryBroker):
        async def position(self, room: str) -> Position:
            await asyncio.sleep(0)
            if room == "a":
                assert start(net.server.broadcaster.broadcast_to_room("a", "meanwhile", 1))[1] is None
            return await super().position(room)

    async with memory_server(**OPEN, broker=Slow()) as net:
        ann = await net.connect("ann")
        answer = await ann.request("join-room", "a")
        assert answer["offset"] == 1 and await ann.take_all() == []
        await net.server.broadcaster.broadcast_to_room("a", "after", 2)
        assert [message["offset"] for message in await ann.take_all()] == [2]


async def test_leaving() -> None:
    async with memory_server(**OPEN) as net:
        client = await net.connect("ann")
        await client.request("join-room", "a")
        assert await client.request("leave-room", "a") == {"roomId": "a"}
        await refused(client.request("leave-room", {"roomId": "a"}), NotInRoom)


async def test_presence_and_members_in_the_answer() -> None:
    async with memory_server(**OPEN, rooms={"max_users_per_room": None}, connections={"max_connections": None}) as net:
        clients = [await net.connect(f"u{number}") for number in range(102)]
        answers = [await client.request("join-room", "a") for client in clients[:101]]
        assert [member["userId"] for member in answers[1]["members"]] == ["u0", "u1"] and answers[0]["members"][0]["since"].endswith("Z")
        assert "members" in answers[99] and "members" not in answers[100], "of a large room only who asks gets the list"
        assert len((await clients[101].request("join-room", {"roomId": "a", "presence": True}))["members"]) == 102
        presence = await clients[0].request("presence", "a")
        assert presence["count"] == len(presence["members"]) == 102
        assert await clients[0].request("presence", "nowhere") == {"roomId": "nowhere", "members": [], "count": 0}


async def test_a_missing_room_and_a_forbidden_one_get_the_same_answer() -> None:
    async with memory_server(authorization={"permissions": {"mine": ["read"]}}) as net:
        await net.server.rooms.create_room("theirs")
        client = await net.connect("ann")
        for request in ("join-room", "presence"):
            there = await refused(client.request(request, "theirs"), PermissionDenied)
            missing = await refused(client.request(request, "nowhere"), PermissionDenied)
            assert (there.message, there.code) == (missing.message, missing.code) and "theirs" not in there.message
        await refused(client.request("history", {"roomId": "theirs"}), PermissionDenied)
        await refused(client.request("note", 1, room="mine"), PermissionDenied)


@pytest.mark.parametrize("room", ["user:bob", "all"])
async def test_others_own_streams_are_closed_even_to_who_may_everything(room: str) -> None:
    async with memory_server(**OPEN) as net:
        client = await net.connect("ann")
        await refused(client.request("note", 1, room=room), PermissionDenied)
        if room != "all":
            for request in ("join-room", "history"):
                await refused(client.request(request, {"roomId": room}), PermissionDenied)
        await refused(client.request("leave-room", room), NotInRoom)
        assert client.socket.rooms == frozenset()


# — history —


async def fill(net: MemoryServer, times: int, **how: Any) -> None:
    for number in range(1, times + 1):
        await net.server.broadcaster.broadcast_to_room("a", "note", number, **how)


async def test_pages_of_history() -> None:
    async with memory_server(**OPEN) as net:
        await fill(net, 10)
        client = await net.connect("ann")
        page = await client.request("history", {"roomId": "a", "limit": 4})
        assert ([event["data"] for event in page["events"]], page["more"]) == ([7, 8, 9, 10], True)
        before = {"epoch": page["epoch"], "offset": 7}
        assert [event["offset"] for event in (await client.request("history", {"roomId": "a", "before": before}))["events"]] == [1, 2, 3, 4, 5, 6]
        page = await client.request("history", {"roomId": "a", "after": before, "limit": 2})
        assert ([event["offset"] for event in page["events"]], page["more"]) == ([8, 9], True)
        event = page["events"][0]
        assert event.keys() == {"event", "room", "offset", "id", "data", "timestamp"}
        other = {"epoch": "other", "offset": 3}
        assert (await refused(client.request("history", {"roomId": "a", "after": other}), ProtocolError)).code == "unrecoverable_position"


async def test_history_hides_what_was_not_for_this_user() -> None:
    async with memory_server(**OPEN) as net:
        await fill(net, 3, filter=where(role="admin"))
        await fill(net, 1)
        client = await net.connect("ann")
        assert [event["offset"] for event in (await client.request("history", {"roomId": "a"}))["events"]] == [4]


E1 = {"epoch": "e", "offset": 1}


@pytest.mark.parametrize("more", [{"limit": 0}, {"limit": 301}, {"limit": -1}, {"limit": "x"}, {"before": E1, "after": E1}])
async def test_history_that_cannot_be_asked_for(more: dict[str, Any]) -> None:
    async with memory_server(**OPEN) as net:
        await refused((await net.connect("ann")).request("history", {"roomId": "a"} | more), ProtocolError)


# — publish —


async def test_publishing_needs_write_and_no_membership() -> None:
    async with memory_server(authorization={"permissions": {"a": ["write"], "b": ["read"]}}) as net:
        client = await net.connect("ann")
        receipt = await client.request("note", {"x": 1}, room="a", id="k")
        assert receipt == {"id": "k", "offset": 1, "epoch": receipt["epoch"], "duplicate": False}
        assert (await client.request("note", {"x": 1}, room="a", id="k"))["duplicate"]
        await refused(client.request("note", {"x": 2}, room="a", id="k"), IdempotencyConflict)
        await refused(client.request("note", 1, room="b"), PermissionDenied)
        assert net.server.rooms.get("a") is not None and net.server.metrics.events == 1


async def test_the_id_is_each_publishers_own() -> None:
    async with memory_server(**OPEN) as net:
        for name in ("ann", "bob"):
            assert not (await (await net.connect(name)).request("note", name, room="a", id="k"))["duplicate"]


async def test_how_large_an_event_may_be() -> None:
    async with memory_server(**OPEN, limits={"broadcast_bytes": 100}) as net:
        client = await net.connect("ann")
        await client.request("note", "x" * 98, room="a")
        assert (await refused(client.request("note", "x" * 99, room="a"), MessageTooLarge)).code == "message_too_large"


async def test_where_publishing_makes_no_room() -> None:
    async with memory_server(**OPEN, rooms={"create": False}) as net:
        client = await net.connect("ann")
        await refused(client.request("note", 1, room="a"), RoomNotFound)
        await refused(client.request("join-room", "a"), RoomNotFound)
        await net.server.rooms.create_room("a")
        await client.request("note", 1, room="a")


async def test_an_ephemeral_room_keeps_nothing() -> None:
    async with memory_server(**OPEN, rooms={"patterns": {"bench:*": {"ephemeral": True}}}) as net:
        client = await net.connect("ann")
        await client.request("join-room", "bench:1")
        assert (await client.request("note", 1, room="bench:1"))["offset"] == 1
        assert (await client.receive("note"))["offset"] == 1 and (await client.request("history", {"roomId": "bench:1"}))["events"] == []


# — taken over by the application —


def ported() -> RealtimeServer:
    """The event handlers of the source document, line by line."""
    server = RealtimeServer(**KEY)

    @server.on("connection")
    async def on_connection(socket: Socket) -> None:
        @socket.on("authenticate")
        async def authenticate(token: str) -> None:
            if token == "sesame":
                socket.user = User("ann", "user", "t1")
            socket.emit("seen", token)

        @socket.on("join-room")
        async def join(room_id: str) -> None:
            await socket.join(room_id)
            socket.emit("joined-room", {"roomId": room_id})

        @socket.on("leave-room")
        async def leave(room_id: str) -> None:
            await socket.leave(room_id)

        @socket.on("presence")
        def presence(data: Any) -> Any:
            return {"mine": data}

    return server


async def test_an_overridden_request_gets_exactly_one_built_in_answer() -> None:
    async with memory_server(ported()) as net:
        client = await net.connect()
        assert not (await client.request("authenticate", {"token": "wrong"}))["success"] and client.socket.is_open
        data = await client.request("authenticate", "sesame")
        assert data["success"] and data["user"]["id"] == "ann" and data["streams"].keys() == {"user:ann", "all"}
        assert (await client.request("join-room", {"roomId": "tenant_t1"}))["roomId"] == "tenant_t1"
        assert await client.request("presence", "tenant_t1") == {"mine": "tenant_t1"}
        assert await client.request("leave-room", "tenant_t1") == {"roomId": "tenant_t1"}
        events = [message["event"] for message in await client.take_all()]
        assert events == ["seen", "seen", "joined-room"], "what a handler emits goes out beside it, without a ref"


async def test_a_ported_handler_cannot_let_anybody_in_who_has_no_right() -> None:
    async with memory_server(ported()) as net:
        client = await net.connect("ann", tenant_id="t1")
        await refused(client.request("join-room", "tenant_t2"), PermissionDenied)
        assert client.socket.rooms == frozenset()


async def test_a_role_that_changes_ends_memberships() -> None:
    async with memory_server(authorization={"roles": {"admin": {"a": ["read"]}}}) as net:
        client = await net.connect("ann", role="admin")
        await client.request("join-room", "a")
        assert await net.server.set_role("ann", "user") == 1
        assert client.socket.rooms == frozenset() and (await client.receive())["event"] == "room-closed"


async def test_requests_wait_for_a_check_in_order() -> None:
    gate = asyncio.Event()

    async def check(user: User, resource: str, action: str) -> bool:
        await gate.wait()
        return True

    async with memory_server(authorization=WebSocketAuthorization(check=check)) as net:
        client = await net.connect("ann")
        client.send("join-room", "a", ref=1)
        client.send("note", 1, room="a", ref=2)
        client.send("ping", ref=3)
        assert [message["ref"] for message in await client.take_all()] == [3]
        gate.set()
        messages = await client.take_all()
        assert [message["ref"] for message in messages if "ref" in message] == [1, 2]
        assert [message["offset"] for message in messages if message["event"] == "note"] == [1]
