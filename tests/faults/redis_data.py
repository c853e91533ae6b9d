"""What a Redis has of the events, and how it loses it: read and done by its own means and in its files, not by the nodes' code."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Iterable
from typing import Any

from aibos_realtime.backends.redis.layout import Layout
from tests.faults.clients import PATIENCE, pause
from tests.faults.nodes import PREFIX
from tests.servers.redis import RedisServer, redis_folder

LAYOUT = Layout(PREFIX, 1)
INTAKE = LAYOUT.of_shard(0, "intake")

Places = set[tuple[str, str, int]]
"""(room, epoch, offset)"""


async def start(redis: RedisServer) -> None:
    """Start it again, and wait until it has read its data."""
    redis.launch()  # by this thread: Redis ends with whoever started it
    await asyncio.to_thread(redis.until_ready)


def empty(redis: RedisServer) -> None:
    """Have a stopped Redis begin anew with an empty memory."""
    for path in redis.folder.glob("appendonly*"):
        shutil.rmtree(path)


def size_of_file(redis: RedisServer) -> int:
    """Bytes of what it appends to."""
    [path] = redis.folder.glob("appendonly*/*.incr.aof")
    return path.stat().st_size


def cut_tail(redis: RedisServer, size: int) -> None:
    """Take the last bytes from what a stopped Redis has written: the machine failed before they were on the disk."""
    [path] = redis.folder.glob("appendonly*/*.incr.aof")
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - size))


def read_kept(redis: RedisServer, rooms: Iterable[str] | None) -> Places:
    """What a stopped Redis will have when it starts: in the logs of these rooms; None: of what waits for the store."""
    with redis_folder() as folder:
        shutil.copytree(redis.folder, folder, dirs_exist_ok=True, ignore=lambda _, names: [name for name in names if name in ("socket", "log")])
        other = RedisServer(redis.program, folder)
        try:
            other.start()
            with connect(other) as client:
                return _read_places(client, rooms)
        finally:
            other.stop(signal.SIGKILL)


def read_now(redis: RedisServer, rooms: Iterable[str] | None) -> Places:
    """The same of one that runs."""
    with connect(redis) as client:
        return _read_places(client, rooms)


def flush(redis: RedisServer, rooms: Iterable[str] | None) -> Places:
    """Have Redis lose everything while it runs. What it had, as `read_kept` says."""
    with connect(redis) as client:
        client.client_pause(1000, all=False)
        found = _read_places(client, rooms)
        client.flushall()
        client.client_unpause()
    return found


def _read_places(client: Any, rooms: Iterable[str] | None) -> Places:
    if rooms is None:
        return {_read_entry(fields) for _, fields in client.xrange(INTAKE)}
    found: Places = set()
    for room in rooms:
        epoch = client.hget(LAYOUT.of_room(room, "head"), "epoch")
        if epoch is not None:
            found |= {(room, epoch.decode(), int(id.partition(b"-")[0])) for id, _ in client.xrange(LAYOUT.of_room(room, "log"))}
    return found


def _read_entry(fields: dict[bytes, bytes]) -> tuple[str, str, int]:
    epoch, offset, _ = fields[b"p"].decode().split(" ")
    return fields[b"m"].decode(), epoch, int(offset)


async def until_drained(redis: RedisServer) -> None:
    """Wait until nothing waits for the store. Raises `AssertionError`."""
    until = time.monotonic() + PATIENCE
    with connect(redis) as client:
        while waiting := client.xlen(INTAKE):
            assert time.monotonic() < until, f"{waiting} events still wait for the store after {PATIENCE:g} s"
            await pause(0.05)


def read_used_memory(redis: RedisServer) -> int:
    """Bytes."""
    with connect(redis) as client:
        return int(client.info("memory")["used_memory"])


def connect(redis: RedisServer) -> Any:
    """A client of the driver's."""
    from redis import Redis

    return Redis(unix_socket_path=str(redis.path))
