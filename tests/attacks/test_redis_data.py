"""A Redis that somebody else writes to: what none of our nodes wrote is counted, told once a kind, and passed over; good rooms go on as before.

Here it comes by all roads at once, to two whole nodes; `tests/fuzz` tries each decoder by itself with whatever bytes there are.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

import aibos_realtime
from aibos_realtime import Event, RealtimeClient, RealtimeServer
from tests.cluster.two_servers import two_servers
from tests.servers.redis import RedisServer

SOURCE = Path(aibos_realtime.__file__).parent
GOOD = ("lobby", "hall")
"""Rooms that nobody touches; those whose names begin with `poisoned` are."""
EVERY = 0.02
PHASE = 100
"""Events without, and with, what is hostile."""


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def poisons(bomb: Path) -> list[bytes]:
    """Payloads: of no kind, and nearly of one."""
    good = {"e": "note", "d": 1, "i": "id", "u": "ann", "t": 1}
    return [
        b"", b"\x00", b"\xff\xfe", b"{", b"[]", b"null", b"1e400", b"[" * 100_000, pickle.dumps(Bomb(bomb)), b"\xc1" * 100, b"9" * 5_000,
        json.dumps(good).encode(), json.dumps(good | {"v": 99}).encode(), json.dumps({"e": None, "d": {"__proto__": 1}}).encode(),
        json.dumps({"node": "one", "kind": "Disconnect", "user_id": "bob", "code": 4503}).encode(), b"disconnect one \x00",
        b"p 1 2 3", b"1 2 3 4", b"epoch -1 note", b"e1 99999999999999999999 1 1", "\ud800".encode("utf-8", "surrogatepass"), b"x" * 1_000_000,
    ]  # fmt: skip


async def poison(redis: Redis, prefix: str, bomb: Path, ended: asyncio.Event) -> int:
    """Put them on every channel that anybody hears, and into every key that belongs to no good room; returns how many got there."""
    count = 0
    hostile = poisons(bomb)
    command: Callable[..., Awaitable[Any]] = redis.execute_command
    while not ended.is_set():
        channels = await command("PUBSUB", "SHARDCHANNELS", f"{prefix}:*")
        for payload in hostile:
            for channel in channels:
                count += bool(await command("SPUBLISH", channel, payload))
            await asyncio.sleep(0)
        async for key in redis.scan_iter(f"{prefix}:*"):
            if not key.decode().endswith(GOOD):
                for payload in hostile[:-1]:
                    count += await put(redis, key, payload)
        await asyncio.wait((asyncio.ensure_future(ended.wait()),), timeout=0.5)
    return count


async def put(redis: Redis, key: bytes, payload: bytes) -> int:
    """Add it to what is there, as far as its type lets that; 1 where it is in."""
    try:
        match await redis.type(key):
            case b"stream":
                await redis.xadd(key, {b"m": payload, b"p": payload, payload[:20] or b"f": b"x"}, maxlen=5_000)
            case b"hash":
                await redis.hset(key, payload[:100] or "f", payload)
            case b"zset":
                await redis.zadd(key, {payload[:100]: 1e18})
            case b"set":
                await redis.sadd(key, payload[:100])
            case b"list":
                await redis.rpush(key, payload)
            case _:
                return 0
    except ResponseError:
        return 0
    return 1


class Room:
    """A good room: one member publishes on one node, another hears it on the other, and both take the time."""

    def __init__(self, name: str, publisher: RealtimeClient, listener: RealtimeClient) -> None:
        self.name = name
        self.publisher = publisher
        self.offsets: list[int] = []
        self.times: list[float] = []
        self.heard = asyncio.Event()
        listener.on("note", self._hear)

    def _hear(self, data: Any, event: Event) -> None:
        if event.room == self.name:
            self.offsets.append(event.offset or 0)
            self.times.append(time.perf_counter() - data)
            self.heard.set()

    async def speak(self, count: int) -> None:
        for _ in range(count):
            await self.publisher.send_message("note", time.perf_counter(), room=self.name)
            await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=EVERY)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(15.0):
            while len(self.offsets) < count:
                self.heard.clear()
                await self.heard.wait()


@pytest.fixture
async def servers(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[tuple[RealtimeServer, RealtimeServer]]:
    async with two_servers(redis_server.url, redis_prefix, limits={"publishes_per_second": None, "messages_per_second": None}) as both:
        yield both


async def test_what_strangers_write_into_redis(
    servers: tuple[RealtimeServer, RealtimeServer], redis_server: RedisServer, redis_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = servers
    bomb, ended = tmp_path / "unpickled", asyncio.Event()
    redis = Redis.from_url(redis_server.url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)

        async def connect(server: RealtimeServer, user: str, room: str) -> RealtimeClient:
            client = RealtimeClient(server.url, token=server.auth.issue(user_id=user, tenant_id="1"))
            await client.connect()
            stack.push_async_callback(client.close)
            await client.join_room(room)
            return client

        rooms = [Room(name, await connect(one, f"{name}_1", name), await connect(two, f"{name}_2", name)) for name in GOOD]
        for server in servers:
            hurt = await connect(server, "eve", "poisoned")
            await hurt.send_message("note", 0.0, room="poisoned")
        await asyncio.gather(*(room.speak(PHASE) for room in rooms))
        for room in rooms:
            await room.until(PHASE)
        before = p99([took for room in rooms for took in room.times])
        with caplog.at_level(logging.INFO):
            poisoning = asyncio.ensure_future(poison(redis, redis_prefix, bomb, ended))
            try:
                await asyncio.gather(*(room.speak(PHASE) for room in rooms))
            finally:
                ended.set()
            count = await poisoning
            for room in rooms:
                await room.until(2 * PHASE)
        meanwhile = p99([took for room in rooms for took in room.times[PHASE:]])
        for room in rooms:
            assert room.offsets == list(range(1, 2 * PHASE + 1)), room.name
        foreign = one.metrics.foreign_records + two.metrics.foreign_records
        print(f"{count} hostile entries, {foreign} counted; p99 {1000 * before:.1f} ms before, {1000 * meanwhile:.1f} ms meanwhile")
        assert count > 500 and foreign > 100
        assert not bomb.exists()
        assert meanwhile < 1.1 * before + 0.1, (before, meanwhile)  # the nodes, the clients and whoever poisons share one process
        assert len(caplog.records) < 60, [record.getMessage() for record in caplog.records]
        assert not [record.getMessage() for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
        assert not any("posix" in record.getMessage() or "__proto__" in record.getMessage() for record in caplog.records)


def p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * len(times))]


FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def test_nothing_that_runs_what_it_reads_is_in_the_tree() -> None:
    """No pickle, eval, exec, marshal, shelve or YAML, by whatever name they are imported; Lua's `EVAL` is Redis' own."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            line = getattr(node, "lineno", 0)
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.func.id}()")
            found += [f"{path.relative_to(SOURCE)}:{line} {name}" for name in names if name in FORBIDDEN_MODULES]
    assert not found
