"""A node with many clients is killed: all of them come back at the others, as fast as these let them in, and miss nothing.

Clients wait as they do anywhere, the first time up to 5 s, and nodes let in 200 a second. What was missed comes from Redis, and not from the store.

python -m tests.faults.node_storm --clients 1000 --seed 1
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.checker import History, Verdict, check
from tests.faults.clients import PATIENCE, Publisher, Subscriber, make_client, pause
from tests.faults.journal import Journal, read_journals
from tests.faults.node_program import ask_for_reads
from tests.faults.nodes import Nodes
from tests.faults.processes import Zygote
from tests.servers.redis import running_redis

ROOMS = 5
HANDSHAKES = 200
"""That a node lets in a second."""
LIMIT = 10.0
"""Seconds until all are back."""


@dataclass
class Storm:
    """What became of it. `back`: seconds from the kill until the last client had read what was published after it; `reads`: of the database."""

    verdict: Verdict
    back: float
    reads: int

    @property
    def is_kept(self) -> bool:
        return self.verdict.is_clean and not self.verdict.counts["told of a gap"] and self.back <= LIMIT and self.reads == 0


class Crowd:
    """`size` clients of the first node, over a few rooms, and one publisher in each room who is at another node."""

    def __init__(self, folder: Path, urls: list[str], size: int, seed: int, haste: float) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self._haste = haste
        self._stop = asyncio.Event()
        self._life = AsyncExitStack()
        first, *others = urls
        self.subscribers = [self._make_subscriber(n, [first, *others[n % len(others) :], *others[: n % len(others)]]) for n in range(size)]
        self.publishers = [self._make_publisher(n, others[n % len(others)]) for n in range(ROOMS)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as life:
            everybody: list[Publisher | Subscriber] = [*self.subscribers, *self.publishers]
            for one in everybody:
                life.push_async_callback(self._close, one)
            await asyncio.gather(*(one.client.connect() for one in self.publishers))
            for begin in range(0, len(self.subscribers), HANDSHAKES // 2):
                await asyncio.gather(*(one.start() for one in self.subscribers[begin : begin + HANDSHAKES // 2]))
                await pause(0.5)
            self._tasks = [asyncio.create_task(one.run(self._stop)) for one in self.publishers]
            self._life = life.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._life.aclose()

    async def until_reached(self) -> None:
        """Wait until everybody has read what is published from now on. Raises `TimeoutError`."""
        await self._until_read([publisher.sent for publisher in self.publishers])

    async def settle(self) -> None:
        """End publishing, and wait until everybody has read all of it. Raises `TimeoutError`."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._until_read([publisher.sent - 1 for publisher in self.publishers])

    async def _until_read(self, after: list[int]) -> None:
        """Something that each room's publisher sent after the first so many."""
        async with asyncio.timeout(LIMIT + PATIENCE):
            rooms = [(publisher.name, sent) for publisher, sent in zip(self.publishers, after, strict=True)]
            await asyncio.gather(*(one.until_given(*rooms[number % ROOMS]) for number, one in enumerate(self.subscribers)))

    def _make_subscriber(self, number: int, urls: list[str]) -> Subscriber:
        name = f"subscriber-{number}"
        room, journal, options = f"room-{number % ROOMS}", Journal(self._folder, name), {"haste": self._haste}
        return Subscriber(name, urls, [room], journal, self._chance, lambda moment: None, options)

    def _make_publisher(self, number: int, url: str) -> Publisher:
        name = f"publisher-{number}"
        client = make_client(url, name, self._chance)
        journal = Journal(self._folder, name)
        return Publisher(name, client, [f"room-{number}"], journal, self._chance, pace=0.1, notice=lambda moment: None)

    async def _close(self, one: Publisher | Subscriber) -> None:
        await one.client.close()
        one.journal.close()


async def prove(zygote: Zygote, folder: Path, *, clients: int, seed: int, haste: float = 1.0) -> Storm:
    """Kill the node of so many clients once. `haste`: what these wait before they come back, as a share of what others do."""
    options: dict[str, Any] = {"program": "tests.faults.node_program", "limits": {"handshakes_per_second": HANDSHAKES}}
    with running_redis() as redis:
        async with Nodes(zygote, redis, folder, database=f"sqlite:///{folder}/realtime.db", **options) as nodes:
            async with Crowd(folder, nodes.urls, clients, seed, haste) as crowd:
                await crowd.until_reached()
                first, *others = nodes.servers
                before = [await ask_for_reads(server.process) for server in others]
                began = time.monotonic()
                await first.kill()
                await crowd.until_reached()
                back = time.monotonic() - began
                reads = [await ask_for_reads(server.process) for server in others]
                await crowd.settle()
            await asyncio.gather(*(server.stop() for server in others))
    verdict = check(History(list(read_journals(folder))))
    return Storm(verdict, back, sum(reads) - sum(before))


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    given = parser.parse_args()
    logging.getLogger("aibos_realtime.client").setLevel(logging.CRITICAL)  # that connections are lost is no news here
    zygote = Zygote()
    with tempfile.TemporaryDirectory() as folder:
        try:
            storm = asyncio.run(prove(zygote, Path(folder), clients=given.clients, seed=given.seed))
        finally:
            zygote.close()
    print(f"{storm.verdict}\nall {given.clients} clients were back after {storm.back:.1f} s; events were read from the database {storm.reads} times")
    sys.exit(0 if storm.is_kept else 1)


if __name__ == "__main__":
    main()
