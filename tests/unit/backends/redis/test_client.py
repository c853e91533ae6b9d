"""Connections to Redis: deadlines, errors, cancellation, and what a server must be like."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from aibos_realtime import BrokerUnavailable, ConfigurationError
from aibos_realtime.backends.redis import client as module
from aibos_realtime.backends.redis.checks import check_server, warn_unchecked
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.script import Script
from aibos_realtime.backends.redis.urls import read_url
from tests.faults.proxy import CutBeforeReply, Proxy
from tests.servers.redis import RedisServer, find_ports, running_redis

ECHO = Script("echo", "return ARGV[1]")


@pytest.fixture
async def any_client(redis_url_any: str) -> AsyncIterator[Client]:
    """Of one server, a sentinel set, and a cluster."""
    client = Client(read_url(redis_url_any))
    await client.open()
    yield client
    await client.close()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Client]:
    client = Client(read_url(redis_server.url))
    await client.open()
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"redis_version": "6.2.14"}, "version 6.2.14 answers at redis://h:1/0; needed is Redis 7.0 or Valkey 7.2"),
        ({"redis_version": "7.0.0", "maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru at redis://h:1/0"),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.1", "maxmemory_policy": "volatile-ttl"}, "maxmemory-policy is volatile-ttl"),
        ({}, "version 0 answers"),
    ],
)
def test_a_server_that_is_not_fit_is_named(info: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_server(info, "redis://h:1/0")


def test_a_server_that_keeps_no_file_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_server({"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": 1}, "redis://h:1/0")
    assert caplog.records == []
    check_server({"redis_version": "7.2.4", "valkey_version": "8.1.0", "maxmemory_policy": "noeviction", "aof_enabled": 0}, "redis://h:1/0")
    assert "keeps no append-only file" in caplog.text


def test_a_warning_is_given_once_however_many_connections_there_are(caplog: pytest.LogCaptureFixture) -> None:
    for shown in ("redis://one:1/0", "redis://two:1/0", "redis://one:1/0"):
        check_server({"redis_version": "7.2.4", "aof_enabled": "0"}, shown)
        warn_unchecked(shown)
    assert [record.getMessage().split()[2] for record in caplog.records] == ["redis://one:1/0"] * 2 + ["redis://two:1/0"] * 2


async def test_a_server_that_deletes_when_memory_is_short_is_refused() -> None:
    with running_redis(**{"maxmemory-policy": "allkeys-lru"}) as server:
        client = Client(read_url(server.url))
        with pytest.raises(ConfigurationError, match="maxmemory-policy is allkeys-lru .* needed is noeviction"):
            await client.open()
        await client.close()


async def test_a_wrong_password_is_an_error_without_it() -> None:
    with running_redis() as server:
        server.execute("CONFIG", "SET", "requirepass", "hunter2")
        for url in (f"unix://:wrong3@{server.path}", server.url):
            client = Client(read_url(url))
            with pytest.raises(BrokerUnavailable, match="Redis refused") as failure:
                await client.open()
            assert "wrong3" not in str(failure.value) and failure.value.__cause__ is not None
        client = Client(read_url(f"unix://:hunter2@{server.path}"))
        await client.open()
        assert await client.command("PING") == b"PONG"
        await client.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "rediss://127.0.0.1:1", "unix:///nowhere/redis.sock"])
async def test_no_server_is_an_error(url: str) -> None:
    client = Client(read_url(url))
    with pytest.raises(BrokerUnavailable, match="Redis does not answer") as failure:
        await client.open()
    assert failure.value.retryable and isinstance(failure.value.__cause__, Exception)
    with pytest.raises(BrokerUnavailable, match="closed"):
        await client.command("PING")
    await client.close()


@pytest.mark.parametrize(("kind", "said"), [("cluster", "no cluster"), ("sentinel", "no sentinel")])
async def test_a_url_of_the_wrong_kind_is_named(kind: str, said: str) -> None:
    with running_redis(port=str(find_ports(1)[0])) as server:
        address = read_url(f"redis+{kind}://127.0.0.1:{server.settings['port']}" + ("/service/0" if kind == "sentinel" else ""))
        with pytest.raises(BrokerUnavailable, match=said):
            await Client(address).open()


async def test_a_refusal_is_an_error_without_arguments(client: Client) -> None:
    for words in (("GET", "secret-a", "secret-b"), ("NOSUCHCOMMAND", "secret-a"), ("CONFIG", "SET", "secret-a", "1")):
        with pytest.raises(BrokerUnavailable, match="Redis refused a command") as failure:
            await client.command(*words)
        assert "secret" not in str(failure.value)
        assert words[0] == "CONFIG" or "secret" not in repr(failure.value.__cause__)


async def test_every_command_has_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.05)
    monkeypatch.setattr(module, "COMMAND_TIMEOUT", 0.05)
    monkeypatch.setattr(module, "MAX_BLOCK", 0.05)
    with running_redis() as server:
        client = Client(read_url(server.url))
        await client.open()
        server.pause()
        try:
            async with asyncio.timeout(5):
                for call in (client.command("PING"), client.run(Script("x", "return 1"), [], []), client.wait_for_entry("s", "0-0", 10)):
                    with pytest.raises(BrokerUnavailable):
                        await call
        finally:
            server.go_on()
        assert await client.command("PING") == b"PONG"
        await client.close()


async def test_nobody_gets_the_reply_of_a_cancelled_call(any_client: Client, redis_prefix: str) -> None:
    """Commands, scripts and blocking reads, from thirty keys, half of them cancelled at some turn of the loop."""
    random.seed(1)
    cancelled = 0
    for number in range(30):
        await any_client.command("XADD", f"{redis_prefix}:stream:{number}", "1-1", "number", number)

    async def ask(number: int) -> None:
        key, tag = f"{redis_prefix}:stream:{number % 30}", f"{number}".encode()
        if number % 3 == 0:
            assert await any_client.command("ECHO", tag, key=key) == tag
        elif number % 3 == 1:
            assert await any_client.run(ECHO, [key], [tag]) == tag
        else:
            assert await any_client.read_stream(key, "0-0", 1, 1) == [("1-1", {b"number": b"%d" % (number % 30)})]

    for start in range(0, 900, 30):
        tasks = [asyncio.create_task(ask(number)) for number in range(start, start + 30)]
        for _ in range(random.randrange(1, 12)):
            await asyncio.sleep(0)
        for task in random.sample(tasks, 15):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert not [result for result in results if isinstance(result, Exception)]
    assert cancelled > 150


async def test_cancelling_a_blocking_read_ends_it_at_once_wherever_it_is(client: Client) -> None:
    for turns in range(40):
        reading = asyncio.create_task(client.wait_for_entry("nothing", "0-0", 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        _, left = await asyncio.wait([reading], timeout=2)
        assert not left, f"cancelled after {turns} turns"


async def test_a_script_is_sent_whole_where_the_server_does_not_know_it(any_client: Client, redis_prefix: str) -> None:
    script = Script("new", f"return {{KEYS[1], ARGV[1]}} -- {redis_prefix} {random.random()}")
    for _ in range(2):
        assert await any_client.run(script, ["k"], [b"a"]) == [b"k", b"a"]


async def test_a_script_that_fails_is_not_sent_again(any_client: Client, redis_prefix: str) -> None:
    script = Script("faulty", "redis.call('INCR', KEYS[1]) return redis.error_reply('NOSUCHTHING secret')")
    with pytest.raises(BrokerUnavailable, match=r"Redis refused a command \(NOSUCHTHING\)") as failure:
        await any_client.run(script, [f"{redis_prefix}:n"], ["secret"])
    assert "secret" not in str(failure.value) and await any_client.command("GET", f"{redis_prefix}:n") == b"1"


async def test_a_lost_reply_is_not_asked_for_again(redis_server: RedisServer, redis_prefix: str) -> None:
    async with Proxy(str(redis_server.path)) as proxy:
        client = Client(read_url(f"redis://127.0.0.1:{proxy.port}"))
        await client.open()
        count = Script("count", "return redis.call('INCR', KEYS[1])")
        assert await client.run(count, [f"{redis_prefix}:n"], []) == 1
        for before, call in enumerate((client.run(count, [f"{redis_prefix}:n"], []), client.command("INCR", f"{redis_prefix}:n")), 2):
            proxy.mode = CutBeforeReply()
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                await call
            assert await client.command("GET", f"{redis_prefix}:n") == b"%d" % before, "done once, on the connection that is gone"
        await client.close()


async def test_entries_of_a_stream_are_read_in_pages_and_waited_for(any_client: Client, redis_prefix: str) -> None:
    stream = f"{redis_prefix}:stream"
    for number in range(1, 4):
        await any_client.command("XADD", stream, f"{number}-0", "a", number, "b", b"\xff")
    first, second, third = ((f"{number}-0", {b"a": b"%d" % number, b"b": b"\xff"}) for number in range(1, 4))
    assert await any_client.read_stream(stream, "0-0", 2, 1) == [first, second]
    assert await any_client.read_stream(stream, "2-0", 2, 1) == [third]
    assert await any_client.read_stream(stream, "3-0", 2, 0.001) == []
    reading = asyncio.create_task(any_client.read_stream(stream, "3-0", 9, 5))
    while not reading.done():
        await any_client.command("XADD", stream, "*", "a", "later")
    assert (await reading)[0][1] == {b"a": b"later"}


async def test_keys_of_all_servers_are_found(any_client: Client, redis_prefix: str) -> None:
    names = sorted(f"{redis_prefix}:{number}" for number in range(50))
    for name in names:
        await any_client.command("SET", name, "1")
    assert await any_client.scan(f"{redis_prefix}:*") == [name.encode() for name in names]


async def test_a_user_who_may_only_use_his_keys_and_channels_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    with running_redis() as server:
        server.execute("ACL", "SETUSER", "app", "on", ">hunter2", "~mine:*", "&mine:*", "+@all", "-@dangerous")
        client = Client(read_url(f"unix://app:hunter2@{server.path}"))
        await client.open()
        assert "does not let this user run INFO" in caplog.text and "maxmemory-policy" in caplog.text
        assert await client.run(ECHO, ["mine:k"], ["a"]) == b"a"
        for call in (client.command("GET", "other"), client.run(ECHO, ["other"], ["a"])):
            with pytest.raises(BrokerUnavailable, match="NOPERM"):
                await call
        await client.close()


async def test_closing_fails_what_waits(any_client: Client, redis_prefix: str) -> None:
    stream, waiting_there = f"{redis_prefix}:none", 0
    waiting = [asyncio.create_task(any_client.read_stream(stream, "0-0", 1, 5)) for _ in range(3)]
    while waiting_there < 3:
        waiting_there = (await any_client.command("CLIENT", "LIST", key=stream)).count(b"cmd=xread")
    waiting.append(asyncio.create_task(any_client.read_stream(stream, "0-0", 1, 5)))
    await asyncio.sleep(0)
    await any_client.close()
    async with asyncio.timeout(1):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [BrokerUnavailable] * 4
    with pytest.raises(BrokerUnavailable, match="closed"):
        await any_client.scan("*")


async def test_closing_fails_what_waits_on_a_connection_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_redis() as server:
        client = Client(read_url(server.url))
        await client.open()
        server.pause()
        monkeypatch.setattr(module, "COMMAND_TIMEOUT", 0.1)
        late = asyncio.create_task(client.command("PING"))
        await asyncio.sleep(0)
        monkeypatch.setattr(module, "COMMAND_TIMEOUT", 60)
        waiting = asyncio.create_task(client.command("PING"))
        with pytest.raises(BrokerUnavailable):
            await late
        assert not waiting.done()
        await client.close()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(waiting, 5)


async def test_callers_of_a_server_that_is_away_share_one_attempt(redis_server: RedisServer) -> None:
    async with Proxy(str(redis_server.path)) as proxy:
        client = Client(read_url(f"redis://127.0.0.1:{proxy.port}"))
        await client.open()
        proxy.reset()
        calls = [asyncio.create_task(client.command("ECHO", f"{number}")) for number in range(50)]
        await asyncio.gather(*calls, return_exceptions=True)
        assert await asyncio.gather(*(client.command("ECHO", f"{number}") for number in range(50))) == [b"%d" % number for number in range(50)]
        assert len(proxy) == 1
        await client.close()


async def test_opening_and_closing_twice_is_once(client: Client) -> None:
    await client.open()
    await client.close()
    await client.close()
    await client.open()
    assert await client.command("PING") == b"PONG"
