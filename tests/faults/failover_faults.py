"""A replica of Redis takes over behind one address: in step, behind by seconds, or while a part of the nodes stays with the old primary.

python -m tests.faults.failover_faults --store sqlite --seed 1

What a replica did not have is gone; nobody may go on in its place unseen. A set with sentinels: `tests/unit/backends/redis/test_log_faults.py`.
"""

from __future__ import annotations

import time

from tests.faults.clients import PATIENCE, pause
from tests.faults.node_command import run_faults
from tests.faults.node_proof import Bench, Fault
from tests.faults.proxy import Blackhole, Pass, Proxy
from tests.faults.redis_data import Places, connect, read_kept, read_now
from tests.faults.replica import Replica

CAREFUL = {"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}
"""A primary that has lost its replica takes nothing any more, after a second."""


def aim(bench: Bench, lines: list[Proxy]) -> None:
    """Have these nodes find the replica where the primary was."""
    assert bench.replica is not None
    for line in lines:
        line.target = str(bench.replica.server.path)
        line.reset()


async def take_over(bench: Bench) -> None:
    """The primary dies, and after a moment its replica is in its place."""
    replica = _replica(bench)
    replica.kill_primary()
    had = read_kept(bench.redis, bench.kept_by_redis_alone)
    await pause(min(bench.seconds, 1.0))
    replica.promote()
    _note_lost(bench, had)
    aim(bench, bench.nodes.lines)
    bench.redis = replica.server


async def take_over_behind(bench: Bench) -> None:
    """The same with a replica that had heard nothing for seconds."""
    _replica(bench).hold_back()
    await pause(bench.seconds)
    await take_over(bench)


async def take_over_too_early(bench: Bench) -> None:
    """The replica takes over while the primary lives, and one node stays with that: two rooms of one name go on for seconds."""
    replica = _replica(bench)
    with connect(bench.redis) as primary:
        primary.client_pause(2000, all=False)  # it lacks nothing then, so every room goes on in its epoch, here and there
        await replica.until_in_step()
        replica.promote()
        common = read_now(replica.server, bench.load.rooms)
        aim(bench, bench.nodes.lines[1:])
        primary.client_unpause()
    [line] = bench.nodes.lines[:1]
    await pause(bench.seconds)
    line.mode = Blackhole("up")
    there = read_now(bench.redis, bench.load.rooms)
    bench.lost = there - common
    await _until_further(replica, there)  # else they lack what this node saw, and begin new epochs for that alone
    replica.kill_primary()
    line.mode = Pass()
    aim(bench, [line])
    bench.redis = replica.server


def _note_lost(bench: Bench, had: Places) -> None:
    bench.lost = had
    if bench.database != "memory://":  # else what ends with its epoch is gone with it
        bench.lost = had - read_now(_replica(bench).server, None)


async def _until_further(replica: Replica, there: Places) -> None:
    """Wait until every room has come further at the replica. Raises `AssertionError`."""
    ends = _find_ends(there)
    until = time.monotonic() + PATIENCE
    while any(_find_ends(read_now(replica.server, ends)).get(room, 0) <= end for room, end in ends.items()):
        assert time.monotonic() < until, "not every room goes on at the replica"
        await pause(0.05)


def _find_ends(places: Places) -> dict[str, int]:
    ends: dict[str, int] = {}
    for room, _, offset in places:
        ends[room] = max(offset, ends.get(room, 0))
    return ends


def _replica(bench: Bench) -> Replica:
    assert bench.replica is not None
    return bench.replica


FAULTS: dict[str, Fault] = {
    "taken over": Fault(take_over, seconds=1.0, is_told=True, has_replica=True),
    "taken over by one behind": Fault(take_over_behind, seconds=3.0, back=3.0, is_told=True, has_replica=True),
    "taken over, with care": Fault(take_over_behind, seconds=5.0, back=3.0, is_told=True, has_replica=True, redis=CAREFUL),
    "taken over too early": Fault(take_over_too_early, seconds=3.0, back=3.0, refusal=None, is_told=True, has_replica=True, is_split=True),
}
"""What goes wrong, by name."""


if __name__ == "__main__":
    run_faults(__doc__, FAULTS)
