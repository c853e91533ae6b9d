"""What a server keeps: the log across restarts, stored messages, the outbox and the queue, all in its own database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from aibos_realtime import (
    ConfigurationError,
    MessagePersistence,
    RealtimeServer,
    StoreUnavailable,
    UnrecoverablePosition,
    outbox,
)
from aibos_realtime.storage.queue import MessageQueue
from aibos_realtime.testing.server import MemoryServer, memory_server

OPTIONS: dict[str, Any] = {
    "authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3},
    "authorization": {"permissions": {"*": ["read", "write"]}},
    "rooms": {"patterns": {"bench:*": {"ephemeral": True}, "brief:*": {"history_size": 2, "history_ttl": 0.001}}},
}


def make_server(url: str, **options: Any) -> RealtimeServer:
    return RealtimeServer(**OPTIONS | {"persistence": {"database": {"url": url}}} | options)


@asynccontextmanager
async def serving(url: str, **options: Any) -> AsyncIterator[MemoryServer]:
    async with memory_server(make_server(url, **options)) as net:
        yield net


async def test_a_client_comes_back_after_a_restart_and_gets_what_it_missed(store_url: str) -> None:
    async with serving(store_url) as net:
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        await net.server.broadcaster.broadcast_to_room("lobby", "note", {"n": 1})
        assert (await ann.receive("note"))["offset"] == 1
        ann.cut()
        await net.server.broadcaster.broadcast_to_room("lobby", "note", {"n": 2}, exclude=["bob"])
        await net.server.broadcaster.broadcast_to_user("ann", "hello")
    async with serving(store_url) as net:
        ann = await net.connect("ann")
        assert ann.connected["streams"]["user:ann"]["offset"] == 1
        back = await ann.request("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": 1}})
        assert (back["recovered"], back["epoch"], back["offset"]) == (True, joined["epoch"], 2)
        assert (await ann.receive("note"))["data"] == {"n": 2}
        own = await ann.request("join-room", {"roomId": "user:ann", "recover": {"epoch": ann.connected["streams"]["user:ann"]["epoch"], "offset": 0}})
        assert own["recovered"] is True and (await ann.receive("hello"))["offset"] == 1
        bob = await net.connect("bob")
        hidden = await bob.request("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": 1}})
        assert hidden["recovered"] is True
        history = await bob.request("history", {"roomId": "lobby"})
        assert [event["data"] for event in history["events"]] == [{"n": 1}], "exclusions hold in what the store gives too"


async def test_ephemeral_rooms_leave_nothing_and_never_claim_to_recover(store_url: str) -> None:
    async with serving(store_url) as net:
        receipt = await net.server.broadcaster.broadcast_to_room("bench:1", "note", 1)
        assert receipt.position is not None and receipt.position.offset == 1
    async with serving(store_url) as net:
        assert await net.server.persistence.count("bench:1") == 0
        ann = await net.connect("ann")
        for offset in (0, 1):
            position = {"epoch": receipt.position.epoch, "offset": offset}
            assert (await ann.request("join-room", {"roomId": "bench:1", "recover": position}))["recovered"] is False


async def test_stored_messages_are_the_log(store_url: str) -> None:
    async with serving(store_url) as net:
        ann = await net.connect("ann")
        ack = await ann.request("note", {"n": 1}, room="lobby", id="mine")
        await net.server.broadcaster.broadcast_to_room("lobby", "secret", {"n": 2}, persist=False)
        (message,) = await net.server.persistence.get_messages("lobby")
        assert (message.id, message.user_id, message.type, message.data) == ("mine", "ann", "note", {"n": 1})
        assert message.position is not None and (message.position.epoch, message.position.offset) == (ack["epoch"], 1)
        history = await ann.request("history", {"roomId": "lobby"})
        assert [event["event"] for event in history["events"]] == ["note", "secret"], "memory still has it"


async def test_what_is_erased_is_gone_at_once_also_from_memory(store_url: str) -> None:
    async with serving(store_url) as net:
        ann = await net.connect("ann")
        joined = await ann.request("join-room", "lobby")
        await ann.request("note", "hers", room="lobby")
        await net.server.broadcaster.broadcast_to_room("lobby", "note", "ours")
        await net.server.persistence.erase(user="ann")
        bob = await net.connect("bob")
        back = await bob.request("join-room", {"roomId": "lobby", "recover": {"epoch": joined["epoch"], "offset": 0}})
        assert back["recovered"] is True
        assert [(await bob.receive("note"))["data"]] == ["ours"]
        assert [event["data"] for event in (await bob.request("history", {"roomId": "lobby"}))["events"]] == ["ours"]


async def test_the_outbox_reaches_the_members(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with serving(url) as net:
        ann = await net.connect("ann")
        await ann.request("join-room", "lobby")
        engine = create_engine(url)
        with engine.begin() as transaction:
            outbox.publish(transaction, "lobby", "invoice.created", {"invoiceId": "inv_1"})
        with engine.connect() as transaction:
            outbox.publish(transaction, "lobby", "invoice.created", {"invoiceId": "inv_2"})
            transaction.rollback()
        with engine.begin() as transaction:
            outbox.publish(transaction, "lobby", "invoice.created", {"invoiceId": "inv_3"})
        assert [(await ann.receive("invoice.created"))["data"]["invoiceId"] for _ in range(2)] == ["inv_1", "inv_3"]
        engine.dispose()


async def test_the_queue_is_in_the_same_database(store_url: str) -> None:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    async with serving(store_url) as net:
        await net.server.queue.send("mail", {"to": "ann"})
    server = make_server(store_url)

    @server.queue.process("mail")
    async def send_mail(message: Any) -> None:
        done.set_result(message.data)

    async with memory_server(server), asyncio.timeout(10):
        assert await done == {"to": "ann"}


async def test_parts_of_ones_own(store_url: str) -> None:
    persistence, queue = MessagePersistence(database={"url": store_url}), MessageQueue(url="memory://")
    server = RealtimeServer(**OPTIONS, persistence=persistence, queue=queue)
    assert server.persistence is persistence and server.queue is queue
    async with memory_server(server):
        await server.broadcaster.broadcast_to_room("lobby", "note", 1)
        assert await persistence.count("lobby") == 1
    with pytest.raises(StoreUnavailable):
        await persistence.count("lobby")


async def test_in_memory_nothing_is_stored() -> None:
    async with serving("memory://") as net:
        with pytest.raises(ConfigurationError, match="persistence.database.url: memory:// keeps no messages"):
            _ = net.server.persistence
        await net.server.queue.send("mail", 1)
        assert (await net.server.queue.stats("mail")).depth == 1


async def test_two_servers_on_one_database(store_url: str) -> None:
    async with serving(store_url):
        second = make_server(store_url)
        async with asyncio.timeout(10):
            with pytest.raises(ConfigurationError, match="another server writes to"):
                await second.open()
        assert not second.is_running
    async with memory_server(second):
        assert second.is_running, "once the first one has let go"


async def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    server = make_server(f"sqlite:///{tmp_path}/missing/log.db")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="the directory of .* does not exist"):
            await server.open()
        assert not server.is_running
    (tmp_path / "missing").mkdir()
    async with memory_server(server):
        await server.broadcaster.broadcast_to_room("lobby", "note", 1)


async def test_history_goes_on_in_the_store_where_memory_ends(store_url: str) -> None:
    async with serving(store_url) as net:
        positions = [(await net.server.broadcaster.broadcast_to_room("brief:1", "note", number)).position for number in range(1, 8)]
        ann = await net.connect("ann")
        page = await ann.request("history", {"roomId": "brief:1", "limit": 3})
        assert ([event["data"] for event in page["events"]], page["more"]) == ([5, 6, 7], True)
        before = {"epoch": page["epoch"], "offset": 5}
        page = await ann.request("history", {"roomId": "brief:1", "limit": 300, "before": before})
        assert ([event["data"] for event in page["events"]], page["more"]) == ([1, 2, 3, 4], False)
        with pytest.raises(UnrecoverablePosition):
            await ann.request("history", {"roomId": "brief:1", "after": {"epoch": "other", "offset": 1}})
        rewound = await ann.request("join-room", {"roomId": "brief:1", "rewind": 4})
        assert rewound["recovered"] is None and positions[-1] is not None
        assert [(await ann.receive("note"))["data"] for _ in range(4)] == [4, 5, 6, 7]


async def test_what_the_outbox_had_obeys_the_patterns_of_rooms(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with serving(url) as net:
        ann = await net.connect("ann")
        await ann.request("join-room", "bench:1")
        engine = create_engine(url)
        with engine.begin() as transaction:
            outbox.publish(transaction, "bench:1", "note", 1)
            outbox.publish(transaction, "all", "note", 2)
        assert {(await ann.receive("note"))["data"] for _ in range(2)} == {1, 2}
        assert await net.server.persistence.count("bench:1") == 0 and await net.server.persistence.count("all") == 1
        engine.dispose()
