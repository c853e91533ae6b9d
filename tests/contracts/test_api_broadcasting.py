"""The public API, "Broadcasting": receipts, positions, and who gets what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import (
    ConfigurationError,
    EventBroadcaster,
    IdempotencyConflict,
    MessageTooLarge,
    ProtocolError,
    RealtimeError,
    RealtimeServer,
    RoomManager,
    where,
)
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.types import Position, Receipt, User
from tests.contracts.peer import Peer, connecting, joined, serving

ROOM = "tenant_1"


async def numbers(peer: Peer) -> list[int]:
    return [message["data"]["n"] for message in await peer.heard()]


async def test_a_receipt(server: RealtimeServer) -> None:
    broadcaster = EventBroadcaster(server=server, rooms=server.rooms)
    receipt = await broadcaster.broadcast_to_room(ROOM, "invoice.created", {"invoiceId": "inv_001", "amount": 1000, "currency": "USD"})
    assert isinstance(receipt, Receipt) and isinstance(receipt.position, Position)
    assert receipt.id and receipt.room == ROOM and receipt.position.offset == 1 and receipt.position.epoch and receipt.duplicate is False
    assert (await broadcaster.broadcast_to_room(ROOM, "x", {})).position == Position(receipt.position.epoch, 2)


async def test_the_streams_of_a_user_and_of_all_are_rooms_inside(server: RealtimeServer) -> None:
    one = await server.broadcaster.broadcast_to_user("user_123", "notification", {"type": "info", "message": "Invoice created successfully"})
    all_ = await server.broadcaster.broadcast_to_all("system.maintenance", {"duration": "2 hours"})
    assert (one.room, all_.room) == ("user:user_123", "all")
    assert one.position is not None and one.position.offset == 1 and all_.position is not None and all_.position.offset == 1


async def test_any_user_id_has_a_stream(server: RealtimeServer) -> None:
    user_id = "somebody ü|*@example.com"
    async with connecting(server, server.auth.issue(user_id=user_id)) as peer:
        await peer.next("connected")
        await server.broadcaster.broadcast_to_user(user_id, "x", {"n": 1})
        assert await numbers(peer) == [1]


async def test_who_gets_what(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as one, joined(server, ROOM, user_id="user_2") as two, joined(server, user_id="user_3") as outside:
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 1})
        await server.broadcaster.broadcast_to_user("user_2", "x", {"n": 2})
        await server.broadcaster.broadcast_to_all("x", {"n": 3})
        assert await numbers(one) == [1, 3]
        assert await numbers(two) == [1, 2, 3]
        assert await numbers(outside) == [3]


FILTERS: list[Any] = [
    lambda user: user.role == "admin" or user.role == "user",
    where(role__in=["admin", "user"]),
    "admins and users",
]


@pytest.mark.parametrize("filter", FILTERS, ids=["callable", "where", "registered"])
async def test_filter_and_exclude(server: RealtimeServer, filter: Any) -> None:
    @server.broadcaster.filter("admins and users")
    def admins_and_users(user: User) -> bool:
        return user.role in ("admin", "user")

    async with (
        joined(server, ROOM, user_id="a", role="admin") as admin,
        joined(server, ROOM, user_id="b", role="user") as user,
        joined(server, ROOM, user_id="c", role="auditor") as auditor,
        joined(server, ROOM, user_id="user_456", role="admin") as excluded,
    ):
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 1}, filter=filter, exclude=["user_456"])
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 2})
        assert [await numbers(peer) for peer in (admin, user, auditor, excluded)] == [[1, 2], [1, 2], [2], [2]]
    for user_id, role, seen in (("a", "admin", [1, 2]), ("c", "auditor", [2]), ("user_456", "admin", [2])):
        async with joined(server, user_id=user_id, role=role) as peer:
            events = (await peer.data("history", {"roomId": ROOM}))["events"]
            assert [event["data"]["n"] for event in events] == seen, "and so in history"
            await peer.data("join-room", {"roomId": ROOM, "rewind": 10})
            assert await numbers(peer) == seen, "and so in recovery"


async def test_a_bare_callable_is_decided_at_publish(server: RealtimeServer) -> None:
    """For those who are present or gone for less than the recovery window: nobody who comes later gets it."""
    async with joined(server, ROOM, user_id="gone") as gone:
        last = await gone.data("join-room", ROOM)
    async with joined(server, ROOM, user_id="present") as present:
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 1}, filter=lambda user: True)
        assert await numbers(present) == [1]
    async with joined(server, user_id="gone") as gone:
        data = await gone.data("join-room", {"roomId": ROOM, "recover": {"epoch": last["epoch"], "offset": last["offset"]}})
        assert data["recovered"] is True and await numbers(gone) == [1]
    async with joined(server, user_id="later") as later:
        await later.data("join-room", {"roomId": ROOM, "rewind": 10})
        assert await numbers(later) == []


async def test_where_looks_at_every_attribute_and_claim(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1", tenant_id="1", claims={"plan": "gold"})
    async with connecting(server, token) as peer:
        await peer.data("join-room", ROOM)
        conditions = [where(plan="gold"), where(plan="silver"), where(tenant_id="1", id="user_1"), where(tenant_id__in=["2"])]
        for n, condition in enumerate(conditions):
            await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": n}, filter=condition)
        assert [message["data"]["n"] for message in await peer.heard() if message["event"] == "x"] == [0, 2]


async def test_a_filter_that_fails_lets_nobody_have_it(server: RealtimeServer) -> None:
    @server.broadcaster.filter("broken")
    def broken(user: User) -> bool:
        raise ValueError("no")

    async with joined(server, ROOM) as peer:
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 1}, filter="broken")
        await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 2})
        assert await numbers(peer) == [2]


async def test_an_unknown_filter(server: RealtimeServer) -> None:
    with pytest.raises(ConfigurationError):
        await server.broadcaster.broadcast_to_room(ROOM, "x", {}, filter="nobody registered this")
    with pytest.raises(ConfigurationError):
        where(role__like="a%")


async def test_idempotency(server: RealtimeServer) -> None:
    broadcaster = server.broadcaster
    async with joined(server, ROOM) as peer:
        first = await broadcaster.broadcast_to_room(ROOM, "x", {"n": 1}, idempotency_key="key")
        again = await broadcaster.broadcast_to_room(ROOM, "x", {"n": 1}, idempotency_key="key")
        assert first.duplicate is False and again.duplicate is True and (again.id, again.position) == (first.id, first.position)
        with pytest.raises(IdempotencyConflict):
            await broadcaster.broadcast_to_room(ROOM, "x", {"n": 2}, idempotency_key="key")
        assert (await peer.data("x", {"n": 3}, room=ROOM, id="key"))["duplicate"] is False, "a user's ids are not the server's"
        assert await numbers(peer) == [1, 3]


async def test_idempotency_lasts_five_minutes_and_as_long_as_the_event_is_stored() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as server:
        await server.broadcaster.broadcast_to_room(ROOM, "x", {}, idempotency_key="key")
        await clock.advance(299)
        assert (await server.broadcaster.broadcast_to_room(ROOM, "x", {}, idempotency_key="key")).duplicate is True
        await clock.advance(400)
        again = await server.broadcaster.broadcast_to_room(ROOM, "x", {}, idempotency_key="key")
        assert again.duplicate is True, "the store is unique on the same, for as long as it keeps the event"


async def test_many_at_once_have_one_order(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as one, joined(server, ROOM, user_id="user_2") as two:
        receipts = await asyncio.gather(*(server.broadcaster.broadcast_to_room(ROOM, "x", {"n": n}) for n in range(100)))
        assert sorted(receipt.position.offset for receipt in receipts if receipt.position) == list(range(1, 101))
        heard = await one.heard()
        assert [message["offset"] for message in heard] == list(range(1, 101))
        assert await two.heard() == heard


async def test_broadcast_many(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        items: list[dict[str, Any]] = [{"room": ROOM, "event": "x", "data": {"n": n}} for n in range(3)]
        receipts = await server.broadcaster.broadcast_many(items + [{"user": "user_1", "event": "x", "data": {"n": 3}}])
        assert [(receipt.room, receipt.position.offset) for receipt in receipts if receipt.position] == [
            (ROOM, 1),
            (ROOM, 2),
            (ROOM, 3),
            ("user:user_1", 1),
        ]
        assert sorted(await numbers(peer)) == [0, 1, 2, 3]


async def test_one_bad_item_sends_none_of_them(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        with pytest.raises(RealtimeError):
            await server.broadcaster.broadcast_many([{"room": ROOM, "event": "x", "data": {"n": 1}}, {"room": ROOM, "event": "not a name"}])
        assert await peer.heard() == []


async def test_volatile_and_unpersisted(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        assert (await server.broadcaster.broadcast_to_room(ROOM, "cursor", {"n": 1}, volatile=True)).position is None
        receipt = await server.broadcaster.broadcast_to_room(ROOM, "x", {"n": 2}, persist=False)
        assert receipt.position is not None and receipt.position.offset == 1
        assert await numbers(peer) == [1, 2]


@pytest.mark.parametrize(("room", "event"), [("a b", "x"), ("", "x"), (ROOM, "a b"), (ROOM, ""), (ROOM, "joined-room")])
async def test_bad_names(server: RealtimeServer, room: str, event: str) -> None:
    with pytest.raises(RealtimeError):
        await server.broadcaster.broadcast_to_room(room, event, {})


@pytest.mark.parametrize(
    "data",
    [object(), {1, 2, object()}, float("nan"), 2**60, "a\0b", "\ud800", {"a": [b"\xff", object()]}],
    ids=["an object", "a set with one", "not a number", "an integer beyond 2^53", "NUL", "half a surrogate", "an object inside"],
)
async def test_data_that_cannot_be_sent(server: RealtimeServer, data: Any) -> None:
    async with joined(server, ROOM) as peer:
        with pytest.raises(RealtimeError):
            await server.broadcaster.broadcast_to_room(ROOM, "x", data)
        await server.broadcaster.broadcast_to_room(ROOM, "y", {})
        assert [message["event"] for message in await peer.heard()] == ["y"]


async def test_at_most_256_kib(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        await server.broadcaster.broadcast_to_room(ROOM, "x", "x" * (256 * 1024 - 2))
        assert len((await peer.next("x"))["data"]) == 256 * 1024 - 2
        with pytest.raises(MessageTooLarge):
            await server.broadcaster.broadcast_to_room(ROOM, "x", "x" * (256 * 1024 + 1))


async def test_a_broker_alone_in_a_process_without_sockets() -> None:
    broker = MemoryBroker()
    async with serving(broker=broker) as server, joined(server, ROOM) as peer:
        broadcaster = EventBroadcaster(broker=broker)
        receipt = await broadcaster.broadcast_to_room(ROOM, "x", {"n": 1}, filter=where(role="user"))
        assert receipt.position is not None
        assert await numbers(peer) == [1]


def test_a_broadcaster_needs_one_of_the_two() -> None:
    with pytest.raises(ConfigurationError):
        EventBroadcaster()
    with pytest.raises(ConfigurationError):
        EventBroadcaster(rooms=RoomManager())


async def test_a_socket_that_is_kicked_while_events_wait_gets_none_after(server: RealtimeServer) -> None:
    async with joined(server, ROOM) as peer:
        await server.broadcaster.broadcast_to_room(ROOM, "before", {"n": 1})
        await server.rooms.kick(ROOM, "user_1")
        await server.broadcaster.broadcast_to_room(ROOM, "after", {"n": 2})
        assert [message["event"] for message in await peer.heard()] == ["before", "room-closed"]


async def test_bad_room_for_a_client_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        await EventBroadcaster(broker=MemoryBroker()).broadcast_to_room("no room", "x", {})
