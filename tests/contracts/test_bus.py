"""What a bus between nodes must do: alone, and over Redis, where nodes come and go and anybody may write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec import Struct

from aibos_realtime import BrokerUnavailable, Overloaded
from aibos_realtime.backends.bus import LocalBus
from aibos_realtime.backends.nodes import NodeRecord
from aibos_realtime.backends.redis import bus as module
from aibos_realtime.backends.redis.bus import RedisBus
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.metrics import Metrics
from tests.servers.redis import RedisServer, running_redis


class Note(Struct, tag="note"):
    """Write this down."""

    text: str


class Other(Struct, tag="other"):
    """Something else."""

    number: int


class Register:
    """Who is there, as far as a bus asks."""

    def __init__(self, id: str, ids: set[str]) -> None:
        self.id = id
        self.ids = ids

    async def list(self) -> list[NodeRecord]:
        return [NodeRecord(id, id, None, "up", "", 0.0, 0.0) for id in sorted(self.ids)]


class Nodes:
    """Buses over one Redis."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self.server = server
        self.ids: set[str] = set()
        self.notes: dict[str, list[str]] = {}
        self.metrics: dict[str, Metrics] = {}
        self.gaps: list[str] = []
        self.layout = Layout(prefix, 1)
        self.clients: dict[str, Client] = {}
        self._buses: list[RedisBus] = []

    async def bus(self, id: str, *, is_registered: bool = True, handler: Callable[[Note], Any] | None = None) -> RedisBus:
        client = self.clients[id] = Client(read_url(self.server.url))
        await client.open()
        if is_registered:
            self.ids.add(id)
        self.metrics[id] = Metrics()
        bus = RedisBus(client, self.layout, nodes=Register(id, self.ids), metrics=self.metrics[id])  # type: ignore[arg-type]
        notes = self.notes[id] = []

        def note(request: Note) -> str:
            notes.append(request.text)
            return id

        bus.on(Note, handler or note)
        bus.on_gap(lambda: self.gaps.append(id))
        await bus.start()
        self._buses.append(bus)
        return bus

    async def close(self) -> None:
        for bus in self._buses:
            await bus.stop()
        for client in self.clients.values():
            await client.close()


@pytest.fixture
async def nodes(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Nodes]:
    nodes = Nodes(redis_server, redis_prefix)
    yield nodes
    await nodes.close()


async def until(check: Callable[[], bool], client: Client) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(10):
        while not check():
            await client.command("PING")


async def cut_reads(client: Client) -> None:
    """Have Redis cut every connection on which somebody waits for entries."""
    lines = (await client.command("CLIENT", "LIST")).decode().splitlines()
    for line in lines:
        if "cmd=xread" in line:
            await client.command("CLIENT", "KILL", "ID", line.split(" ")[0].removeprefix("id="))


async def test_of_a_single_node_asking_is_doing() -> None:
    bus = LocalBus()
    bus.on(Note, lambda request: request.text + "!")

    async def slow(request: Other) -> int:
        await asyncio.sleep(0)
        return request.number

    bus.on(Other, slow)
    await bus.start()
    assert await bus.ask(Note("a")) == ["a!"] and await bus.ask(Other(5)) == [5]
    await bus.stop()


async def test_every_node_does_it_and_answers(nodes: Nodes) -> None:
    one, two = await nodes.bus("one"), await nodes.bus("two")
    await nodes.bus("three")
    assert sorted(await one.ask(Note("a"))) == ["one", "three", "two"]
    assert sorted(await two.ask(Note("b"))) == ["one", "three", "two"]
    assert nodes.notes == {"one": ["a", "b"], "two": ["a", "b"], "three": ["a", "b"]}


async def test_all_nodes_do_things_in_one_order(nodes: Nodes) -> None:
    buses = [await nodes.bus(id) for id in ("one", "two", "three")]
    await asyncio.gather(*(bus.ask(Note(f"{number}-{turn}")) for turn in range(20) for number, bus in enumerate(buses)))
    assert nodes.notes["one"] == nodes.notes["two"] == nodes.notes["three"] and len(set(nodes.notes["one"])) == 60


async def test_coroutines_and_handlers_that_fail(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Note) -> None:
        await asyncio.sleep(0)
        raise ValueError(request.text)

    one, two = await nodes.bus("one"), await nodes.bus("two", handler=fail)
    assert await one.ask(Note("a")) == ["one"]
    with pytest.raises(ValueError, match="b"):
        await two.ask(Note("b"))
    assert nodes.notes["one"] == ["a", "b"] and "asked for (note) failed" in caplog.text


async def test_a_node_that_hangs_is_not_waited_for_and_does_it_later(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    go_on, done = asyncio.Event(), asyncio.Event()

    async def hang(request: Note) -> None:
        await go_on.wait()
        done.set()

    one = await nodes.bus("one")
    await nodes.bus("two", handler=hang)
    nodes.ids.add("dead")
    assert await one.ask(Note("a")) == ["one"]
    assert await one.ask(Note("b")) == ["one"]
    go_on.set()
    await asyncio.wait_for(done.wait(), 5)
    assert one._asking == {}


async def test_large_answers_lie_beside_the_stream(nodes: Nodes) -> None:
    one = await nodes.bus("one", handler=lambda request: 1)
    await nodes.bus("two", handler=lambda request: ["x" * 1000] * 1000)
    answers = await one.ask(Note("a"))
    assert sorted(len(answer) if isinstance(answer, list) else answer for answer in answers) == [1, 1000]
    assert await nodes.clients["one"].command("XLEN", nodes.layout.of_nodes("bus")) == 2
    with pytest.raises(Overloaded):
        await one.ask(Note("x" * 100_000))


async def test_what_was_asked_while_a_connection_was_cut_is_done(nodes: Nodes) -> None:
    one, two = await nodes.bus("one"), await nodes.bus("two")
    assert len(await one.ask(Note("before"))) == 2
    await cut_reads(nodes.clients["one"])
    for number in range(50):
        await one.ask(Note(str(number)))
    await two.ask(Note("after"))
    assert nodes.notes["two"] == ["before", *map(str, range(50)), "after"] and nodes.gaps == []


async def test_who_was_away_for_too_long_is_told(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    one, two = await nodes.bus("one"), await nodes.bus("two")
    await one.ask(Note("before"))
    reading, two._client = two._client, Client(read_url("unix:///nowhere"))
    await cut_reads(nodes.clients["one"])
    await asyncio.gather(*(nodes.clients["one"].command("XADD", nodes.layout.of_nodes("bus"), "MAXLEN", 10, "*", "m", "x") for _ in range(300)))
    two._client = reading
    await until(lambda: "two" in nodes.gaps, nodes.clients["one"])
    assert sorted(await one.ask(Note("after"))) == ["one", "two"]
    assert nodes.notes["two"] == ["before", "after"]


async def test_a_stream_that_is_gone(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 0.05)
    one = await nodes.bus("one")
    await nodes.bus("two")
    await one.ask(Note("before"))
    for wrong in (("DEL",), ("SET", "x")):
        key = nodes.layout.of_nodes("bus")
        await nodes.clients["one"].command("DEL", key)
        if wrong[0] == "SET":
            await nodes.clients["one"].command("SET", key, "x")
        nodes.gaps.clear()
        await until(lambda: sorted(nodes.gaps) == ["one", "two"], nodes.clients["one"])
        assert sorted(await one.ask(Note("after"))) == ["one", "two"]


async def test_who_is_not_registered_is_not_listened_to(nodes: Nodes) -> None:
    one, spoofed = await nodes.bus("one"), await nodes.bus("spoofed", is_registered=False)
    assert await spoofed.ask(Note("evil")) == ["spoofed"]
    assert await one.ask(Note("good")) == ["one"]
    assert nodes.notes["one"] == ["good"]
    assert nodes.metrics["one"].foreign_records in (1, 2), "the request, and the answer if it was in time"
    nodes.ids.add("spoofed")  # it was about to register
    await until(lambda: one._clock.monotonic() - one._looked_at > 0.5, nodes.clients["one"])
    assert sorted(await spoofed.ask(Note("now"))) == ["one", "spoofed"]


async def test_things_that_no_node_wrote(nodes: Nodes) -> None:
    one, two = await nodes.bus("one"), await nodes.bus("two")
    add, key = nodes.clients["one"].command, nodes.layout.of_nodes("bus")
    hostile: list[Any] = [
        b"\xff\xfe", b"{]", b"[" * 50_000, b"x" * 10_000_000, b"null", b"{}", json.dumps({"type": "request"}),
        json.dumps({"type": "request", "id": "1", "node": "one", "kind": "note", "request": {"type": "note", "text": 5}}),
        json.dumps({"type": "request", "id": "1", "node": "one", "kind": "note", "request": {"type": "other", "number": 5}}),
        json.dumps({"type": "request", "id": "1", "node": "one", "kind": "explode", "request": {}}),
        json.dumps({"type": "request", "id": "1", "node": "nobody", "kind": "note", "request": {"type": "note", "text": "evil"}}),
        json.dumps({"type": "answer", "id": "1", "node": "nobody", "to": "one", "value": 5}),
    ]  # fmt: skip
    for data in hostile:
        await add("XADD", key, "*", "m", data)
    await add("XADD", key, "*", "other", "field")
    assert sorted(await two.ask(Note("good"))) == ["one", "two"] and sorted(await one.ask(Note("well"))) == ["one", "two"]
    assert nodes.notes == {"one": ["good", "well"], "two": ["good", "well"]}
    assert nodes.metrics["one"].foreign_records == 11, "an answer to nothing is only late, and a request that is not known is of a newer node"
    assert nodes.gaps == []


async def test_without_redis_the_own_node_still_does_it() -> None:
    with running_redis() as server:
        nodes = Nodes(server, "away")
        one = await nodes.bus("one")
        server.stop()
        with pytest.raises(BrokerUnavailable):
            await one.ask(Note("a"))
        assert nodes.notes["one"] == ["a"]
        server.start()
        await asyncio.wait_for(one.ask(Note("b")), 5)
        await until(lambda: nodes.notes["one"][-1] == "b", nodes.clients["one"])
        await nodes.close()
