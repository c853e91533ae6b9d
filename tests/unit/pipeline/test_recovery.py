"""Joining and coming back: no gap, no duplicate, and a gap that cannot be filled is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import PermissionDenied, Position, RealtimeServer, StoreUnavailable, where
from aibos_realtime.backends.base import Draft, LoggedEvent, Page
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.pipeline.broadcaster import new_id
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server
from aibos_realtime.testing.store import MemoryStore

OPEN: dict[str, Any] = {"authorization": {"permissions": {"*": ["read", "write"]}}}


async def publish(net: MemoryServer, first: int, last: int, room: str = "lobby", size: int = 1) -> None:
    for number in range(first, last + 1):
        await net.server.broadcaster.broadcast_to_room(room, "note", str(number).ljust(size))


def offsets(messages: list[dict[str, Any]]) -> list[int]:
    return [message["offset"] for message in messages if message["event"] == "note"]


async def recover(client: MemoryClient, joined: dict[str, Any], offset: int, room: str = "lobby") -> Any:
    return await client.request("join-room", {"roomId": room, "recover": {"epoch": joined["epoch"], "offset": offset}})


async def test_what_was_missed_follows_the_answer_and_then_what_is_live() -> None:
    async with memory_server(**OPEN) as net:
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        assert joined["recovered"] is None and joined["offset"] == 0 and joined["members"][0]["userId"] == "ann"
        await publish(net, 1, 250)
        ann.cut()
        again = await net.connect("ann")
        again.send("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": 3}}, ref=1)
        await publish(net, 251, 253)
        messages = await again.take_all()
        assert (messages[0]["event"], messages[0]["data"]["recovered"], messages[0]["data"]["offset"]) == ("joined-room", True, 250)
        assert offsets(messages) == list(range(4, 254))
        assert (net.server.metrics.recoveries, net.server.metrics.recoveries_failed) == (1, 0)


async def test_what_is_recovered_counts_as_sent() -> None:
    """What clients that had come back were sent was in no figure of what goes out."""
    async with memory_server(**OPEN) as net:
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        await publish(net, 1, 250, size=100)
        ann.cut()
        again = await net.connect("ann")
        metrics = net.server.metrics
        messages, size = metrics.messages_out, metrics.bytes_out
        again.send("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": 0}}, ref=1)
        assert len(offsets(await again.take_all())) == 250
        assert metrics.messages_out - messages >= 250 and metrics.bytes_out - size > 250 * 100


async def test_nothing_missed_and_nothing_asked_for() -> None:
    async with memory_server(**OPEN) as net:
        await publish(net, 1, 5)
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        assert (await recover(ann, joined, 5))["recovered"] is True and offsets(await ann.take_all()) == []


@pytest.mark.parametrize(("epoch", "offset"), [("other", 3), (None, 1), (None, 99), (None, -1)])
async def test_what_cannot_be_recovered_is_said_and_nothing_old_is_sent(epoch: str | None, offset: int) -> None:
    async with memory_server(**OPEN, rooms={"patterns": {"*": {"history_size": 5}}}) as net:
        await publish(net, 1, 10)
        ann = await net.connect("ann")
        real = (await net.server.broker.position("lobby")).epoch
        answer = await recover(ann, {"epoch": epoch or real}, offset)
        assert (answer["recovered"], answer["offset"], answer["epoch"]) == (False, 10, real)
        await publish(net, 11, 11)
        assert offsets(await ann.take_all()) == [11] and net.server.metrics.recoveries_failed == 1


async def test_rewinding() -> None:
    async with memory_server(**OPEN) as net:
        await publish(net, 1, 10)
        ann = await net.connect("ann")
        answer = await ann.request("join-room", {"roomId": "lobby", "rewind": 3})
        assert answer["recovered"] is None and offsets(await ann.take_all()) == [8, 9, 10]
        await ann.request("join-room", {"roomId": "quiet", "rewind": 3})
        assert await ann.take_all() == []


async def test_filters_hold_in_recovery_too() -> None:
    async with memory_server(**OPEN) as net:
        broadcast = net.server.broadcaster.broadcast_to_room
        for number in range(6):
            await broadcast("lobby", "note", number, filter=where(role="admin") if number % 2 else None, exclude=["ann"] if number == 4 else [])
        epoch = (await net.server.broker.position("lobby")).epoch
        ann, boss = await net.connect("ann"), await net.connect("boss", role="admin")
        for client, expected in ((ann, [1, 3]), (boss, [1, 2, 3, 4, 5, 6])):
            await recover(client, {"epoch": epoch}, 0)
            assert offsets(await client.take_all()) == expected


async def test_own_streams_are_recovered_and_nobody_elses() -> None:
    async with memory_server(**OPEN) as net:
        ann = await net.connect("ann")
        streams = ann.connected["streams"]
        ann.cut()
        await net.server.broadcaster.broadcast_to_user("ann", "note", 1)
        await net.server.broadcaster.broadcast_to_all("note", 2)
        again = await net.connect("ann")
        for name in ("user:ann", "all"):
            assert (await recover(again, streams[name], 0, name))["recovered"] is True
        assert [(m["room"], m["data"]) for m in await again.take_all()] == [("user:ann", 1), ("all", 2)]
        assert again.socket.rooms == frozenset()
        bob = await net.connect("bob")
        with pytest.raises(PermissionDenied):
            await recover(bob, streams["user:ann"], 0, "user:ann")


async def test_joining_again_while_events_come() -> None:
    async with memory_server(**OPEN) as net:
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        await publish(net, 1, 2)
        await ann.take_all()
        await publish(net, 3, 4)
        answer = await recover(ann, joined, 2)
        assert answer["recovered"] is True
        await publish(net, 5, 5)
        found = offsets(await ann.take_all())
        assert found in ([3, 4, 3, 4, 5], [3, 4, 5]) and ann.socket.rooms == {"lobby"}


async def test_a_thousand_joins_that_race_a_publisher() -> None:
    """Each sees every event after the offset of its answer, once."""
    async with memory_server(**OPEN, rooms={"max_users_per_room": None}, connections={"max_connections": None}) as net:

        async def join(number: int) -> None:
            client = await net.connect(f"user{number}")
            joined = await client.request("join-room", "lobby")
            clients.append((client, joined["offset"]))

        async def keep_publishing() -> None:
            for number in range(1, 201):
                await publish(net, number, number)
                await asyncio.sleep(0)

        clients: list[tuple[MemoryClient, int]] = []
        await asyncio.gather(keep_publishing(), *(join(number) for number in range(1000)))
        await publish(net, 201, 201)
        for client, offset in clients:
            found = offsets(await client.take_all() if client is clients[0][0] else [await client.receive() for _ in range(201 - offset)])
            assert found == list(range(offset + 1, 202))


async def test_a_slow_client_recovers_page_by_page() -> None:
    """300 events of 300 bytes with an outbox of 40 kB: the replay waits for the reader, and live events come after it."""
    async with memory_server(**OPEN, limits={"outbox_soft_bytes": 8_000, "outbox_bytes": 80_000}) as net:
        await publish(net, 1, 300, size=300)
        ann = await net.connect("ann")
        epoch = (await net.server.broker.position("lobby")).epoch
        ann.send("join-room", {"roomId": "lobby", "recover": {"epoch": epoch, "offset": 0}}, ref=1)
        await asyncio.sleep(0)
        await publish(net, 301, 310, size=300)
        found: list[int] = []
        while not found or found[-1] < 310:
            found += offsets([await ann.receive()])
        assert found == list(range(1, 311)) and ann.socket.is_open


@pytest.mark.parametrize(
    "room",
    [
        "lobby",
        "all",
    ],
)
async def test_a_long_recovery_does_not_close_a_healthy_client(room: str) -> None:
    """60 events of 60 KiB, all of which the log holds. Another message comes while the client is reading."""
    async with memory_server(**OPEN) as net:
        ann = await net.connect("ann")
        for number in range(60):
            if room == "all":
                await net.server.broadcaster.broadcast_to_all("note", str(number).ljust(60_000))
            else:
                await net.server.broadcaster.broadcast_to_room(room, "note", str(number).ljust(60_000))
        ann.cut()
        again = await net.connect("ann")
        epoch = (await net.server.broker.position(room)).epoch
        again.send("join-room", {"roomId": room, "recover": {"epoch": epoch, "offset": 0}}, ref=1)
        again.socket.emit("hello")
        found: list[int] = []
        while not found or found[-1] < 60:
            found += offsets([await again.receive()])
        assert found == list(range(1, 61)) and again.socket.is_open


class BusyBroker(MemoryBroker):
    """A broker whose reads take their time: while the page of a recovery is on its way, events are published."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[bytes] = []

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        page = await super().read_after(room, after, limit)
        if limit > 1:  # not the look whether a recovery is possible, which reads one
            meanwhile, self.meanwhile = self.meanwhile, []
            for data in meanwhile:
                await self.publish(Draft(room, "note", data, new_id()))
        return page


async def test_what_comes_in_during_the_last_read_is_sent_to_the_end_though_the_reader_falls_behind() -> None:
    """Live events that wait for a member on its way in are more than its outbox takes at once: none of them may be dropped there.

    The replay stops writing when the socket falls behind, and reads on later; what waits in memory stands in no page that is still to be read.
    """
    broker = BusyBroker()
    async with memory_server(RealtimeServer(broker=broker, authentication={"jwt_secret": "k" * 40}, **OPEN)) as net:
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        await publish(net, 1, 2)
        ann.cut()
        again = await net.connect("ann")
        broker.meanwhile = [b'"' + b"x" * 100_000 + b'"'] * 8
        assert (await recover(again, joined, 0))["recovered"] is True
        await publish(net, 11, 11)
        assert [(await again.receive("note"))["offset"] for _ in range(11)] == list(range(1, 12))


@pytest.mark.parametrize("room", ["lobby", "user:ann"])
async def test_a_log_that_cannot_be_read_in_the_middle_of_a_recovery_ends_the_connection(room: str) -> None:
    """The client was told that it recovers: live events after a part of what it missed would be a gap, and nothing would say so.

    Closed with a code that brings it back, it goes on from the last event that it got.
    """
    store = MemoryStore()
    broker = StoredBroker(store)
    async with memory_server(RealtimeServer(broker=broker, authentication={"jwt_secret": "k" * 40}, **OPEN)) as net:
        for number in range(250):
            await broker.publish(Draft(room, "note", b"%d" % number, new_id()))
        epoch = (await broker.position(room)).epoch
        broker._memory.clear()
        ann = await net.connect("ann")
        read_after, reads = store.read_after, []

        async def fail_later(room: str, after: Position, limit: int) -> list[LoggedEvent]:
            reads.append(after.offset)
            if len(reads) > 2:
                raise StoreUnavailable()
            return await read_after(room, after, limit)

        store.read_after = fail_later  # type: ignore[method-assign]
        joined = await ann.request("join-room", {"roomId": room, "recover": {"epoch": epoch, "offset": 0}})
        assert joined["recovered"] is True
        await broker.publish(Draft(room, "note", b'"live"', new_id()))
        assert await ann.closed() == 4015
        seen = [message["offset"] for message in await ann.take_all() if message["event"] == "note"]
        assert seen == list(range(1, len(seen) + 1)) and 0 < len(seen) <= 100
        store.read_after = read_after  # type: ignore[method-assign]
        back = await net.connect("ann")
        await back.request("join-room", {"roomId": room, "recover": {"epoch": epoch, "offset": len(seen)}})
        assert [(await back.receive("note"))["offset"] for _ in range(251 - len(seen))] == list(range(len(seen) + 1, 252))
