"""One of three nodes fails under load, or all are restarted one after the other: its clients go on at the others, and nobody misses anything.

python -m tests.faults.node_faults --seed 1
"""

from __future__ import annotations

from tests.faults.clients import pause
from tests.faults.node_command import run_faults
from tests.faults.node_proof import Bench, Fault
from tests.faults.proxy import Blackhole, Direction, Pass


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
    """Nothing gets through between one node and Redis, and nobody is told; its clients stay connected."""
    line = bench.chance.choice(bench.nodes.lines)
    line.mode = Blackhole(direction)
    await pause(bench.seconds)
    line.mode = Pass()


async def cut_off_up(bench: Bench) -> None:
    """It hears, and what it says does not arrive."""
    await cut_off(bench, "up")


async def cut_off_down(bench: Bench) -> None:
    """What it says is done, and it hears nothing."""
    await cut_off(bench, "down")


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
    "rolling restart": Fault(restart_all, refusal=None),
}
"""What goes wrong, by name."""


if __name__ == "__main__":
    run_faults(__doc__, FAULTS)
