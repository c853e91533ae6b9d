"""Revocations that outlive their node: kept once, the later time counts, nothing that no token can need, and only what is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import time

import pytest

from aibos_realtime.backends.redis import revocations as module
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.revocations import RedisRevocations
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.backends.revocations import Revoked
from aibos_realtime.metrics import Metrics
from tests.servers.redis import RedisServer


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Client]:
    client = Client(read_url(redis_server.url))
    await client.open()
    yield client
    await client.close()


@pytest.fixture
async def layout(redis_prefix: str) -> Layout:
    return Layout(redis_prefix, 1)


@pytest.fixture
async def kept(client: Client, layout: Layout) -> RedisRevocations:
    return RedisRevocations(client, layout, memory=1000.5)


async def test_the_later_time_counts(kept: RedisRevocations) -> None:
    now = time()
    assert await kept.load() == []
    await kept.add([Revoked("user", "ann", now - 0.25), Revoked("token", "ann", now - 2), Revoked("user", "böb 1", now - 3)])
    await kept.add([Revoked("user", "ann", now - 5), Revoked("user", "böb 1", now)])
    assert await kept.load() == [Revoked("token", "ann", now - 2), Revoked("user", "ann", now - 0.25), Revoked("user", "böb 1", now)]


async def test_what_no_token_can_need_is_dropped(kept: RedisRevocations) -> None:
    now = time()
    await kept.add([Revoked("user", "old", now - 1100), Revoked("user", "young", now - 900)])
    assert await kept.load() == [Revoked("user", "young", now - 900)]


async def test_beyond_the_limit_the_oldest_count_for_everybody(kept: RedisRevocations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 3)
    now = time()
    await kept.add([Revoked("user", f"user_{number}", now - 100 + number) for number in range(5)])
    found = await kept.load()
    assert found[0] == Revoked("all", "", now - 99), "the last that was given up"
    assert [one.name for one in found[1:]] == ["user_2", "user_3", "user_4"]
    await kept.add([Revoked("user", "again", now)])
    assert [(one.kind, one.at - now) for one in await kept.load()] == [("all", -98), ("user", -97), ("user", -96), ("user", 0)]


async def test_what_is_none_of_ours(client: Client, layout: Layout, redis_prefix: str) -> None:
    metrics = Metrics()
    kept = RedisRevocations(client, layout, memory=1000, metrics=metrics)
    key = layout.of_nodes("revoked")
    await client.command("SET", key, "x")
    assert await kept.load() == []
    now = time()
    await kept.add([Revoked("user", "ann", now)])
    await client.command("ZADD", key, now, b"u\xff", now, "x", now, "", now, "u", now, "*all", now, "u" * 100_000, "inf", "ubob")
    assert await kept.load() == [Revoked("user", "ann", now)]
    assert metrics.foreign_records == 7
