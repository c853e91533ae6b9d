"""The register of nodes: who lives, by the server's time; one cleans up after the dead; who was forgotten tells again. Against real servers.

The nodes' own clock stands still, so that nothing is told but by `beat()`. Time passes in the register by making its entries older.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, ConfigurationError
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.nodes import LIFE, RedisNodes, RedisRegistration
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.metrics import Metrics
from aibos_realtime.testing.clock import ManualClock
from tests.servers.redis import running_redis

PATIENCE = 5.0


class Rig:
    """Nodes over one register, and a hand in the register itself."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.layout = Layout(prefix, 1)
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.nodes: list[RedisRegistration] = []

    def make(self, name: str = "web-1", **options: Any) -> RedisNodes:
        node = RedisNodes(self.client, self.layout, name=name, clock=self.clock, metrics=self.metrics, **options)
        self.nodes.append(node)
        return node

    async def start(self, *names: str, **options: Any) -> list[RedisNodes]:
        made = [self.make(name, **options) for name in names]
        for node in made:
            await node.start()
        return made

    def key(self, part: str, register: str = "nodes") -> str:
        return self.layout.of_nodes(f"{register}:{part}")

    async def age(self, node: RedisRegistration | str, seconds: float, register: str = "nodes") -> None:
        """As if its last sign was so much longer ago."""
        id = node if isinstance(node, str) else node.id
        await self.client.command("ZINCRBY", self.key("seen", register), int(-seconds * 1000), id)

    async def let_claim_run_out(self, node: RedisRegistration) -> None:
        claim = await self.client.command("HGET", self.key("claims"), node.id)
        await self.client.command("HSET", self.key("claims"), node.id, b"1 " + claim.split(b" ")[1])

    async def knows(self, node: RedisRegistration, part: str = "seen") -> bool:
        command = "ZSCORE" if part == "seen" else "HGET"
        return await self.client.command(command, self.key(part), node.id) is not None

    async def names(self) -> list[str]:
        return [record.name for record in await self.make("reader").list()]


class Calls:
    """A callback that waits for leave, fails when told to, and counts.

    `done`: the node has cleaned up after as many as were expected, and has asked for more.
    """

    def __init__(self, node: RedisNodes, *, is_held: bool = False, expected: int = 1) -> None:
        self.gone: list[str] = []
        self.expected = expected
        self.done = asyncio.Event()
        node.describe(self.note_told)
        self.forgotten = 0
        self.failures = 0
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        if not is_held:
            self.go.set()
        node.on_gone(self.note_gone)
        node.on_forgotten(self.note_forgotten)

    def note_told(self) -> dict[str, Any]:
        if self.expected == 0:
            self.done.set()
        return {}

    async def note_gone(self, id: str) -> None:
        self.gone.append(id)
        await self._act()
        self.expected -= 1

    async def note_forgotten(self) -> None:
        self.forgotten += 1
        await self._act()

    async def _act(self) -> None:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the directory is not there")


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()
    event.clear()


@pytest.fixture
async def rig(redis_url_any: str, redis_prefix: str) -> AsyncIterator[Rig]:
    client = Client(read_url(redis_url_any))
    await client.open()
    rig = Rig(client, redis_prefix)
    yield rig
    for node in rig.nodes:
        await node.stop()
    await client.close()


# — who is there —


async def test_a_node_is_listed_as_it_tells_and_no_longer_once_it_stopped(rig: Rig) -> None:
    node = rig.make("web-1", url="ws://web1:3001", version="1.2.3")
    said: dict[str, Any] = {"connections": 7, "max_connections": 1000, "rooms": 3, "load": 0.25, "weight": 2}
    node.describe(lambda: said)
    before = time.time()
    await node.start()
    await node.start()
    [record] = await node.list()
    assert (record.id, record.name, record.url, record.state, record.version) == (node.id, "web-1", "ws://web1:3001", "up", "1.2.3")
    assert (record.connections, record.max_connections, record.rooms, record.load, record.weight) == (7, 1000, 3, 0.25, 2)
    assert before - 1 < record.seen_at < time.time() + 1, "by the register's time, whatever the node's own clock says"
    said |= {"state": "draining", "connections": 6}
    await node.beat()
    [record] = await node.list()
    assert (record.state, record.connections) == ("draining", 6)
    await node.stop()
    await node.stop()
    assert await node.list() == []


async def test_it_goes_on_telling_by_itself(rig: Rig) -> None:
    told = asyncio.Event()
    node = rig.make()

    def report() -> dict[str, Any]:
        told.set()
        return {}

    await node.start()
    node.describe(report)
    await rig.clock.advance(2.0)
    await until(told)


async def test_by_rising_name(rig: Rig) -> None:
    await rig.start("web-3", "web-1", "web-2")
    assert await rig.names() == ["web-1", "web-2", "web-3"]


async def test_a_node_lives_for_ten_seconds_after_each_sign(rig: Rig) -> None:
    first, second = await rig.start("web-1", "web-2")
    await rig.age(first, LIFE - 1)
    assert await rig.names() == ["web-1", "web-2"]
    await rig.age(first, 1.1)
    assert await rig.names() == ["web-2"]
    await first.beat()
    assert await rig.names() == ["web-1", "web-2"]


async def test_a_report_that_fails_costs_nothing_but_itself(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    node = rig.make()
    node.describe(lambda: {"connections": 5})
    await node.start()
    node.describe(lambda: {"connections": 1 // 0})
    await rig.age(node, LIFE + 1)
    await node.beat()
    [record] = await node.list()
    assert record.connections == 5 and "could not be found out" in caplog.text


@pytest.mark.parametrize(("name", "url", "option"), [("", None, "instance_id"), ("a\n", None, "instance_id"), ("a", "http://a", "instance_url")])
async def test_what_the_others_would_not_believe_is_refused_at_home(rig: Rig, name: str, url: str | None, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"scaling.{option}: allowed"):
        RedisNodes(rig.client, rig.layout, name=name, url=url)


# — the dead —


async def test_exactly_one_of_the_living_cleans_up_after_a_dead_node(rig: Rig) -> None:
    dead, *living = await rig.start("dead", "web-1", "web-2", "web-3")
    calls = [Calls(node) for node in living]
    await rig.age(dead, LIFE + 1)
    await asyncio.gather(*(node.beat() for node in living))
    async with asyncio.timeout(PATIENCE):
        waits = [asyncio.ensure_future(one.done.wait()) for one in calls]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    assert sorted(id for one in calls for id in one.gone) == [dead.id]
    assert [await rig.knows(dead, part) for part in ("seen", "records", "claims")] == [False] * 3
    await asyncio.gather(*(node.beat() for node in living))
    assert sum(len(one.gone) for one in calls) == 1


async def test_many_that_died_at_once_are_all_cleaned_up_after_by_one(rig: Rig) -> None:
    [living] = await rig.start("living")
    calls = Calls(living, expected=30)
    dead = [f"{number:016x}" for number in range(30)]
    await rig.client.command("ZADD", rig.key("seen"), *(word for id in dead for word in (1000, id)))
    await living.beat()
    await until(calls.done)
    assert sorted(calls.gone) == dead
    assert await rig.client.command("ZCARD", rig.key("seen")) == 1


async def test_cleaning_up_that_fails_is_tried_again_by_another_node(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    dead, first, second = await rig.start("dead", "web-1", "web-2")
    ours, theirs = Calls(first), Calls(second)
    ours.failures = 1
    await rig.age(dead, LIFE + 1)
    await first.beat()
    await until(ours.begun)
    await second.beat()
    assert theirs.gone == [] and await rig.knows(dead), "the claim still holds"
    await rig.let_claim_run_out(dead)
    await second.beat()
    await until(theirs.done)
    assert (ours.gone, theirs.gone) == ([dead.id], [dead.id]) and not await rig.knows(dead)
    assert "failed; it is tried again" in caplog.text


async def test_a_claim_holds_for_as_long_as_the_one_that_cleans_up_lives(rig: Rig) -> None:
    dead, first, second = await rig.start("dead", "web-1", "web-2")
    ours, theirs = Calls(first, is_held=True), Calls(second)
    await rig.age(dead, LIFE + 1)
    await first.beat()
    await until(ours.begun)
    await rig.let_claim_run_out(dead)
    await first.beat()
    await second.beat()
    assert theirs.gone == []
    ours.go.set()
    await until(ours.done)
    assert ours.gone == [dead.id] and not await rig.knows(dead), "once, though it took long"


async def test_where_the_one_that_cleans_up_dies_too_another_takes_over(rig: Rig) -> None:
    dead, first, second = await rig.start("dead", "web-1", "web-2")
    ours, theirs = Calls(first, is_held=True), Calls(second, is_held=True)
    await rig.age(dead, LIFE + 1)
    await first.beat()
    await until(ours.begun)
    await rig.let_claim_run_out(dead)  # the first one stands still for so long
    await second.beat()
    await until(theirs.begun)
    await first.beat()  # and learns that it has lost it
    await until(ours.cancelled)
    theirs.go.set()
    await until(theirs.done)
    assert theirs.gone == [dead.id] and not await rig.knows(dead)


async def test_one_that_lost_its_claim_and_ends_after_all_takes_nothing_from_the_other(rig: Rig) -> None:
    dead, first, second = await rig.start("dead", "web-1", "web-2")
    ours, theirs = Calls(first, is_held=True), Calls(second, is_held=True)
    await rig.age(dead, LIFE + 1)
    await first.beat()
    await until(ours.begun)
    await rig.let_claim_run_out(dead)
    await second.beat()
    await until(theirs.begun)
    ours.go.set()
    await until(ours.done)
    assert await rig.knows(dead) and await rig.knows(dead, "claims"), "the second one may fail yet"
    theirs.go.set()
    await until(theirs.done)
    assert not await rig.knows(dead)


async def test_a_node_that_left_is_looked_after_at_once(rig: Rig) -> None:
    """By itself it has cleaned up already, if it could."""
    leaving, staying = await rig.start("web-1", "web-2")
    calls = Calls(staying)
    await leaving.stop()
    assert await rig.names() == ["web-2"]
    await staying.beat()
    await until(calls.done)
    assert calls.gone == [leaving.id] and not await rig.knows(leaving)


async def test_the_last_one_to_leave_is_looked_after_by_the_next_one_to_come(rig: Rig) -> None:
    [last] = await rig.start("web-1")
    await last.stop()
    calls = Calls(node := rig.make("web-2"))
    await node.start()
    await until(calls.done)
    assert calls.gone == [last.id] and not await rig.knows(last)


# — those who come back —


async def test_a_node_that_stood_still_and_was_not_missed_goes_on(rig: Rig) -> None:
    node, _ = await rig.start("web-1", "web-2")
    calls = Calls(node)
    await rig.age(node, LIFE + 1)
    await node.beat()
    assert calls.forgotten == 0 and await rig.names() == ["web-1", "web-2"]


async def test_a_node_that_comes_back_while_another_cleans_up_after_it_waits_and_tells_again(rig: Rig) -> None:
    back, other = await rig.start("web-1", "web-2")
    ours, theirs = Calls(back), Calls(other, is_held=True)
    await rig.age(back, LIFE + 1)
    await other.beat()
    await until(theirs.begun)
    await back.beat()
    assert await rig.names() == ["web-2"] and ours.forgotten == 0, "not before the other one is done: it would take away what is told now"
    theirs.go.set()
    await until(theirs.done)
    await back.beat()
    await until(ours.begun)
    assert await rig.names() == ["web-1", "web-2"] and ours.forgotten == 1


async def test_a_node_that_comes_back_in_the_middle_tells_all_again_whatever_is_still_taken_away(rig: Rig) -> None:
    """The one that cleaned up stood still itself, came back, and took away a little more before it learnt that it should not."""
    back, other = await rig.start("web-1", "web-2")
    ours, theirs = Calls(back), Calls(other, is_held=True)
    await rig.age(back, LIFE + 1)
    await other.beat()
    await until(theirs.begun)
    await rig.let_claim_run_out(back)
    await back.beat()
    await until(ours.begun)
    assert ours.forgotten == 1 and await rig.names() == ["web-1", "web-2"]
    await other.beat()
    await until(theirs.cancelled)
    await back.beat()
    await until(ours.begun)
    assert ours.forgotten == 2 and await rig.names() == ["web-1", "web-2"]


async def test_a_register_that_lost_its_memory_is_told_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    first, second = await rig.start("web-1", "web-2")
    ours, theirs = Calls(first), Calls(second)
    await rig.client.command("DEL", *(rig.key(part) for part in ("seen", "records", "claims", "calm")))
    for node, calls in ((first, ours), (second, theirs)):
        await node.beat()
        await until(calls.begun)
    assert (ours.forgotten, theirs.forgotten) == (1, 1) and (ours.gone, theirs.gone) == ([], [])
    assert await rig.names() == ["web-1", "web-2"] and "had forgotten this node" in caplog.text


async def test_telling_again_that_fails_is_tried_again_with_the_next_beat(rig: Rig) -> None:
    [node] = await rig.start("web-1")
    calls = Calls(node)
    calls.failures = 1
    await rig.client.command("DEL", rig.key("seen"))
    await node.beat()
    await until(calls.begun)
    await node.beat()
    await until(calls.begun)
    await node.beat()
    assert calls.forgotten == 2


# — the register was away —


async def test_nobody_is_dead_for_not_having_told_while_the_register_was_away(rig: Rig) -> None:
    first, second, missing = await rig.start("web-1", "web-2", "web-3")
    ours, theirs = Calls(first), Calls(second)
    for node in (first, second, missing):
        await rig.age(node, 20)
    await first.beat()
    assert await rig.names() == ["web-1", "web-2", "web-3"], "each has time to come back"
    await second.beat()
    await rig.client.command("HINCRBY", rig.key("calm"), "since", int(-LIFE * 1000))  # the time is over
    await rig.client.command("HINCRBY", rig.key("calm"), "since", -1)
    assert await rig.names() == ["web-1", "web-2"]
    await first.beat()
    await until(ours.done)
    assert not await rig.knows(missing)
    assert (ours.gone, theirs.gone, ours.forgotten, theirs.forgotten) == ([missing.id], [], 0, 0)


async def test_nodes_of_long_ago_are_not_taken_to_have_been_kept_from_telling(rig: Rig) -> None:
    old, new = await rig.start("web-1", "web-2")
    for node in (old, new):
        await rig.age(node, 3600)
    await new.beat()
    assert await rig.names() == ["web-2"]


async def test_a_clock_that_was_set_back_keeps_nobody_alive_for_longer(rig: Rig) -> None:
    dead, living = await rig.start("web-1", "web-2")
    await rig.age(dead, -3600)
    await living.beat()
    await rig.age(dead, LIFE + 1)
    assert await rig.names() == ["web-2"]


async def test_redis_away_is_said_once_and_its_return_once(caplog: pytest.LogCaptureFixture) -> None:
    with running_redis() as server:
        client = Client(read_url(server.url))
        await client.open()
        rig = Rig(client, "test")
        [node] = await rig.start("web-1")
        server.stop()
        with caplog.at_level(logging.INFO, "aibos_realtime.cluster"):
            for _ in range(3):
                await node.beat()
            with pytest.raises(BrokerUnavailable):
                await node.list()
            with pytest.raises(BrokerUnavailable):
                await rig.make("web-2").start()
            server.start()
            for _ in range(2):
                await node.beat()
        said = [record.getMessage() for record in caplog.records if "the register of nodes" in record.getMessage()]
        assert len(said) == 2 and "cannot be reached" in said[0] and "reached again" in said[1]
        assert await rig.names() == ["web-1"]
        server.stop()
        await node.stop()
        await client.close()


# — roles and names —


async def test_a_process_without_sockets_is_a_node_and_no_instance_and_cleans_up_after_nobody(rig: Rig) -> None:
    [process] = await rig.start("job", role="process")
    [server] = await rig.start("web-1", url="ws://web1:3001")
    calls = Calls(process)
    await rig.age(server, LIFE + 1)
    await process.beat()
    assert calls.gone == [] and await rig.knows(server)
    await server.beat()
    assert [(record.name, record.role) for record in await process.list()] == [("job", "process"), ("web-1", "server")]
    assert [record.name for record in await process.list_instances()] == ["web-1"]
    await process.stop()
    assert not await rig.knows(process)


async def test_an_instance_that_others_told_of_is_no_node_and_expires(rig: Rig) -> None:
    [node] = await rig.start("web-1", url="ws://web1:3001")
    told = node.register("ws://other:3001", name="other", weight=3)
    await told.start()
    rig.nodes.append(told)
    assert [record.name for record in await node.list()] == ["web-1"]
    assert [(record.name, record.weight, record.role) for record in await node.list_instances()] == [("web-1", 1, "server"), ("other", 3, "instance")]
    another = node.register("ws://third:3001", name="third", weight=1)
    await another.start()
    rig.nodes.append(another)
    await rig.age(told, LIFE + 1, "instances")
    assert [record.name for record in await node.list_instances()] == ["web-1", "third"]
    await told.stop()
    await another.stop()
    assert await rig.client.command("EXISTS", rig.key("seen", "instances")) == 0


async def test_an_instance_whose_keeper_died_is_taken_out_by_any_other_keeper(rig: Rig) -> None:
    reader = rig.make("reader")
    dead, living = (reader.register(f"ws://{name}:3001", name=name, weight=1) for name in ("dead", "living"))
    rig.nodes += [dead, living]
    await dead.start()
    await living.start()
    await rig.age(dead, LIFE + 1, "instances")
    out = asyncio.Event()
    living.describe_now = _telling_of_the_second(living, out)  # type: ignore[method-assign]
    await living.beat()
    await until(out)
    assert await rig.client.command("HLEN", rig.key("records", "instances")) == 1


def _telling_of_the_second(registration: RedisRegistration, told: asyncio.Event) -> Any:
    """It asks for more of the dead once it is done with the first ones."""
    record, turns = registration.describe_now(), iter((False, True))

    def describe_now() -> Any:
        if next(turns, False):
            told.set()
        return record

    return describe_now


async def test_two_servers_of_one_name_are_warned_of_with_both_addresses(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    first = rig.make("web-1", url="ws://a:3001")
    said: dict[str, Any] = {}
    first.describe(lambda: said)
    await first.start()
    await rig.start("web-1", url="ws://a:3001")
    assert caplog.text == "", "at one address they are the processes of one server, or one takes the other's place"
    await rig.start("web-1", url="ws://b:3001")
    assert "two servers have the name web-1 (INSTANCE_ID): this one at ws://b:3001, and one at ws://a:3001" in caplog.text
    assert len({record.id for record in await first.list()}) == 3


# — hostile data —


async def test_what_is_no_record_is_counted_and_passed_over(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    [node] = await rig.start("web-1", url="ws://web1:3001")
    good = (await rig.client.command("HGET", rig.key("records"), node.id)).decode()
    spoilt = [
        b"\x80\x04pickle", b"[" * 4000, b"null", b"{}", b'{"id": "\xff"}', good.replace(node.id, "HERE") + " " * 10_000_000,
        good,  # of another node
        *(good.replace(node.id, "HERE").replace(old, new) for old, new in (
            ('"web-1"', '"web\\u0007"'), ('"web-1"', '"' + "a" * 129 + '"'), ('"web-1"', "7"), ("ws://web1:3001", "javascript:alert(1)"),
            ('"up"', '"gone"'), ('"weight":1', '"weight":0'), ('"connections":0', '"connections":-1'), ('"load":0.0', '"load":1e999'),
            ('"rooms":0', '"rooms":1e300'), ('"role":"server"', '"role":"root"'),
        )),
    ]  # fmt: skip
    now = await rig.client.command("ZSCORE", rig.key("seen"), node.id)
    for number, record in enumerate(spoilt):
        id = f"spoofed-{number}"
        text = record.replace("HERE", id) if isinstance(record, str) else record
        await rig.client.command("HSET", rig.key("records"), id, text)
        await rig.client.command("ZADD", rig.key("seen"), now, id)
    await rig.client.command("ZADD", rig.key("seen"), now, b"\xff\x00", now, "without a record")
    assert [record.name for record in await node.list()] == ["web-1"]
    assert rig.metrics.foreign_records == len(spoilt) + 2
    assert caplog.text.count("none of ours") == 2, "the first and the tenth"


async def test_a_newer_version_may_tell_more(rig: Rig) -> None:
    [node] = await rig.start("web-1")
    record = await rig.client.command("HGET", rig.key("records"), node.id)
    await rig.client.command("HSET", rig.key("records"), node.id, record[:-1] + b',"zone":"eu"}')
    assert await rig.names() == ["web-1"]


@pytest.mark.parametrize("part", ["seen", "records", "claims", "calm"])
async def test_a_key_that_holds_something_else_is_made_good(rig: Rig, part: str) -> None:
    [node] = await rig.start("web-1")
    await rig.client.command("DEL", rig.key(part))
    await rig.client.command("SET", rig.key(part), "something else")
    assert len(await node.list()) <= 1
    await node.beat()
    assert await rig.names() == ["web-1"]
