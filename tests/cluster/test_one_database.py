"""Nodes that keep their events in different places: whoever held the lease of the store would have stored for all, and each start cut every room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeServer
from tests.servers.redis import RedisServer


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


async def test_where_all_keep_nothing_all_are_let_in(redis_server: RedisServer, redis_prefix: str, stores: list[str]) -> None:
    async with make(redis_server, redis_prefix, stores[-1]), make(redis_server, redis_prefix, stores[-1]):
        with pytest.raises(ConfigurationError, match="elsewhere"):
            await make(redis_server, redis_prefix, stores[0]).start()
