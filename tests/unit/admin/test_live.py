"""What the dashboard asks over its WebSocket, from a client in memory: who may, with which data, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from aibos_realtime import PermissionDenied, RealtimeError, RealtimeServer, RoomNotFound, ValidationError
from aibos_realtime.admin.live import PREFIX
from aibos_realtime.errors import ConfigurationError, NotInRoom, ProtocolError
from aibos_realtime.testing import MemoryClient, memory_server
from aibos_realtime.testing.server import MemoryServer

Net = MemoryServer
OPEN = {"permissions": {"*": ["read", "write"]}}

REQUESTS: dict[str, dict[str, Any]] = {
    "nodes": {},
    "rooms": {},
    "room": {"roomId": "lobby"},
    "presence": {"roomId": "lobby"},
    "history": {"roomId": "lobby"},
    "connections": {},
    "connection": {"socketId": "x"},
    "queues": {},
    "dead": {"queue": "mail"},
    "requeue": {"queue": "mail"},
    "disconnect": {"socketId": "x"},
    "kick": {"roomId": "lobby", "userId": "ann"},
    "acts": {},
}


@pytest_asyncio.fixture
async def net() -> AsyncIterator[Net]:
    async with memory_server(authorization=OPEN) as net:
        yield net


async def operator(net: Net) -> MemoryClient:
    return await net.connect("olga", role="operator")


async def ask(client: MemoryClient, name: str, **data: Any) -> Any:
    return await client.request(PREFIX + name, data)


# — who —


@pytest.mark.parametrize("name", REQUESTS)
async def test_only_operators_are_answered(net: Net, name: str) -> None:
    for role in ("user", "admin", "service", "guest"):
        ann = await net.connect("ann", role=role)
        with pytest.raises(PermissionDenied) as refused:
            await ask(ann, name, **REQUESTS[name])
        assert "lobby" not in str(refused.value.details)


async def test_the_role_is_the_one_that_the_user_has_now(net: Net) -> None:
    olga = await operator(net)
    await ask(olga, "nodes")
    await net.server.set_role("olga", "user")
    with pytest.raises(PermissionDenied):
        await ask(olga, "nodes")


async def test_roles_that_operate_are_configured() -> None:
    async with memory_server(http={"operator_roles": ["chief"]}) as net:
        await ask(await net.connect("carl", role="chief"), "nodes")
        with pytest.raises(PermissionDenied):
            await ask(await operator(net), "nodes")


async def test_without_a_dashboard_nobody_answers() -> None:
    async with memory_server(http={"dashboard": False}) as net:
        with pytest.raises(ProtocolError):
            await ask(await operator(net), "nodes")


def test_the_names_are_taken() -> None:
    server = RealtimeServer(authentication={"jwt_secret": "x" * 32}, persistence={"database": {"url": "memory://"}})
    with pytest.raises(ConfigurationError, match="realtime.nodes"):
        server.event("realtime.nodes")(lambda socket, data: None)


# — with which data —


@pytest.mark.parametrize(
    ("name", "data", "where"),
    [
        ("nodes", {"sample": 3}, "sample"),
        ("nodes", {"samples": 5000}, "samples"),
        ("nodes", {"samples": "1"}, "samples"),
        ("rooms", {"limit": -1}, "limit"),
        ("rooms", {"prefix": "x" * 129}, "prefix"),
        ("room", {}, "roomId"),
        ("room", {"roomId": 7}, "roomId"),
        ("history", {"roomId": "lobby", "limit": 0}, "limit"),
        ("history", {"roomId": "lobby", "after": {"offset": 1}}, "epoch"),
        ("connections", {"order": "oldest"}, "order"),
        ("requeue", {"queue": "mail", "ids": []}, "ids"),
        ("kick", {"roomId": "lobby"}, "userId"),
    ],
)
async def test_wrong_data_is_refused_with_its_place(net: Net, name: str, data: dict[str, Any], where: str) -> None:
    olga = await operator(net)
    with pytest.raises(ValidationError) as refused:
        await ask(olga, name, **data)
    assert where in str(refused.value.errors)
    await ask(olga, "nodes")  # and the connection lives


@pytest.mark.parametrize("data", [None, 5, "x", [], [{}]])
async def test_what_is_no_object_is_refused(net: Net, data: Any) -> None:
    with pytest.raises(ValidationError):
        await (await operator(net)).request(PREFIX + "nodes", data)


async def test_both_or_neither_is_refused(net: Net) -> None:
    olga = await operator(net)
    with pytest.raises(ValidationError):
        await ask(olga, "disconnect")
    with pytest.raises(ValidationError):
        await ask(olga, "disconnect", userId="a", socketId="b")


# — what comes back —


async def test_nodes_with_one_list_per_figure(net: Net) -> None:
    olga = await operator(net)
    (node,) = (await ask(olga, "nodes", samples=10))["nodes"]
    assert node["connections"] == 1 and node["state"] == "ok" and "loopLag" in node
    samples = node["samples"]
    assert {"time", "connections", "messagesIn", "deliveries", "latencyP99", "loopLag", "cpu", "memory"} <= set(samples)
    assert len({len(column) for column in samples.values()}) == 1
    assert (await ask(olga, "nodes", since=node["now"] + 60, samples=10))["nodes"][0]["samples"]["time"] == []


async def test_rooms_and_one_of_them(net: Net) -> None:
    olga, ann = await operator(net), await net.connect("ann")
    for room in ("alpha", "alps", "beta"):
        await ann.request("join-room", room)
    assert [room["id"] for room in (await ask(olga, "rooms", prefix="al"))["rooms"]] == ["alpha", "alps"]
    page = await ask(olga, "rooms", limit=2)
    assert len(page["rooms"]) == 2 and (await ask(olga, "rooms", cursor=page["cursor"]))["rooms"][0]["id"] == "beta"
    await ann.request("note", 1, room="alpha")
    room = await ask(olga, "room", roomId="alpha")
    assert (room["userCount"], room["position"]["offset"]) == (1, 1)
    with pytest.raises(RoomNotFound):
        await ask(olga, "room", roomId="nowhere")


async def test_the_members_that_are_shown_and_the_count_of_all(net: Net) -> None:
    olga = await operator(net)
    for name in ("ann", "bob", "cyd"):
        await (await net.connect(name)).request("join-room", "lobby")
    found = await ask(olga, "presence", roomId="lobby", limit=2)
    assert (len(found["members"]), found["count"]) == (2, 3)
    assert {member["userId"] for member in found["members"]} < {"ann", "bob", "cyd"}


async def test_a_log_read_on_from_its_end(net: Net) -> None:
    """As the live tail does: the last page, then what comes after its last event, each event once."""
    olga, ann = await operator(net), await net.connect("ann")
    for number in range(5):
        await ann.request("note", {"n": number}, room="lobby")
    page = await ask(olga, "history", roomId="lobby", limit=3)
    assert ([event["data"]["n"] for event in page["events"]], page["more"]) == ([2, 3, 4], True)
    after = {"epoch": page["epoch"], "offset": page["events"][-1]["offset"]}
    assert (await ask(olga, "history", roomId="lobby", after=after))["events"] == []
    await ann.request("note", {"n": 5}, room="lobby")
    assert [event["data"]["n"] for event in (await ask(olga, "history", roomId="lobby", after=after))["events"]] == [5]
    before = {"epoch": page["epoch"], "offset": page["events"][0]["offset"]}
    assert [event["data"]["n"] for event in (await ask(olga, "history", roomId="lobby", before=before))["events"]] == [0, 1]


async def test_a_log_that_is_empty_can_be_read_on_too(net: Net) -> None:
    olga, ann = await operator(net), await net.connect("ann")
    page = await ask(olga, "history", roomId="lobby")
    assert page["events"] == []
    await ann.request("note", 1, room="lobby")
    found = await ask(olga, "history", roomId="lobby", after={"epoch": page["epoch"], "offset": 0})
    assert [event["data"] for event in found["events"]] == [1]


async def test_connections_and_ones_life(net: Net) -> None:
    olga, ann = await operator(net), await net.connect("ann", tenant_id="acme")
    page = await ask(olga, "connections", search="acme")
    assert ([one["userId"] for one in page["connections"]], page["total"], page["matching"]) == (["ann"], 2, 1)
    found = await ask(olga, "connection", socketId=ann.socket.id)
    assert found["connection"]["userId"] == "ann"
    assert (await ask(olga, "connection", socketId="never"))["connection"] is None


async def test_those_with_the_most_waiting_come_first(net: Net) -> None:
    olga = await operator(net)
    clients = [await net.connect(name) for name in ("ann", "bob", "cyd")]
    for _ in range(6):
        clients[1].socket.emit("news", "x" * 20_000)
    page = await ask(olga, "connections", order="outbox", limit=1)
    assert page["connections"][0]["userId"] == "bob" and page["connections"][0]["outboxBytes"] > 5000


async def test_disconnect_and_kick(net: Net) -> None:
    olga, ann, bob = await operator(net), await net.connect("ann"), await net.connect("bob")
    await bob.request("join-room", "lobby")
    assert await ask(olga, "disconnect", socketId=ann.socket.id) == {"count": 1}
    assert await ann.closed() == 4503
    assert await ask(olga, "disconnect", userId="ann") == {"count": 0}
    await ask(olga, "kick", roomId="lobby", userId="bob")
    assert (await bob.receive("room-closed"))["data"]["roomId"] == "lobby"
    with pytest.raises((NotInRoom, RoomNotFound)):
        await ask(olga, "kick", roomId="lobby", userId="bob")
    acts = (await ask(olga, "acts"))["acts"]
    assert [(act["act"], act["by"]) for act in acts if act["by"]][:1] == [("kick", "user:olga")]


async def test_dead_letters_are_seen_and_sent_again() -> None:
    server = RealtimeServer(authentication={"jwt_secret": "x" * 32}, persistence={"database": {"url": "memory://"}})
    good = asyncio.Event()

    @server.queue.process("mail", max_attempts=1)
    async def send(message: Any) -> None:
        if not good.is_set():
            raise ValueError("no such mailbox")

    async with memory_server(server) as net:
        olga = await operator(net)
        await server.queue.send("mail", {"to": "ann"})
        letters = await _until(olga, "dead", lambda found: found["letters"], queue="mail")
        assert letters[0]["data"] == {"to": "ann"} and "ValueError" in letters[0]["reason"]
        (queue,) = [one for one in (await ask(olga, "queues"))["queues"] if one["name"] == "mail"]
        assert queue["dead"] == 1
        good.set()
        assert await ask(olga, "requeue", queue="mail", ids=[letters[0]["id"]]) == {"count": 1}
        assert (await ask(olga, "dead", queue="mail"))["letters"] == []


async def test_a_queue_of_no_proper_name(net: Net) -> None:
    with pytest.raises(RealtimeError, match="is no name of a queue"):
        await ask(await operator(net), "dead", queue="no such name")


async def test_every_answer_goes_over_both_codecs(net: Net) -> None:
    olga = await net.connect("olga", role="operator", codec="msgpack")
    await (await net.connect("ann")).request("join-room", "lobby")
    for name in ("nodes", "rooms", "room", "presence", "history", "connections", "queues", "acts"):
        assert msgspec.json.encode(await ask(olga, name, **REQUESTS[name]))


async def _until(client: MemoryClient, name: str, taken: Any, **data: Any) -> Any:
    """Ask until what is looked for is there, for at most 5 s."""
    async with asyncio.timeout(5):
        while True:
            if found := taken(await ask(client, name, **data)):
                return found
            await asyncio.sleep(0)
