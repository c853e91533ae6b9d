"""Sentinels and clusters: who serves a key is found out, and found out again when it changes; nothing is sent twice on the way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, ConfigurationError
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.connection import ConnectionLost
from aibos_realtime.backends.redis.script import Script
from aibos_realtime.backends.redis.topology import Flights, slot_of
from aibos_realtime.backends.redis.urls import read_url
from tests.servers.redis import PROGRAMS, RedisServer, find_ports, running_redis
from tests.servers.redis_sets import SERVICE, ClusterSet, running_cluster, running_sentinels

from .heard import Heard, listening

COUNT = Script("count", "return redis.call('INCR', KEYS[1])")
pytestmark = pytest.mark.timeout(90)  # sentinels that elect nobody try again seconds later
EACH = pytest.mark.parametrize("program", list(PROGRAMS) or ["valkey"])


@pytest.fixture(scope="module", params=list(PROGRAMS) or ["valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[ClusterSet]:
    """A cluster whose slots are moved. Each test takes a slot of its own."""
    with running_cluster(PROGRAMS.get(request.param)) as made:
        yield made


def name_in(cluster: ClusterSet, server: RedisServer, start: str) -> str:
    """A name with a hash tag that this server has the slot of."""
    return next(name for name in (f"{{{start}{number}}}" for number in range(1000)) if cluster.owner_of(slot_of(name)) is server)


async def settle(heard: Heard, call: Any, key: str) -> list[BrokerUnavailable]:
    """Call until it is answered; the errors on the way."""
    errors: list[BrokerUnavailable] = []
    async with asyncio.timeout(40):
        while True:
            try:
                await call(key)
                return errors
            except BrokerUnavailable as error:
                errors.append(error)
                await asyncio.sleep(0)


# — slots —


@pytest.mark.parametrize(
    ("name", "slot"),
    [("123456789", 12739), ("foo", 12182), ("{foo}bar", 12182), ("x{foo}bar{b}", 12182), ("", 0), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015),
     (b"\xff", slot_of("{\udcff}".encode(errors="surrogateescape")))],
)  # fmt: skip
def test_slots_are_those_of_the_specification(name: str | bytes, slot: int) -> None:
    assert slot_of(name) == slot


async def test_slots_are_those_of_the_server(cluster: ClusterSet) -> None:
    for name in ("a", "{a}b", "x{y}", "{}z", "ä{ö}ü"):
        assert cluster.primaries[0].execute("CLUSTER", "KEYSLOT", name) == b":%d\r\n" % slot_of(name)


# — work that is shared —


async def test_those_who_ask_meanwhile_share_one_flight() -> None:
    flights, begun, go = Flights(), 0, asyncio.Event()

    async def work() -> int:
        nonlocal begun
        begun += 1
        await go.wait()
        return begun

    asking = [asyncio.create_task(flights.join("a", work)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    go.set()
    assert await asyncio.gather(*asking[1:]) == [1, 1] and begun == 1
    assert await flights.join("a", work) == 2, "and the next one is new"
    go.clear()
    waiting = asyncio.create_task(flights.join("a", work))
    await asyncio.sleep(0)
    await flights.close()
    with pytest.raises(ConnectionLost):
        await waiting


# — cluster —


async def test_a_cluster_is_found_from_any_of_its_servers(cluster: ClusterSet, redis_prefix: str) -> None:
    for seed in (f"127.0.0.1:1,127.0.0.1:{cluster.primaries[1].port}", f"127.0.0.1:{cluster.primaries[2].port}"):
        client = Client(read_url(f"redis+cluster://{seed}"))
        await client.open()
        assert client.is_cluster
        for server in cluster.primaries:
            key = name_in(cluster, server, redis_prefix)
            assert await client.run(COUNT, [key], []) >= 1 and server.execute("EXISTS", key) == b":1\r\n"
        await client.close()


async def test_no_server_of_a_cluster_is_an_error() -> None:
    client = Client(read_url("redis+cluster://127.0.0.1:1,127.0.0.1:2"))
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        await client.open()


async def test_a_server_that_is_no_cluster_is_an_error() -> None:
    with running_redis(port=str(find_ports(1)[0])) as server:
        client = Client(read_url(f"redis+cluster://127.0.0.1:{server.port}"))
        with pytest.raises(BrokerUnavailable, match="is no cluster"):
            await client.open()


async def test_all_primaries_are_checked(redis_prefix: str) -> None:
    with running_cluster() as own:
        own.primaries[2].execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        client = Client(read_url(own.url))
        with pytest.raises(ConfigurationError, match=f"allkeys-lru at 127.0.0.1:{own.primaries[2].port}, .* needed is noeviction"):
            await client.open()
        own.primaries[2].execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        own.primaries[1].execute("CONFIG", "SET", "requirepass", "hunter2")
        with pytest.raises(BrokerUnavailable, match="Redis refused") as failure:
            await client.open()
        assert "hunter2" not in str(failure.value)
        for server in own.primaries:
            server.execute("CONFIG", "SET", "requirepass", "hunter2")
        client = Client(read_url(own.url.replace("//", "//:wrong3@")))
        with pytest.raises(BrokerUnavailable, match="refused the user or the password") as failure:
            await client.open()
        assert "wrong3" not in str(failure.value)
        async with listening(own.url.replace("//", "//:hunter2@")) as heard:
            await heard.subscriber.subscribe(redis_prefix)
            await heard.hears(redis_prefix)


async def test_a_call_to_a_slot_that_moves_is_done_once(cluster: ClusterSet, redis_prefix: str) -> None:
    source, target = cluster.primaries[:2]
    key = name_in(cluster, source, redis_prefix)
    slot = slot_of(key)
    fresh = Script("fresh", f"return redis.call('INCR', KEYS[1]) -- {redis_prefix}")
    async with listening(cluster.url) as heard:
        client = heard.client
        await client.command("SET", f"{key}:stays", 1)
        cluster.begin_move(slot, target)
        assert await client.run(fresh, [f"{key}:n"], []) == 1, "ASK, where the script is not known"
        assert await client.run(fresh, [f"{key}:n"], []) == 2
        assert await client.command("INCR", f"{key}:n") == 3
        assert await client.command("GET", f"{key}:stays") == b"1", "what has not moved yet"
        assert await client.command("DEL", f"{key}:stays") == 1
        cluster.end_move(slot, target)
        assert [await client.run(fresh, [f"{key}:n"], []) for _ in range(3)] == [4, 5, 6], "MOVED"
        assert await client.read_stream(f"{key}:stream", "0-0", 1, 0.01) == []


async def test_a_read_of_a_slot_that_has_moved_is_an_error_once_at_most(cluster: ClusterSet, redis_prefix: str) -> None:
    source, target = cluster.primaries[1:]
    key = name_in(cluster, source, redis_prefix)
    async with listening(cluster.url) as heard:
        assert await heard.client.read_stream(key, "0-0", 1, 0.01) == []
        cluster.begin_move(slot_of(key), target)
        cluster.end_move(slot_of(key), target)
        errors = await settle(heard, lambda key: heard.client.read_stream(key, "0-0", 1, 0.01), key)
        assert len(errors) <= 1
        await heard.client.command("XADD", key, "1-1", "a", "b")
        assert await heard.client.read_stream(key, "0-0", 1, 0.01) == [("1-1", {b"a": b"b"})]


async def test_channels_of_a_slot_that_moves_are_heard_at_the_other_server(cluster: ClusterSet, redis_prefix: str) -> None:
    source, target = cluster.primaries[1], cluster.primaries[0]
    tag = name_in(cluster, source, redis_prefix)
    channels = [f"{tag}:{number}" for number in range(1200)]
    others = [f"{name_in(cluster, server, redis_prefix + 'other')}" for server in cluster.primaries]
    async with listening(cluster.url) as heard:
        await asyncio.gather(*(heard.subscriber.subscribe(channel) for channel in (*channels, *others)))
        for back, there in ((source, target), (target, source)):
            before = heard.confirmed[channels[0]]
            cluster.begin_move(slot_of(tag), there, back)
            cluster.end_move(slot_of(tag), there)
            await heard.until(lambda before=before: all(heard.confirmed[channel] == before + 1 for channel in channels))  # type: ignore[misc]
            assert heard.subscriber.is_connected
            await heard.hears(channels[0])
            await heard.hears(channels[-1])
            assert there.execute("PUBSUB", "SHARDNUMSUB", channels[7]).endswith(b":1\r\n")
        assert all(heard.confirmed[channel] == 1 for channel in others) and heard.lost == 0


@EACH
async def test_a_cluster_that_fails_over_is_followed(program: str, redis_prefix: str) -> None:
    with running_cluster(PROGRAMS.get(program), replicas=True, patience=1) as own:
        dead, alive = own.primaries[0], own.primaries[1]
        lost, kept = name_in(own, dead, redis_prefix), name_in(own, alive, redis_prefix)
        async with listening(own.url) as heard:
            await asyncio.gather(heard.subscriber.subscribe(lost), heard.subscriber.subscribe(kept))
            assert await heard.client.run(COUNT, [f"{lost}:n"], []) == 1
            own.replicas[0].until(b"db0:keys=1", "INFO", "keyspace")
            dead.stop(signal.SIGKILL)
            await heard.until(lambda: heard.lost == 1)
            assert not heard.subscriber.is_connected
            await heard.until(lambda: heard.confirmed[lost] == 2)
            await settle(heard, lambda key: heard.client.command("GET", key), f"{lost}:n")
            assert await heard.client.run(COUNT, [f"{lost}:n"], []) == 2
            await heard.hears(lost)
            await heard.hears(kept)
            assert own.replicas[0].execute("ROLE").startswith(b"*3\r\n$6\r\nmaster")


@EACH
async def test_a_primary_that_steps_down_is_followed(program: str, redis_prefix: str) -> None:
    """By the hand of an administrator: both servers live on, and what is published at the one is heard at the other."""
    with running_cluster(PROGRAMS.get(program), replicas=True, patience=1) as own:
        name = name_in(own, own.primaries[0], redis_prefix)
        async with listening(own.url) as heard:
            await heard.subscriber.subscribe(name)
            for server in (own.replicas[0], own.primaries[0]):
                own.promote(server)
                await settle(heard, lambda key: heard.client.run(COUNT, [key], []), f"{name}:n")
                await heard.hears(name)
            assert heard.subscriber.is_connected and await heard.client.command("GET", f"{name}:n") == b"2"


# — sentinels —


@EACH
async def test_a_primary_that_dies_is_followed_by_the_one_that_the_sentinels_choose(program: str, redis_prefix: str) -> None:
    with running_sentinels(PROGRAMS.get(program), patience=0.5) as own:
        own.until_watched()
        async with listening(own.url) as heard:
            await heard.subscriber.subscribe(redis_prefix)
            assert await heard.client.run(COUNT, ["n"], []) == 1
            own.servers[1].until(b"$1\r\n1\r\n", "GET", "n")
            own.servers[0].stop(signal.SIGKILL)
            await heard.until(lambda: heard.lost == 1)
            assert not heard.subscriber.is_connected
            await settle(heard, lambda key: heard.client.command("GET", key), "n")
            assert await heard.client.run(COUNT, ["n"], []) == 2 and own.servers[1].execute("GET", "n") == b"$1\r\n2\r\n"
            await heard.until(lambda: heard.confirmed[redis_prefix] == 2)
            await heard.hears(redis_prefix)


@EACH
async def test_a_primary_that_is_replaced_while_it_lives_is_left(program: str, redis_prefix: str) -> None:
    """As sentinels do it, which let the old one go on for ten seconds more."""
    with running_sentinels(PROGRAMS.get(program)) as own:
        own.until_watched()
        old, new = own.servers
        async with listening(own.url) as heard:
            await heard.subscriber.subscribe(redis_prefix)
            await heard.client.run(COUNT, ["n"], [])
            own.sentinels[0].until(b"+OK", "SENTINEL", "FAILOVER", SERVICE)
            new.until(b"master", "ROLE")
            for sentinel in own.sentinels:
                sentinel.until(str(new.port).encode(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            old.execute("REPLICAOF", "127.0.0.1", str(new.port))
            for kind in ("normal", "pubsub"):
                old.execute("CLIENT", "KILL", "TYPE", kind)
            await settle(heard, lambda key: heard.client.run(COUNT, [key], []), "m")
            await heard.until(lambda: heard.confirmed[redis_prefix] == 2)
            await heard.hears(redis_prefix)
            assert new.execute("GET", "m") == b"$1\r\n1\r\n"


async def test_a_primary_that_takes_no_writes_any_more_is_asked_for_again(redis_prefix: str) -> None:
    """READONLY on a connection that is still up."""
    with running_sentinels() as own:
        client = Client(read_url(own.url))
        await client.open()
        own.servers[1].execute("REPLICAOF", "NO", "ONE")
        own.servers[0].execute("REPLICAOF", "127.0.0.1", str(own.servers[1].port))
        for sentinel in own.sentinels:
            sentinel.execute("SENTINEL", "REMOVE", SERVICE)
            sentinel.execute("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", str(own.servers[1].port), "2")
        with pytest.raises(BrokerUnavailable, match="READONLY"):
            await client.command("SET", "a", 1)
        await client.command("SET", "a", 1)
        assert own.servers[1].execute("GET", "a") == b"$1\r\n1\r\n"
        await client.close()


async def test_a_replica_is_not_taken_for_the_primary_whatever_the_sentinels_say() -> None:
    with running_sentinels() as own:
        async with listening(own.url) as heard:
            own.servers[0].execute("REPLICAOF", "127.0.0.1", "1")
            waiting = heard.subscriber.subscribe("a")
            client = Client(read_url(own.url))
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                await client.open()
            assert not waiting.done()
            own.servers[0].execute("REPLICAOF", "NO", "ONE")
            await asyncio.wait_for(waiting, 10)


async def test_sentinels_that_are_away_are_not_needed_while_the_primary_lives() -> None:
    with running_sentinels() as own:
        async with listening(own.url) as heard:
            await heard.subscriber.subscribe("a")
            for sentinel in own.sentinels:
                sentinel.stop(signal.SIGKILL)
            heard.subscriber.reconnect()
            own.servers[0].execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await settle(heard, lambda key: heard.client.command("GET", key), "a")
            await heard.until(lambda: heard.confirmed["a"] == 2)
        client = Client(read_url(own.url))
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            await client.open()
        own.sentinels[2].start()
        await client.open()
        await client.close()


async def test_a_service_that_the_sentinels_do_not_know_is_named() -> None:
    with running_sentinels() as own:
        client = Client(read_url(own.url.replace("/main", "/other")))
        with pytest.raises(ConfigurationError, match=r"^redis.url: the sentinels at redis\+sentinel://127.*/other/0 know no service other$"):
            await client.open()


async def test_sentinels_have_a_password_of_their_own() -> None:
    with running_sentinels(lines=("requirepass hunter2", "sentinel sentinel-pass hunter2")) as own:
        for password in (None, "wrong3"):
            client = Client(read_url(own.url), sentinel_password=password)
            with pytest.raises(BrokerUnavailable, match="refused") as failure:
                await client.open()
            assert "wrong3" not in str(failure.value)
        client = Client(read_url(own.url), sentinel_password="hunter2")
        await client.open()
        assert await client.command("PING") == b"PONG"
        await client.close()
