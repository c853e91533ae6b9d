"""From the log to the members: one write per loop turn, in order, to those who were in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aibos_realtime import where
from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.server import MemoryServer, memory_server

OPEN = {"permissions": {"*": ["read", "write"]}}


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    async with memory_server(authorization=OPEN) as net:
        yield net


async def test_the_same_bytes_for_every_member(net: MemoryServer) -> None:
    clients = [await net.connect(name) for name in ("ann", "bob")]
    for client in clients:
        await client.request("join-room", "lobby")
    await net.server.broadcaster.broadcast_to_room("lobby", "note", {"a": 1})
    first, second = [await client.end.receive() for client in clients]
    assert first == second


async def test_the_events_of_one_turn_are_one_write(net: MemoryServer) -> None:
    client = await net.connect("ann")
    await client.request("join-room", "lobby")
    writes: list[bytes] = []
    client.socket.write = writes.append
    for number in range(5):
        await net.server.broadcaster.broadcast_to_room("lobby", "note", number)
    await settle()
    assert len(writes) == 1 and writes[0].count(b'"event":"note"') == 5
    assert net.server.metrics.deliveries == 5 and net.server.metrics.bytes_out >= len(writes[0])


async def test_json_and_messagepack_members_get_the_same_event(net: MemoryServer) -> None:
    ann, bob = await net.connect("ann"), await net.connect("bob", codec="msgpack")
    for client in (ann, bob):
        await client.request("join-room", "lobby")
    await net.server.broadcaster.broadcast_to_room("lobby", "note", {"a": [1, 2.5, None, "é"]})
    assert await ann.receive() == await bob.receive()


async def test_each_event_goes_to_those_who_were_in_when_it_was_published(net: MemoryServer) -> None:
    broadcast = net.server.broadcaster.broadcast_to_room
    ann, bob = (await net.connect("ann")), (await net.connect("bob"))
    await ann.socket.join("lobby")
    await broadcast("lobby", "one", None)
    await bob.socket.join("lobby")
    await broadcast("lobby", "two", None)
    await ann.socket.leave("lobby")
    await broadcast("lobby", "three", None)
    assert [message["event"] for message in await ann.take_all()] == ["one", "two"]
    assert [message["event"] for message in await bob.take_all()] == ["two", "three"]


async def test_own_streams(net: MemoryServer) -> None:
    broadcaster = net.server.broadcaster
    ann, again, bob, nobody = [await net.connect(name) for name in ("ann", "ann", "bob", None)]
    await broadcaster.broadcast_to_user("ann", "notification", 1)
    await broadcaster.broadcast_to_all("system", 2)
    await broadcaster.broadcast_to_user("zoe", "notification", 3)
    for client, events in ((ann, ["notification", "system"]), (again, ["notification", "system"]), (bob, ["system"]), (nobody, [])):
        assert [message["event"] for message in await client.take_all()] == events
    assert ann.connected["streams"].keys() == {"user:ann", "all"} and "streams" not in nobody.connected


async def test_an_audience_holds_for_each_event_of_a_turn(net: MemoryServer) -> None:
    broadcast = net.server.broadcaster.broadcast_to_room
    admin, user = await net.connect("boss", role="admin"), await net.connect("ann")
    for client in (admin, user):
        await client.request("join-room", "lobby")
    await broadcast("lobby", "one", None, filter=where(role="admin"))
    await broadcast("lobby", "two", None)
    await broadcast("lobby", "three", None, exclude=["boss"])
    assert [(message["event"], message["offset"]) for message in await admin.take_all()] == [("one", 1), ("two", 2)]
    assert [(message["event"], message["offset"]) for message in await user.take_all()] == [("two", 2), ("three", 3)]
    assert net.server.metrics.deliveries == 4


async def test_volatile_events_take_no_place_and_stand_in_order(net: MemoryServer) -> None:
    broadcast = net.server.broadcaster.broadcast_to_room
    client = await net.connect("ann")
    await client.request("join-room", "lobby")
    await broadcast("lobby", "one", None)
    receipt = await broadcast("lobby", "cursor", {"x": 1}, volatile=True)
    await broadcast("lobby", "two", None)
    messages = await client.take_all()
    assert [(message["event"], message.get("offset")) for message in messages] == [("one", 1), ("cursor", None), ("two", 2)]
    assert receipt.position is None and messages[1]["id"] == receipt.id and messages[1]["timestamp"].endswith("Z")


async def test_volatile_events_are_dropped_for_who_is_behind_and_counted() -> None:
    async with memory_server(authorization=OPEN, limits={"outbox_soft_bytes": 2000}) as net:
        slow, quick = await net.connect("slow"), await net.connect("quick")
        for client in (slow, quick):
            await client.request("join-room", "lobby")
        for _ in range(4):
            await net.server.broadcaster.broadcast_to_room("lobby", "bulk", "x" * 800)
            await quick.take_all()
        assert slow.socket.is_behind() and not quick.socket.is_behind()
        await net.server.broadcaster.broadcast_to_room("lobby", "cursor", None, volatile=True)
        assert [message["event"] for message in await quick.take_all()] == ["cursor"]
        assert "cursor" not in [message["event"] for message in await slow.take_all()] and net.server.metrics.volatile_dropped == 1


async def test_a_member_who_does_not_read_costs_the_others_nothing() -> None:
    async with memory_server(authorization=OPEN, limits={"outbox_soft_bytes": 2000, "outbox_bytes": 5000}) as net:
        stalled, quick = await net.connect("stalled"), await net.connect("quick")
        for client in (stalled, quick):
            await client.request("join-room", "lobby")
        seen = 0
        for _ in range(20):
            await net.server.broadcaster.broadcast_to_room("lobby", "bulk", "x" * 800)
            seen += len(await quick.take_all())
        assert seen == 20 and await stalled.closed() == 4008 and net.server.metrics.slow_closes == 1
        assert await net.server.rooms.get_room_users("lobby") != [] and quick.socket.is_open


async def test_events_for_a_room_with_nobody_in_it_are_logged(net: MemoryServer) -> None:
    await net.server.broadcaster.broadcast_to_room("empty", "note", 1)
    ann = await net.connect("ann")
    assert [event["data"] for event in (await ann.request("history", {"roomId": "empty"}))["events"]] == [1]


async def test_an_event_that_cannot_be_written_costs_no_other_room_anything(net: MemoryServer, caplog: pytest.LogCaptureFixture) -> None:
    """One event that could not be put into a frame took with it, without a word, what all other rooms were to get at that moment."""
    ann, bob = await net.connect("ann", codec="msgpack"), await net.connect("bob")
    for room in ("broken", "whole"):
        await ann.request("join-room", room)
        await bob.request("join-room", room)
    fanout = net.server.sending.fanout
    assert fanout is not None
    fanout.deliver(LoggedEvent("broken", "note", b"1e400", "x", "e1", 7, 5))
    fanout.deliver(LoggedEvent("whole", "note", b"5", "y", "e1", 1, 5))
    for client in (ann, bob):
        told = await client.take_all()
        assert [message["data"] for message in told if message.get("room") == "whole"] == [5]
        assert {"roomId": "broken", "epoch": "e1", "offset": 7} in [message["data"] for message in told if message["event"] == "resync"]
    assert "events of a room could not be sent" in caplog.text
