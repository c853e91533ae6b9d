"""The shared log while its Redis is full, broken, paused, killed or emptied: nothing is lost that was acknowledged, and what may be is told."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, Position
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.intake import RedisIntake
from aibos_realtime.backends.redis.log import RedisLog
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.storage.shared_broker import SharedBroker
from tests.faults.proxy import CutBeforeReply, Pass, Proxy
from tests.servers.redis import PROGRAMS, RedisServer, running_redis
from tests.servers.redis_sets import running_cluster, running_sentinels

from .log_rig import Bench, Member, draft, log_on, members_on

PREFIX = "t"


@pytest.fixture(params=list(PROGRAMS) or ["valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own."""
    with running_redis(PROGRAMS.get(request.param)) as server:
        yield server


async def until_published(member: Member, room: str = "lobby", **more: Any) -> Position:
    """Publish until it is taken."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await member.publish(room, **more)
            except BrokerUnavailable:
                await asyncio.sleep(0)


def bar_the_way(path: Path) -> None:
    """Have something there that no file can take the place of."""
    path.mkdir()
    (path / "x").touch()


def assert_whole(member: Member, room: str = "lobby") -> None:
    """Each event once, in order, and none missing but where that was told."""
    told = iter(member.resyncs(room))
    at: Position | None = None
    for event in member.events(room):
        if at is not None and event.epoch != at.epoch:
            at = next(told)
        assert at is None or Position(event.epoch, event.offset) == Position(at.epoch, at.offset + 1)
        at = Position(event.epoch, event.offset)


# — refusing —


async def test_a_server_that_is_full_refuses_what_is_published_and_still_tells_and_drops(server: RedisServer) -> None:
    async with log_on(server.url, PREFIX, has_store=True) as bench, members_on(server.url, PREFIX, 1) as (member,):
        await member.watch("lobby")
        outcomes = [outcome for _ in range(3) for outcome in await bench.append(draft())]
        assert [outcome.status for outcome in outcomes] == ["appended"] * 3
        server.execute("CONFIG", "SET", "maxmemory", "1mb")
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="OOM"):
                await member.publish()
        epoch = (await member.broker.position("lobby")).epoch
        assert (await bench.log.read_after("lobby", Position(epoch, 0), 10)).last == 3
        assert (await member.broker.read_before("lobby", None, 10)).last == 3 and await bench.log.heads(0, ["lobby"]) == [Position(epoch, 3)]
        intake = RedisIntake(bench.log)
        assert len(await intake.read(0, None, 10)) == 3
        await intake.drop(0, outcomes[1].entry)
        assert await bench.command("XLEN", bench.shard_key("intake")) == 1 and await bench.log.committed(0) == (outcomes[1].life, outcomes[1].entry)
        server.execute("CONFIG", "SET", "maxmemory", "0")
        assert (await member.publish()).offset == 4


@pytest.mark.parametrize("is_flushed", [True, False])
async def test_how_far_the_store_is_holds_for_one_life_of_the_memory(server: RedisServer, is_flushed: bool) -> None:
    """Entries that Redis had lost were taken for stored once the store had later ones, whose ids are higher: publishers were told `committed`."""
    async with log_on(server.url, PREFIX, has_store=True) as bench:
        intake = RedisIntake(bench.log)
        await bench.begin()
        (lost,) = await bench.append(draft())
        if is_flushed:
            await bench.command("FLUSHALL")
        else:
            server.stop(signal.SIGKILL)
            await asyncio.to_thread(server.start)
        async with asyncio.timeout(15):
            while True:
                try:
                    await bench.begin(epoch="e2")
                    (later,) = await bench.append(draft())
                    await intake.read(0, None, 10)
                    await intake.drop(0, later.entry)
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0)
        assert later.life and later.life != lost.life and await bench.log.committed(0) == (later.life, later.entry)


async def test_a_server_that_cannot_save_refuses_what_is_published(server: RedisServer) -> None:
    async with members_on(server.url, PREFIX, 1) as (member,):
        await member.watch("lobby")
        await member.publish()
        bar_the_way(server.folder / "dump.rdb")
        server.execute("CONFIG", "SET", "save", "3600 1")
        server.execute("BGSAVE")
        server.until(b"rdb_last_bgsave_status:err", "INFO", "persistence")
        with pytest.raises(BrokerUnavailable, match="MISCONF"):
            await member.publish()
        assert (await member.broker.read_before("lobby", None, 10)).last == 1, "it can be read"
        server.execute("CONFIG", "SET", "save", "")
        assert (await member.publish()).offset == 2


async def test_a_server_that_became_a_replica_refuses_and_goes_on_when_it_is_none(server: RedisServer) -> None:
    async with members_on(server.url, PREFIX, 1) as (member,):
        await member.watch("lobby")
        first = await member.publish()
        server.execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(BrokerUnavailable):
            await member.publish()
        server.execute("REPLICAOF", "NO", "ONE")
        last = await until_published(member)
        await member.until_at(last)
        assert last == Position(first.epoch, 2) and member.resyncs() == []


async def test_scripts_that_the_server_forgot_are_sent_again(server: RedisServer) -> None:
    async with members_on(server.url, PREFIX, 1) as (member,):
        await member.watch("lobby")
        for number in range(1, 4):
            server.execute("SCRIPT", "FLUSH", "SYNC")
            assert (await member.publish()).offset == number


async def test_a_user_who_may_use_these_names_alone_is_enough(server: RedisServer) -> None:
    server.execute("ACL", "SETUSER", "app", "on", ">secret", f"~{PREFIX}:*", f"&{PREFIX}:*", "+@all", "-@dangerous", "-@admin")
    async with members_on(f"unix://app:secret@{server.path}", PREFIX, 2) as (one, two):
        await one.watch("lobby")
        position = await two.publish()
        await one.until_at(position)
        await two.publish(id="x", keyed=True)
        assert (await one.broker.publish(draft(id="x", keyed=True))).duplicate


# — losing —


async def test_a_server_that_was_emptied_is_a_loss_that_is_told(server: RedisServer) -> None:
    async with members_on(server.url, PREFIX, 2) as (one, two):
        for member in (one, two):
            await member.watch("lobby", "quiet")
        first = await one.publish()
        await asyncio.gather(one.until_at(first), two.until_at(first))
        server.execute("FLUSHALL")
        second, third = await two.publish(), await one.publish()
        await asyncio.gather(one.until_at(third), two.until_at(third))
        assert [position.offset for position in (second, third)] == [1, 2] and second.epoch == third.epoch != first.epoch
        for member in (one, two):
            assert_whole(member)
            assert member.resyncs() == [Position(second.epoch, 0)] and member.receiver.delivered[0].epoch == first.epoch
            await member.receiver.until(lambda member=member: member.resyncs("quiet") != [])  # type: ignore[misc]


async def test_a_server_that_is_killed_loses_nothing_and_every_event_is_whole(server: RedisServer) -> None:
    """Killed while events are being appended: each is in the log, in what waits for the store, and under its id, or it is nowhere."""
    async with log_on(server.url, PREFIX, has_store=True) as bench:
        rooms = [f"room{number}" for number in range(5)]
        acknowledged: set[tuple[str, int]] = set()
        for room in rooms:
            await bench.begin(room)
        for round in range(4):
            await asyncio.gather(*(append_until_killed(bench, room, round, acknowledged, server) for room in rooms))
            server.stop(signal.SIGKILL)
            server.start()
            await until_answered(bench.log.client)
            for room in rooms:
                await settle(bench, room)
            entries = await bench.command("XRANGE", bench.shard_key("intake"), "-", "+")
            waiting = [(fields[3].decode(), int(fields[1].split()[1])) for _, fields in entries]
            kept = [place for room in rooms for place in await places(bench, room)]
            assert sorted(waiting) == sorted(kept) and acknowledged <= set(kept)


async def append_until_killed(bench: Bench, room: str, round: int, acknowledged: set[tuple[str, int]], server: RedisServer) -> None:
    number, enough = 0, len(acknowledged) + 1500
    while True:
        number += 1
        try:
            outcomes = await bench.append(*(draft(room, id=f"{round}.{number}.{n}", keyed=True) for n in range(20)))
        except BrokerUnavailable:
            return
        assert [outcome.status for outcome in outcomes] == ["appended"] * 20
        acknowledged.update((room, outcome.position.offset) for outcome in outcomes if outcome.position is not None)
        if len(acknowledged) >= enough and server.process is not None:
            server.process.send_signal(signal.SIGKILL)


async def settle(bench: Bench, room: str) -> None:
    """Take a room for what it is, as if everybody had been asked."""
    await bench.log.end(room, ())
    await bench.command("HSET", bench.shard_key("state"), "since", 0)
    assert (await bench.log.end(room, (), is_settled=True)).doubt is None


async def places(bench: Bench, room: str) -> list[tuple[str, int]]:
    """What a room has; its log, its end and its ids agree on that."""
    (head,) = await bench.log.heads(0, [room])
    assert head is not None
    offsets = [int(id.split(b"-")[0]) for id, _ in await bench.command("XRANGE", bench.key("log", room), "-", "+")]
    assert offsets == list(range(head.offset - len(offsets) + 1, head.offset + 1))
    last = (await bench.log.read_before(room, None, 1)).events[0]
    (again,) = await bench.append(draft(room, id=last.id, keyed=True))
    assert (again.status, again.position) == ("again", head)
    return [(room, offset) for offset in range(1, head.offset + 1)]


async def until_answered(client: Client) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.command("PING")
                return
            except BrokerUnavailable:
                await asyncio.sleep(0)


async def test_nodes_survive_a_server_that_is_killed_and_comes_back(server: RedisServer) -> None:
    async with members_on(server.url, PREFIX, 2) as (one, two):
        for member in (one, two):
            await member.watch("lobby")
        first = await one.publish()
        server.stop(signal.SIGKILL)
        with pytest.raises(BrokerUnavailable):
            await one.publish()
        server.start()
        began = time.monotonic()
        last = await until_published(two)
        assert time.monotonic() - began < 5
        await asyncio.gather(one.until_at(last), two.until_at(last))
        assert last.epoch == first.epoch
        for member in (one, two):
            assert_whole(member)
            assert member.resyncs() == []


# — hearing —


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_connections_that_are_killed_cost_nothing(server: RedisServer, kind: str) -> None:
    async with members_on(server.url, PREFIX, 2) as (one, two):
        for member in (one, two):
            await member.watch("lobby")
        position = await one.publish()
        for _ in range(5):
            server.execute("CLIENT", "KILL", "TYPE", kind)
            for _ in range(20):
                position = await until_published(one)
        await asyncio.gather(one.until_at(position), two.until_at(position))
        for member in (one, two):
            assert_whole(member)
            assert member.resyncs() == [] and len(member.events()) == 101


async def test_a_server_that_stands_still_refuses_in_time_and_loses_nothing(server: RedisServer) -> None:
    async with members_on(server.url, PREFIX, 2) as (one, two):
        for member in (one, two):
            await member.watch("lobby")
        await one.publish()
        server.pause()
        try:
            began = time.monotonic()
            receipts = [one.broker.publish(draft(id=f"x{number}", keyed=True)) for number in range(600)]
            results = await asyncio.gather(*receipts, return_exceptions=True)
            assert {type(result) for result in results} == {BrokerUnavailable} and time.monotonic() - began < 2.5
            two.receiver.watched.add("office")
            with pytest.raises(BrokerUnavailable):
                await two.broker.position("office")
            assert time.monotonic() - began < 5
        finally:
            server.go_on()
        again = [await until_published(two, id=f"x{number}", keyed=True) for number in range(600)]
        await asyncio.gather(one.until_at(again[-1]), two.until_at(again[-1]))
        for member in (one, two):
            assert_whole(member)
            assert sorted(event.id for event in member.events() if event.id.startswith("x")) == sorted(f"x{number}" for number in range(600))


async def test_a_reply_that_is_cut_off_is_unknown_and_the_id_tells(server: RedisServer) -> None:
    async with Proxy(str(server.path)) as proxy, members_on(server.url, PREFIX, 1) as (other,):
        await other.watch("lobby")
        client = Client(read_url(f"redis://127.0.0.1:{proxy.port}"))
        await client.open()
        log = RedisLog(client, prefix=PREFIX, node="cut", has_store=False)
        member = Member(SharedBroker(log), log, other.metrics)
        await member.broker.start()
        await member.watch("lobby")
        await member.publish()
        for times in (1, 3, 11):
            for number in range(times):
                proxy.mode = CutBeforeReply(to=f"cut-{times}-{number}".encode())
                with pytest.raises(BrokerUnavailable):
                    await member.publish(id=f"cut-{times}-{number}", keyed=True)
                proxy.mode = Pass()
                receipt = await _until_receipt(member, f"cut-{times}-{number}")
                assert receipt.duplicate
        last = await until_published(member)
        await asyncio.gather(other.until_at(last), member.until_at(last))
        assert last.offset == 17 and len(other.events()) == 17
        assert_whole(member)
        assert_whole(other)
        await member.broker.stop()
        await client.close()


async def _until_receipt(member: Member, id: str) -> Any:
    async with asyncio.timeout(10):
        while True:
            try:
                return await member.broker.publish(draft(id=id, keyed=True))
            except BrokerUnavailable:
                await asyncio.sleep(0)


# — taking over —


async def test_nodes_follow_to_the_replica_that_takes_over_in_a_set_with_sentinels() -> None:
    with running_sentinels(patience=0.5) as found:
        found.until_watched()
        async with members_on(found.url, PREFIX, 2) as (one, two):
            await _survive(one, two, lambda: found.servers[0].stop(signal.SIGKILL))


async def test_nodes_follow_to_the_replicas_that_take_over_in_a_cluster() -> None:
    with running_cluster(replicas=True, patience=1.0) as found:
        async with members_on(found.url, PREFIX, 2) as (one, two):
            await _survive(one, two, lambda: found.primaries[0].stop(signal.SIGKILL))


async def _survive(one: Member, two: Member, fail: Any) -> None:
    """Publish to many rooms across a fail-over: what each node was told is whole, and both were told the same."""
    rooms = [f"room{number}" for number in range(20)]
    for member in (one, two):
        await member.watch(*rooms)
    for number in range(5):
        await asyncio.gather(*((one, two)[number % 2].publish(room) for room in rooms))
    fail()
    last = await asyncio.gather(*(until_published((one, two)[number % 2], room) for number, room in enumerate(rooms)))
    last = await asyncio.gather(*(until_published((two, one)[number % 2], room) for number, room in enumerate(rooms)))
    for member in (one, two):
        await asyncio.gather(*(member.until_at(position) for position in last))
    contents: dict[tuple[str, str, int], str] = {}
    for member in (one, two):
        for room in rooms:
            assert_whole(member, room)
            for event in member.events(room):
                assert contents.setdefault((room, event.epoch, event.offset), event.id) == event.id
