"""Publishing by the server: what is checked before anything is sent, receipts, audiences."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from aibos_realtime import (
    ConfigurationError,
    EventBroadcaster,
    IdempotencyConflict,
    MessageTooLarge,
    ProtocolError,
    RoomManager,
    ValidationError,
    where,
)
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.pipeline.broadcaster import new_id
from aibos_realtime.protocol.messages import RESERVED
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import MemoryServer, memory_server
from aibos_realtime.types import Broadcast, User

OPEN = {"permissions": {"*": ["read", "write"]}}


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    async with memory_server(authorization=OPEN) as net:
        yield net


async def test_the_snippet(net: MemoryServer) -> None:
    broadcaster = EventBroadcaster(server=net.server, rooms=(rooms := RoomManager()))
    await rooms.create_room("tenant_123")
    clients = {name: await net.connect(name, role=role) for name, role in (("user_123", "admin"), ("user_456", "user"), ("user_789", "other"))}
    for client in clients.values():
        await client.request("join-room", "tenant_123")
    await broadcaster.broadcast_to_room(
        "tenant_123",
        "invoice.created",
        {"invoiceId": "inv_001"},
        filter=lambda user: user.role == "admin" or user.role == "user",
        exclude=["user_456"],
    )
    await broadcaster.broadcast_to_user("user_123", "notification", {"type": "info"})
    await broadcaster.broadcast_to_all("system.maintenance", {"duration": "2 hours"})
    received = {name: [message["event"] for message in await client.take_all()] for name, client in clients.items()}
    assert received == {
        "user_123": ["invoice.created", "notification", "system.maintenance"],
        "user_456": ["system.maintenance"],
        "user_789": ["system.maintenance"],
    }
    assert net.server.rooms.get("tenant_123") is rooms.get("tenant_123")


async def test_receipts_and_repeating(net: MemoryServer) -> None:
    broadcast = net.server.broadcaster.broadcast_to_room
    first = await broadcast("lobby", "note", 1, idempotency_key="k")
    again = await broadcast("lobby", "note", 1, idempotency_key="k")
    assert (first.id, first.room, first.duplicate, first.position and first.position.offset) == ("k", "lobby", False, 1)
    assert again.duplicate and again.position == first.position and net.server.metrics.events == 1
    with pytest.raises(IdempotencyConflict):
        await broadcast("lobby", "note", 2, idempotency_key="k")
    assert len({new_id() for _ in range(1000)}) == 1000
    for key in ("", "x" * 129):
        with pytest.raises(ValidationError, match="idempotency_key"):
            await broadcast("lobby", "note", 1, idempotency_key=key)


@dataclass
class Invoice:
    id: uuid.UUID
    amount: Decimal
    at: datetime


async def test_data_of_the_servers_own_kinds(net: MemoryServer) -> None:
    invoice = Invoice(uuid.UUID(int=5), Decimal("10.50"), datetime(2024, 1, 1, tzinfo=UTC))
    await net.server.broadcaster.broadcast_to_room("lobby", "invoice", invoice)
    ann = await net.connect("ann")
    (event,) = (await ann.request("history", {"roomId": "lobby"}))["events"]
    assert event["data"] == {"id": "00000000-0000-0000-0000-000000000005", "amount": "10.50", "at": "2024-01-01T00:00:00Z"}


def nested(levels: int) -> Any:
    return [] if levels == 1 else [nested(levels - 1)]


UNSENDABLE = [object(), {1, object()}, "\ud800", "a\0b", {"\0": 1}, 2**53 + 1, -(2**64), 2**200, nested(33), nested(700)]


@pytest.mark.parametrize("data", UNSENDABLE, ids=range(len(UNSENDABLE)))
async def test_data_that_cannot_be_sent(net: MemoryServer, data: Any) -> None:
    with pytest.raises(ValidationError):
        await net.server.broadcaster.broadcast_to_room("lobby", "note", data)
    assert (await net.server.broker.position("lobby")).offset == 0


async def test_data_at_the_limits(net: MemoryServer) -> None:
    broadcast = net.server.broadcaster.broadcast_to_room
    for data in (nested(32), 2**53, -(2**53), "x" * (256 * 1024 - 2), "😀"):
        await broadcast("lobby", "note", data)
    with pytest.raises(MessageTooLarge, match="262144"):
        await broadcast("lobby", "note", "x" * (256 * 1024 - 1))


async def test_names(net: MemoryServer) -> None:
    broadcaster = net.server.broadcaster
    for room, event in (("a b", "note"), ("", "note"), ("lobby", "a b"), ("lobby", "")):
        with pytest.raises(ProtocolError):
            await broadcaster.broadcast_to_room(room, event)
    for event in RESERVED:
        with pytest.raises(ValidationError, match="reserved"):
            await broadcaster.broadcast_to_all(event)
    await broadcaster.broadcast_to_user("anybody at all ü", "note")


async def test_filters_by_name_by_function_and_their_mistakes(net: MemoryServer) -> None:
    broadcaster = net.server.broadcaster
    ann, boss = await net.connect("ann"), await net.connect("boss", role="admin")
    for client in (ann, boss):
        await client.request("join-room", "lobby")

    @broadcaster.filter("approvers")
    def approvers(user: User) -> bool:
        return user.role == "admin"

    for filter in ("approvers", approvers, where(role="admin"), lambda user: user.role == "admin"):
        await broadcaster.broadcast_to_room("lobby", "note", None, filter=filter)
    assert len(await boss.take_all()) == 4 and await ann.take_all() == []
    for wrong in ("nobody", {"role": "admin"}, 5):
        with pytest.raises(ConfigurationError, match="^filter: "):
            await broadcaster.broadcast_to_room("lobby", "note", None, filter=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="already"):
        broadcaster.filter("approvers")(lambda user: True)


@pytest.mark.parametrize("exclude", ["user_456", [456], [User("ann")]])
async def test_an_exclusion_that_would_exclude_nobody_is_refused(net: MemoryServer, exclude: Any) -> None:
    with pytest.raises(ValidationError, match="^exclude"):
        await net.server.broadcaster.broadcast_to_room("lobby", "note", None, exclude=exclude)


async def leave_and_come_back(clock: ManualClock, away: float, **rooms: Any) -> list[str]:
    """Somebody leaves a room for `away` seconds; an event with a function as its filter comes; he recovers. The events that he then gets."""
    async with memory_server(clock=clock, authorization=OPEN, rooms=rooms) as net:
        first = await net.connect("ann")
        joined = await first.request("join-room", "lobby")
        first.cut()
        await first.closed()
        await clock.advance(away)
        await net.server.broadcaster.broadcast_to_room("lobby", "note", None, filter=lambda user: user.id == "ann")
        second = await net.connect("ann")
        answer = await second.request("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": joined["offset"]}})
        assert answer["recovered"] is True
        return [message["event"] for message in await second.take_all()]


async def test_a_function_is_decided_for_those_too_who_may_still_recover() -> None:
    assert await leave_and_come_back(ManualClock(), 200) == ["note"]


async def test_also_where_the_room_was_destroyed_in_between() -> None:
    assert await leave_and_come_back(ManualClock(), 60, room_timeout=10) == ["note"]


async def test_a_function_for_everybody_reaches_who_comes_back(net: MemoryServer) -> None:
    first = await net.connect("ann")
    position = first.connected["streams"]["all"]
    first.cut()
    await first.closed()
    await net.server.broadcaster.broadcast_to_all("note", None, filter=lambda user: user.id == "ann")
    second = await net.connect("ann")
    assert (await second.request("join-room", {"roomId": "all", "recover": position}))["recovered"] is True
    assert [message["event"] for message in await second.take_all()] == ["note"]


async def test_many_at_once(net: MemoryServer) -> None:
    ann = await net.connect("ann")
    await ann.request("join-room", "lobby")
    receipts = await net.server.broadcaster.broadcast_many(
        [
            {"room": "lobby", "event": "one", "data": 1},
            Broadcast(user="ann", event="two"),
            {"all": True, "event": "three", "exclude": ["bob"]},
            {"room": "lobby", "event": "four", "volatile": True},
        ]
    )
    assert [receipt.room for receipt in receipts] == ["lobby", "user:ann", "all", "lobby"] and receipts[3].position is None
    assert sorted(message["event"] for message in await ann.take_all()) == ["four", "one", "three", "two"]


ITEMS: list[Any] = [{"event": "x"}, {"event": "x", "room": "a", "user": "b"}, {"room": "a"}, {"event": "x", "room": "a", "colour": 1}]
ITEMS += [{"event": "ack", "room": "a"}, {"event": "x", "room": "a", "exclude": "ann"}]


@pytest.mark.parametrize("wrong", ITEMS)
async def test_all_of_many_are_checked_before_the_first_is_sent(net: MemoryServer, wrong: Any) -> None:
    with pytest.raises(ValidationError):
        await net.server.broadcaster.broadcast_many([{"room": "a", "event": "fine"}, wrong])
    assert (await net.server.broker.position("a")).offset == 0


async def test_without_a_server() -> None:
    broker = MemoryBroker(clock=ManualClock())
    broadcaster = EventBroadcaster(broker=broker)
    assert (await broadcaster.broadcast_to_room("lobby", "note", 1, filter=where(role="admin"))).position is not None
    assert (await broadcaster.broadcast_to_room("lobby", "note", 1, volatile=True)).position is None
    with pytest.raises(ConfigurationError, match="where"):
        await broadcaster.broadcast_to_room("lobby", "note", 1, filter=lambda user: True)
    for wrong in ({}, {"broker": broker, "server": object()}):
        with pytest.raises(ConfigurationError, match="exactly one"):
            EventBroadcaster(**wrong)  # type: ignore[arg-type]


def test_a_process_that_forks_does_not_give_an_id_twice() -> None:
    """Parent and child count on from the same number: with one prefix their ids would be the same, and the second event a duplicate."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read().partition("-")[0] != new_id().partition("-")[0]


async def test_a_user_has_an_id_that_can_be_stored() -> None:
    broadcaster = EventBroadcaster(broker=MemoryBroker(clock=ManualClock()))
    for user in ("", "a\0b", "\ud800", "x" * 129):
        with pytest.raises(ValidationError):
            await broadcaster.broadcast_to_user(user, "note")
        with pytest.raises(ValidationError):
            await broadcaster.broadcast_many([{"user": user, "event": "note"}])


async def test_a_filter_that_json_cannot_express_is_refused_before_it_harms_others() -> None:
    """It used to be found when the batch was written, and cost every event of the batch."""
    broadcaster = EventBroadcaster(broker=MemoryBroker(clock=ManualClock()))
    wrong: list[dict[str, Any]] = [
        {"filter": where(x=object())},
        {"filter": where(x=float("nan"))},
        {"exclude": ["a\0b"]},
        {"exclude": ["x" * 300_000]},
    ]
    for options in wrong:
        with pytest.raises(ValidationError, match="filter, exclude"):
            await broadcaster.broadcast_to_room("lobby", "note", **options)
