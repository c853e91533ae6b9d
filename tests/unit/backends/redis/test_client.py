"""Connections to Redis: deadlines, errors, cancellation, and what a server must be like."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from aibos_realtime import BrokerUnavailable, ConfigurationError
from aibos_realtime.backends.redis import client as module
from aibos_realtime.backends.redis.client import Client, check_server
from aibos_realtime.backends.redis.urls import read_url
from tests.servers.redis import RedisServer, running_redis


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
        assert await client.command("PING") in (b"PONG", True)
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


async def test_a_refusal_is_an_error_without_arguments(client: Client) -> None:
    for words in (("GET", "secret-a", "secret-b"), ("NOSUCHCOMMAND", "secret-a"), ("CONFIG", "SET", "secret-a", "1")):
        with pytest.raises(BrokerUnavailable, match="Redis refused a command") as failure:
            await client.command(*words)
        assert "secret" not in str(failure.value)


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
                for call in (client.command("PING"), client.run("x", "return 1", [], []), client.wait_for_entry("s", "0-0", 10)):
                    with pytest.raises(BrokerUnavailable):
                        await call
        finally:
            server.go_on()
        assert await client.command("PING") in (b"PONG", True)
        await client.close()


async def test_nobody_gets_the_reply_of_a_cancelled_call(client: Client) -> None:
    random.seed(1)
    mismatches, cancelled = 0, 0

    async def echo(number: int) -> None:
        nonlocal mismatches
        if await client.command("ECHO", f"{number}") != str(number).encode():
            mismatches += 1

    for start in range(0, 600, 30):
        tasks = [asyncio.create_task(echo(number)) for number in range(start, start + 30)]
        for _ in range(random.randrange(1, 12)):
            await asyncio.sleep(0)
        for task in random.sample(tasks, 15):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert not [result for result in results if isinstance(result, Exception)]
    assert mismatches == 0 and cancelled > 100


async def test_cancelling_a_blocking_read_ends_it_at_once_wherever_it_is(client: Client) -> None:
    for turns in range(40):
        reading = asyncio.create_task(client.wait_for_entry("nothing", "0-0", 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        _, left = await asyncio.wait([reading], timeout=2)
        assert not left, f"cancelled after {turns} turns"


async def test_a_script_is_sent_again_where_the_server_forgot_it(client: Client, redis_server: RedisServer) -> None:
    for _ in range(2):
        assert await client.run("x", "return ARGV[1]", [], ["a"]) == b"a"
        redis_server.execute("SCRIPT", "FLUSH", "SYNC")


async def test_opening_and_closing_twice_is_once(client: Client) -> None:
    await client.open()
    await client.close()
    await client.close()
    await client.open()
    assert await client.command("PING") in (b"PONG", True)
