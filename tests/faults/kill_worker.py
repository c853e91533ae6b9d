"""Workers of a queue are killed at every point of their work: is a message lost, its effect missing or doubled, its takeover late?

The points: after taking, before the handler's effect, between effect and commit, after the commit before the message is finished, while it is
finished (half of them unanswered, half just after), and while a dead worker's message is taken over (the same). Each kill is a process's end,
one in two by SIGKILL and by `os._exit`.

python -m tests.faults.kill_worker --kills 100 --store sqlite --store redis --store postgresql
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from aibos_realtime import MessageQueue
from tests.faults.processes import Process, Zygote
from tests.faults.worker_program import EXITED, LEDGER, SETTINGS, make_store
from tests.servers.postgres import running_postgres
from tests.servers.redis import running_redis

TAKEOVER = "during a takeover"
POINTS: dict[str, tuple[str, str]] = {
    "after taking": ("taken", "taken"),
    "before the effect": ("before effect", "before effect"),
    "before its commit": ("before commit", "before commit"),
    "before the finish": ("before finish", "before finish"),
    "during the finish": ("in finish", "after finish"),
    TAKEOVER: ("in takeover", "after takeover"),
}
"""By name, where a worker ends: every other one at the second."""
LINES = 8
"""Queues, each with its own workers, one after the other."""
GRACE = 5.0
"""Seconds beyond the visibility time-out within which a dead worker's message has to be handed out again."""
VISIBILITY: float = SETTINGS["visibility_timeout"]  # type: ignore[assignment]
DRAIN = 20.0


@dataclass
class Verdict:
    """What was found. `takeovers`: seconds from a handing out that came to nothing, and from when there was a worker for it, to the next one."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    effects: set[str] = field(default_factory=set)
    again: int = 0
    takeovers: list[float] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0

    @property
    def missing(self) -> set[str]:
        return self.acknowledged - self.effects

    @property
    def slowest(self) -> float:
        return max(self.takeovers, default=0.0)

    @property
    def is_clean(self) -> bool:
        return self.acknowledged == self.effects and self.left == 0 and self.slowest <= VISIBILITY + GRACE

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {point}" for point, count in self.kills.items())
        return (
            f"{self.kills.total()} kills ({kills}) in {self.seconds:.0f} s\n"
            f"acknowledged {len(self.acknowledged)}, effects {len(self.effects)}, missing {len(self.missing)}, "
            f"of nothing sent {len(self.effects - self.acknowledged)}, left in the queue {self.left}\n"
            f"handled again with the effect already there {self.again}, takeovers {len(self.takeovers)}, the slowest after {self.slowest:.2f} s "
            f"(visibility {VISIBILITY:g} s)"
        )


class Proof:
    """Queues in one store, their workers, and the application's ledger."""

    def __init__(self, zygote: Zygote, folder: Path, store: str, prefix: str = "proof") -> None:
        self._zygote = zygote
        self._place = {"store": store, "prefix": prefix, "ledger": str(folder / "ledger.db")}
        self._store = make_store(store, prefix)
        self._queue = MessageQueue(store=self._store)
        self._workers: list[tuple[str, Process]] = []
        self._deaths: dict[str, list[float]] = defaultdict(list)
        self.left: dict[str, int] = {}
        self.verdict = Verdict()
        ledger = sqlite3.connect(self._place["ledger"])
        ledger.execute("PRAGMA journal_mode = WAL")
        ledger.execute(LEDGER)
        ledger.close()

    async def run(self, kills: int) -> Verdict:
        """So many at each point; then workers that live finish the rest."""
        began = time.monotonic()
        try:
            await asyncio.gather(*(self._run_line(line, (kills + line) // LINES) for line in range(LINES)))
        finally:
            await self._queue.stop()
            for _, worker in self._workers:
                if not worker.has_ended:
                    await worker.kill()
        self._judge()
        self.verdict.seconds = time.monotonic() - began
        return self.verdict

    async def _run_line(self, line: int, kills: int) -> None:
        """One queue, and one worker at a time, which is free for whatever the dead ones before it have left."""
        queue = f"work.{line}"
        for name, points in POINTS.items():
            is_takeover = name == TAKEOVER
            if is_takeover:
                await self._drain(queue)  # so that nothing else is to be taken over
            receipts = await asyncio.gather(*(self._queue.send(queue, {"number": number}) for number in range(1 if is_takeover else kills)))
            self.verdict.acknowledged |= {receipt.id for receipt in receipts}
            if is_takeover:
                await self._kill(queue, "taken", exits=False)
            for number in range(line, line + kills):
                await self._kill(queue, points[number % 2], exits=number % 4 >= 2)
                self.verdict.kills[name] += 1
        await self._drain(queue)

    async def _drain(self, queue: str) -> None:
        """A worker that lives finishes everything."""
        worker = await self._start(queue, None)
        async with asyncio.timeout(DRAIN):
            while await self._count_left(queue):
                await self._store.wait(queue, 0.1)
        assert await worker.terminate() == 0, "\n".join(worker.lines)

    async def _kill(self, queue: str, point: str, *, exits: bool) -> None:
        worker = await self._start(queue, point, exits)
        status = await worker.ended()
        self._deaths[queue].append(time.time())
        assert status == (EXITED if exits else -9), f"a worker ended with status {status} at {point!r}:\n" + "\n".join(worker.lines)

    async def _start(self, queue: str, point: str | None, exits: bool = False) -> Process:
        options = {**self._place, "queue": queue, "point": point, "exits": exits}
        worker = await Process.start(self._zygote, "tests.faults.worker_program", options)
        self._workers.append((queue, worker))
        return worker

    async def _count_left(self, queue: str) -> int:
        stats = await self._queue.stats(queue)
        self.left[queue] = stats.depth + stats.in_flight + stats.delayed + stats.dead
        return self.left[queue]

    def _judge(self) -> None:
        self.verdict.left = sum(self.left.values())
        ledger = sqlite3.connect(self._place["ledger"])
        self.verdict.effects = {id for (id,) in ledger.execute("SELECT id FROM effects")}
        ledger.close()
        took: dict[tuple[str, str], list[float]] = {}
        for queue, worker in self._workers:
            for line in worker.lines:
                word, id, *rest = line.split()
                if word == "took":
                    took.setdefault((queue, id), []).append(float(rest[1]))
                self.verdict.again += word == "again"
        for (queue, _), times in took.items():
            for earlier, later in pairwise(sorted(times)):
                # While others of its queue were dying at other messages there was nobody to take this one over.
                deaths = [moment for moment in self._deaths[queue] if moment < later]
                self.verdict.takeovers.append(later - max([earlier, *deaths]))


@contextmanager
def place_of(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty store of a kind."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/queue.db"
    elif kind == "postgresql":
        with running_postgres() as postgres, postgres.database() as url:
            yield url
    else:
        with running_redis() as redis:
            yield redis.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at each of the six points")
    parser.add_argument("--store", action="append", choices=["sqlite", "redis", "postgresql"], help="repeatable; default: sqlite and redis")
    given = parser.parse_args()
    is_clean = True
    for kind in given.store or ["sqlite", "redis"]:
        zygote = Zygote()
        try:
            with tempfile.TemporaryDirectory() as folder, place_of(kind, Path(folder)) as url:
                verdict = asyncio.run(run(zygote, Path(folder), url, given.kills))
        finally:
            zygote.close()
        print(f"{kind}: {verdict}", flush=True)
        is_clean &= verdict.is_clean
    sys.exit(0 if is_clean else 1)


async def run(zygote: Zygote, folder: Path, store: str, kills: int) -> Verdict:
    """Kill `kills` workers at each point. `store`: the URL of an empty one."""
    return await Proof(zygote, folder, store).run(kills)


if __name__ == "__main__":
    main()
