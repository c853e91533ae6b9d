"""The queue of the soak: senders that repeat until they know, workers that are killed, and a ledger in which each message may stand once.

The workers are `worker_program`; who kills them is `nemesis`.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from aibos_realtime import MessageQueue, RealtimeError
from tests.faults.clients import pause
from tests.faults.nodes import PREFIX
from tests.faults.worker_program import LEDGER, make_store

QUEUE = "work"
DRAIN = 30.0
"""Seconds for what is left in the queue at the end."""


@dataclass
class Effects:
    """What became of the messages. `left`: still in the queue; `unknown`: sends that came to no answer, and were repeated."""

    acknowledged: set[str]
    effects: set[str]
    left: int
    unknown: int

    @property
    def complaints(self) -> list[str]:
        found = []
        if missing := self.acknowledged - self.effects:
            found.append(f"queue: {len(missing)} messages were acknowledged and had no effect, such as {min(missing)}")
        if invented := self.effects - self.acknowledged:
            found.append(f"queue: {len(invented)} effects are of messages that nobody was told of, such as {min(invented)}")
        if self.left:
            found.append(f"queue: {self.left} messages are left after {DRAIN:g} s")
        return found


def make_ledger(file: Path) -> None:
    """The application's own database, with nothing in it."""
    ledger = sqlite3.connect(file)
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.execute(LEDGER)
    ledger.close()


class Senders:
    """Tasks that send, `rate` messages a second in all. Each message goes under one key until its sender knows that it was taken."""

    def __init__(self, url: str, ledger: Path, *, rate: float, seed: int, count: int = 2) -> None:
        self.acknowledged: set[str] = set()
        self.errors: Counter[str] = Counter()
        self._queue = MessageQueue(store=make_store(url, PREFIX))
        self._ledger = ledger
        self._pace = count / rate
        self._count = count
        self._chance = random.Random(seed)

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop, and until everything sent is answered."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._send(f"sender-{number}", stop))

    async def _send(self, name: str, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            self.acknowledged.add(await self._send_one(f"{name}.{number}"))
            await pause(self._chance.expovariate(1 / self._pace))

    async def _send_one(self, key: str) -> str:
        while True:
            try:
                return (await self._queue.send(QUEUE, {"key": key}, idempotency_key=key)).id
            except RealtimeError as error:
                if not error.retryable:
                    raise
                self.errors[error.code] += 1
                await pause(0.1)

    async def drain(self) -> Effects:
        """Wait until the workers have done everything, or the deadline is over, and read what came of it."""
        until = time.monotonic() + DRAIN
        while (left := await self._count_left()) and time.monotonic() < until:
            await pause(0.1)
        ledger = sqlite3.connect(self._ledger)
        try:
            effects = {id for (id,) in ledger.execute("SELECT id FROM effects")}
        finally:
            ledger.close()
        return Effects(self.acknowledged, effects, left, self.errors.total())

    async def close(self) -> None:
        await self._queue.stop()

    async def _count_left(self) -> int:
        stats = await self._queue.stats(QUEUE)
        return stats.depth + stats.in_flight + stats.delayed + stats.dead
