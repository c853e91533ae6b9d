"""One of three nodes fails under load, or all are restarted one after the other: its clients go on at the others, and nobody misses anything.

python -m tests.faults.node_faults --seed 1
"""

from __future__ import annotations

import asyncio
import time

from tests.faults import redis_faults
from tests.faults.clients import pause
from tests.faults.node_command import run_faults
from tests.faults.node_proof import Bench, Fault
from tests.faults.processes import Server
from tests.faults.proxy import Blackhole, Direction, Pass

MOST_SILENCE = 10.0
"""Seconds in which a node has found out that it is cut off, or no longer, and says so."""


async def kill(bench: Bench) -> None:
    """SIGKILL, and a start on the same port after a while."""
    server = bench.chance.choice(bench.nodes.servers)
    await server.kill()
    await pause(bench.seconds)
    await server.start()


async def stand_still(bench: Bench) -> None:
    """SIGSTOP: the kernel goes on acknowledging packets of its clients and of Redis."""
    process = bench.chance.choice(bench.nodes.servers).process
    process.pause()
    await pause(bench.seconds)
    process.resume()


async def cut_off(bench: Bench, direction: Direction | None = None) -> None:
    """Nothing gets through between one node and Redis, and nobody is told; its clients stay connected, and it says that it is not ready."""
    line, server = bench.chance.choice(list(zip(bench.nodes.lines, bench.nodes.servers, strict=True)))
    began = time.monotonic()
    line.mode = Blackhole(direction)
    await until_ready(server, False)
    await pause(began + bench.seconds - time.monotonic())
    line.mode = Pass()
    bench.ended = time.monotonic()
    await until_ready(server, True)


async def until_ready(server: Server, is_ready: bool) -> None:
    """Wait until a node says so to a load balancer. Raises `AssertionError`."""
    until = time.monotonic() + MOST_SILENCE
    while await server.ask("/ready") != (200 if is_ready else 503):
        assert time.monotonic() < until, f"a node said for {MOST_SILENCE:g} s that it is {'not ' if is_ready else ''}ready"
        await pause(0.1)


async def cut_off_up(bench: Bench) -> None:
    """It hears, and what it says does not arrive."""
    await cut_off(bench, "up")


async def cut_off_down(bench: Bench) -> None:
    """What it says is done, and it hears nothing."""
    await cut_off(bench, "down")


async def fail_with_redis(bench: Bench) -> None:
    """A node and Redis are killed at once, and come back one after the other."""
    server = bench.chance.choice(bench.nodes.servers)
    await asyncio.gather(server.kill(), redis_faults.kill(bench))
    await server.start()


async def stop_without_redis(bench: Bench) -> None:
    """A node is told to end (SIGTERM) while Redis does not answer."""
    server = bench.chance.choice(bench.nodes.servers)
    bench.redis.pause()
    began = time.monotonic()
    await server.stop()
    await pause(began + bench.seconds - time.monotonic())
    bench.redis.go_on()
    await server.start()


async def restart_all(bench: Bench) -> None:
    """SIGTERM and a start, one node after the other."""
    for server in bench.nodes.servers:
        await server.stop()
        await server.start()
        await bench.load.until_everywhere()


FAULTS: dict[str, Fault] = {
    "killed": Fault(kill, refusal=None),
    "paused": Fault(stand_still, seconds=15.0, refusal=None),
    "cut off": Fault(cut_off, seconds=20.0, has_lines=True),
    "cut off, upwards": Fault(cut_off_up, seconds=20.0, has_lines=True),
    "cut off, downwards": Fault(cut_off_down, seconds=20.0, has_lines=True),
    "cut off for long": Fault(cut_off, seconds=40.0, back=5.0, has_lines=True),
    "failed with redis": Fault(fail_with_redis, refusal=None),
    "stopped without redis": Fault(stop_without_redis, refusal=None),
    "rolling restart": Fault(restart_all, refusal=None),
}
"""What goes wrong, by name."""


if __name__ == "__main__":
    run_faults(__doc__, FAULTS)
