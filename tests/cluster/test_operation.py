"""What operators see of two servers: the metrics of both, each act once, and what waits for the database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from aibos_realtime import RealtimeClient, RealtimeServer
from aibos_realtime.admin.requests import ListActs
from aibos_realtime.auth.operators import Caller
from tests.cluster.two_servers import two_servers
from tests.servers.redis import RedisServer
from tests.unit.admin.metrics_rig import values_of

KEY = "rk_0123456789abcdef0123456789abcdef"
OLGA = Caller("user:olga", None, True)


async def scrape(server: RealtimeServer, query: str = "") -> dict[str, float]:
    async with httpx.AsyncClient(base_url=server.url.replace("ws", "http", 1), headers={"x-api-key": KEY}, timeout=10) as http:
        answer = await http.get(f"/metrics{query}")
        assert answer.status_code == 200, answer.text
        return values_of(answer.text)


async def test_the_metrics_of_both_by_either(redis_server: RedisServer, redis_prefix: str) -> None:
    async with two_servers(redis_server.url, redis_prefix, http={"api_keys": [KEY]}) as (one, two):
        client = RealtimeClient(two.url, token=two.auth.issue(user_id="ann"))
        async with client:
            await client.join_room("lobby")
            await one.broadcaster.broadcast_to_room("lobby", "note", 1)
            async with asyncio.timeout(5):
                while (await scrape(two))["deliveries_total"] < 1:
                    pass
            for server in (one, two):
                values = await scrape(server, "?nodes=all")
                assert (values['connections{node="one"}'], values['connections{node="two"}']) == (0, 1)
                assert values['deliveries_total{node="two"}'] == 1 and values['broker_probe_lag_seconds{node="one"}'] >= 0
        assert "node" not in "".join(await scrape(one))


async def test_each_act_is_noted_once_where_it_was_done_or_asked_for(redis_server: RedisServer, redis_prefix: str) -> None:
    async with two_servers(redis_server.url, redis_prefix) as (one, two):
        client = RealtimeClient(two.url, token=two.auth.issue(user_id="ann"))
        async with client:
            await client.join_room("lobby")
            await one._operation.operations.kick(OLGA, "lobby", "ann")
            await one._operation.operations.disconnect(OLGA, user_id="ann")
            await one.auth.revoke(user_id="ann")
            async with asyncio.timeout(5):
                while len(acts := await one._operation.operations.acts(OLGA, ListActs())) < 5:
                    pass
        noted = sorted((act.act, act.node, act.by, act.reason) for act in acts)
        assert noted == sorted([
            ("connect", "two", None, None), ("kick", "one", "user:olga", None), ("disconnect", "one", "user:olga", "on request, 1 connection"),
            ("disconnect", "two", None, None), ("revoke", "one", None, None),
        ], key=str)  # fmt: skip


async def test_what_waits_for_the_database_is_told_by_the_node_that_drains(redis_server: RedisServer, redis_prefix: str, tmp_path: Path) -> None:
    database: dict[str, Any] = {"database": {"url": f"sqlite:///{tmp_path / 'r.db'}"}}
    async with two_servers(redis_server.url, redis_prefix, persistence=database, http={"api_keys": [KEY]}) as (one, two):
        async with asyncio.timeout(10):
            while not (held := [server for server in (one, two) if server._parts.storage.waiting is not None]):
                await one._parts.bus.ask(ListActs())
        (holder,) = held
        other = two if holder is one else one
        values, others = await scrape(holder), await scrape(other)
        assert values["store_waiting_events"] == 0 and values["store_lease"] == 1
        assert others["store_lease"] == 0 and "store_waiting_events" not in others
        assert holder._operation.figures.report().store_waiting == 0 and other._operation.figures.report().store_waiting is None
