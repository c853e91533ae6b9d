"""Nodes that keep their events in different places: whoever held the lease of the store would have stored for all, and each start cut every room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeServer
from tests.servers.redis import RedisServer, running_redis


def make(redis: RedisServer, prefix: str, store: str) -> RealtimeServer:
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}}
    scaling = {"enabled": True, "redis": {"url": redis.url, "prefix": prefix}, "instance_id": "node-1"}
    return RealtimeServer(**options, persistence={"database": {"url": store}}, scaling=scaling)


@pytest.fixture
def stores(tmp_path: Path) -> list[str]:
    return [f"sqlite:///{tmp_path / name}.db" for name in ("one", "other")] + ["memory://"]


async def test_a_node_with_another_database_is_refused_while_others_live(redis_server: RedisServer, redis_prefix: str, stores: list[str]) -> None:
    one, *others = stores
    async with make(redis_server, redis_prefix, one) as server:
        for other in others:
            with pytest.raises(ConfigurationError, match=r"persistence\.database\.url: other nodes \(node-1\) keep their events elsewhere"):
                await make(redis_server, redis_prefix, other).start()
        async with make(redis_server, redis_prefix, one):
            assert (await server.broadcaster.broadcast_to_room("lobby", "note")).position is not None
    async with make(redis_server, redis_prefix, others[0]):
        with pytest.raises(ConfigurationError, match="elsewhere"):
            await make(redis_server, redis_prefix, one).start()


async def test_nodes_may_begin_at_one_moment_on_a_new_database(redis_server: RedisServer, redis_prefix: str, postgres_url: str) -> None:
    servers = [make(redis_server, redis_prefix, postgres_url) for _ in range(4)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def test_nodes_that_meet_elsewhere_do_not_get_the_database_of_others(redis_server: RedisServer, redis_prefix: str, postgres_url: str) -> None:
    other = f"{redis_prefix}-other"
    async with make(redis_server, redis_prefix, postgres_url), make(redis_server, redis_prefix, postgres_url):
        with pytest.raises(ConfigurationError, match=r"^persistence\.database\.url: nodes that meet elsewhere"):
            await make(redis_server, other, postgres_url).start()
    async with make(redis_server, other, postgres_url) as server:
        assert (await server.broadcaster.broadcast_to_room("lobby", "note")).position is not None


async def test_nodes_stay_what_they_are_when_redis_loses_everything(postgres_url: str, tmp_path: Path) -> None:
    """The names of their group and their store are told again: a node which comes later is one of them, and one with another store is not."""
    with running_redis() as redis:
        async with make(redis, "aibos", postgres_url) as server:
            scaling = server._parts.scaling
            assert scaling is not None
            told = asyncio.Event()
            scaling.nodes.on_forgotten(told.set)
            await scaling.client.command("FLUSHALL", key="any")
            await scaling.nodes.beat()
            async with asyncio.timeout(10):
                await told.wait()
            with pytest.raises(ConfigurationError, match="elsewhere"):
                await make(redis, "aibos", f"sqlite:///{tmp_path / 'other'}.db").start()
            async with make(redis, "aibos", postgres_url):
                pass


async def test_where_all_keep_nothing_all_are_let_in(redis_server: RedisServer, redis_prefix: str, stores: list[str]) -> None:
    async with make(redis_server, redis_prefix, stores[-1]), make(redis_server, redis_prefix, stores[-1]):
        with pytest.raises(ConfigurationError, match="elsewhere"):
            await make(redis_server, redis_prefix, stores[0]).start()
