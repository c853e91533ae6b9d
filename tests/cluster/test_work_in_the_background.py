"""Each piece of work that a server does in the background fails once, by a fault of ours: two servers then do all that they did before."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from aibos_realtime import RealtimeClient, RealtimeServer
from tests.cluster.two_servers import two_servers
from tests.faults.rows import read_rows
from tests.servers.redis import RedisServer

BACK = 1.0
"""Seconds after which it is done again, on a quiet machine."""
SLACK = 5.0

COUNTED = ("node-beats", "node-looks-after", "bus-reads", "bus-serves", "redis-link", "drain: lease", "drain: check", "drain: shard 0")
UNCOUNTED = ("drain: look", "outbox-listen", "outbox-relay", "retention")
"""The names of the tasks; those that are not counted have a care of their own for some faults."""


def tasks_of(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


async def fail(task: asyncio.Task[Any]) -> None:
    """Have what it waits for be an error that nobody expects."""
    while True:
        waiter = getattr(task, "_fut_waiter")  # noqa: B009 - of the C class, of which mypy does not know it
        if type(waiter).__name__ == "Future" and not waiter.done():
            waiter.set_exception(RuntimeError("a fault of ours"))
            return
        await asyncio.sleep(0)


async def until_restarted(servers: tuple[RealtimeServer, ...], count: int) -> float:
    """Seconds until so many were begun anew."""
    began = time.monotonic()
    async with asyncio.timeout(SLACK):
        while sum(server.metrics.tasks_restarted for server in servers) < count:
            await nodes_of(servers[0])
    return time.monotonic() - began


async def test_what_fails_once_is_done_again_within_a_second(redis_server: RedisServer, redis_prefix: str, tmp_path: Path) -> None:
    """A node whose signs of life ended by a fault looked well, and was dead to the others after ten seconds; one whose bus ended heard of no kick."""
    database = f"sqlite:///{tmp_path}/realtime.db"
    async with two_servers(redis_server.url, redis_prefix, persistence={"database": {"url": database}}) as (one, two):
        client = RealtimeClient(two.url, token=two.auth.issue(user_id="ann"))
        got: asyncio.Queue[Any] = asyncio.Queue()
        client.on("note", got.put_nowait)
        async with client:
            await client.join_room("lobby")
            failed = 0
            for name in (*COUNTED, *UNCOUNTED):
                tasks = tasks_of(name)
                assert tasks or name in UNCOUNTED, f"there is no task {name}"
                for task in tasks:
                    await fail(task)
                failed += len(tasks) if name in COUNTED else 0
            await until_restarted((one, two), failed)
            await check_all(one, two, got, database)
            assert all(len(tasks_of(name)) >= 2 for name in COUNTED)
            closed = asyncio.Event()
            client.on("disconnect", lambda *_: closed.set())
            async with asyncio.timeout(SLACK):
                await one.disconnect(user_id="ann")
                await closed.wait()


async def check_all(one: RealtimeServer, two: RealtimeServer, got: asyncio.Queue[Any], database: str) -> None:
    """What is published at the one comes to the other and to the database, and both tell that they live."""
    before = {record.name: record.seen_at for record in await nodes_of(one)}
    receipt = await one.broadcaster.broadcast_to_room("lobby", "note", 1)
    async with asyncio.timeout(SLACK):
        assert await got.get() == 1
        while not any(row.id == receipt.id for row in await read_rows(database) or ()):
            await nodes_of(one)
        while not all(record.seen_at > before[record.name] for record in await nodes_of(two)):
            pass


async def nodes_of(server: RealtimeServer) -> Any:
    parts = server._parts.scaling
    assert parts is not None
    return await parts.nodes.list()
