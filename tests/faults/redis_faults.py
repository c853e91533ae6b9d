"""The Redis that three nodes share fails under load in every way: nothing is lost without a word, nothing doubled, and the nodes are back at once.

python -m tests.faults.redis_faults --seed 1
"""

from __future__ import annotations

import asyncio
import signal
import time

from tests.faults.clients import pause
from tests.faults.node_command import run_faults
from tests.faults.node_proof import Bench, Fault
from tests.faults.proxy import Blackhole, CutBeforeReply, Pass
from tests.faults.redis_data import cut_tail, empty, flush, read_kept, read_used_memory, size_of_file, start
from tests.faults.rows import held_store

TAIL = 50_000
"""Bytes of the file that are lost, of some dozen events."""
EXCESS = 100_000
"""Bytes by which Redis has more than it may have."""


async def kill(bench: Bench) -> None:
    """SIGKILL, and after a while a start on the same files (AOF)."""
    bench.redis.stop(signal.SIGKILL)
    await pause(bench.seconds)
    await start(bench.redis)


async def lose_all(bench: Bench) -> None:
    """SIGKILL, and a start with an empty memory."""
    bench.redis.stop(signal.SIGKILL)
    bench.lost = read_kept(bench.redis, bench.kept_by_redis_alone)
    empty(bench.redis)
    await pause(bench.seconds)
    await start(bench.redis)


async def lose_all_at_once(bench: Bench) -> None:
    """FLUSHALL, between two commands of the nodes: no connection is lost."""
    bench.lost = flush(bench.redis, bench.kept_by_redis_alone)


async def lose_last(bench: Bench) -> None:
    """The machine fails: a start with all but what was written last. The nodes go on."""
    bench.redis.stop(signal.SIGKILL)
    _lose_last(bench)
    await pause(bench.seconds)
    await start(bench.redis)


async def lose_last_with_nodes(bench: Bench) -> None:
    """The same, and all nodes fail with it: nobody but clients, and the store, knows of more than Redis does."""
    bench.redis.stop(signal.SIGKILL)
    for server in bench.nodes.servers:
        await server.kill()
    _lose_last(bench)
    await pause(bench.seconds)
    await start(bench.redis)
    await asyncio.gather(*(server.start() for server in bench.nodes.servers))


def _lose_last(bench: Bench) -> None:
    bench.lost = read_kept(bench.redis, bench.kept_by_redis_alone)
    cut_tail(bench.redis, TAIL)
    if bench.database != "memory://":  # else what ends with its epoch is gone with it
        bench.lost -= read_kept(bench.redis, bench.kept_by_redis_alone)


async def stand_still(bench: Bench) -> None:
    """SIGSTOP: connections stay open, and nothing is answered."""
    bench.redis.pause()
    await pause(bench.seconds)
    bench.redis.go_on()


async def kill_subscribers(bench: Bench) -> None:
    """Every connection on which nodes hear is closed by Redis, again and again."""
    for _ in range(10):
        assert bench.redis.execute("CLIENT", "KILL", "TYPE", "pubsub").startswith(b":")
        await pause(bench.chance.uniform(0, bench.seconds / 5))


async def deafen(bench: Bench) -> None:
    """Nothing comes any more on the connection on which one node hears; it is not closed, and all others are well."""
    line = bench.nodes.lines[0]
    links = line.find(b"SSUBSCRIBE")
    assert links
    line.mode = Blackhole("down", links)
    bench.ended = time.monotonic()
    try:
        await bench.load.until_everywhere()
    finally:
        line.mode = Pass()


async def cut_replies(bench: Bench) -> None:
    """The answer to a script never comes: what was published is, and its node cannot know."""
    for number in range(round(bench.seconds * 4)):
        line = bench.nodes.lines[number % len(bench.nodes)]
        before = line.cuts
        line.mode = CutBeforeReply(bench.chance.randrange(1, 10), to=b"EVALSHA")
        await line.until_cut(before + 1)
        line.mode = Pass()


async def fill_memory(bench: Bench) -> None:
    """No write is taken (OOM), reading goes on."""
    bench.redis.execute("CONFIG", "SET", "maxmemory", "1")
    await bench.load.until_refused("unavailable")
    await pause(bench.seconds)
    bench.redis.execute("CONFIG", "SET", "maxmemory", "0")


async def fill_with_waiting(bench: Bench) -> None:
    """The store takes nothing until Redis is full of what waits for it; then the store goes on, and Redis gets no more memory than it had."""
    async with held_store(bench.database):
        await pause(bench.seconds)
        bench.redis.execute("CONFIG", "SET", "maxmemory", str(read_used_memory(bench.redis) - EXCESS))
        await bench.load.until_refused("unavailable")
    bench.ended = time.monotonic()
    try:
        await bench.load.until_everywhere()
    finally:
        bench.redis.execute("CONFIG", "SET", "maxmemory", "0")


async def fill_disk(bench: Bench) -> None:
    """The append-only file cannot grow: Redis refuses writes, or where it has to have them on the disk at once, ends; then there is room again."""
    assert bench.redis.process is not None
    bench.redis.limit_files(size_of_file(bench.redis) + bench.chance.randrange(2000))
    try:
        await bench.load.until_refused("unavailable")
        await pause(bench.seconds)
        has_ended = bench.redis.process.poll() is not None
        assert has_ended == (bench.redis.settings["appendfsync"] == "always"), f"Redis {'ended' if has_ended else 'lives on'}"
    finally:
        if bench.redis.process.poll() is None:
            bench.redis.limit_files(None)
        else:
            await start(bench.redis)


FAULTS: dict[str, Fault] = {
    "killed": Fault(kill),
    "restarted empty": Fault(lose_all, is_told=True),
    "flushed": Fault(lose_all_at_once, is_told=True),
    "the last lost": Fault(lose_last, is_told=True),
    "the last lost with all nodes": Fault(lose_last_with_nodes, refusal=None, is_told=True),
    "paused": Fault(stand_still, seconds=15.0),
    "subscribers killed": Fault(kill_subscribers),
    "a node deaf": Fault(deafen, back=10.0, has_lines=True),
    "replies cut": Fault(cut_replies, has_lines=True),
    "out of memory": Fault(fill_memory),
    "disk full": Fault(fill_disk, redis={"appendfsync": "everysec"}),
    "disk full, written at once": Fault(fill_disk, redis={"appendfsync": "always"}),
    "full of what waits": Fault(fill_with_waiting, suits=lambda setting: setting.store != "none" and setting.ack == "queued"),
}
"""What goes wrong, by name."""


if __name__ == "__main__":
    run_faults(__doc__, FAULTS)
