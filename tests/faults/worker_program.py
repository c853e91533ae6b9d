"""A worker of a queue that ends itself at one point of its work, as a crash would: by SIGKILL, or by `os._exit`.

Run in a process of its own by `kill_worker`. What a message does is an INSERT into a table of the application's own database, unique by its id.
It says `took ID ATTEMPT TIME` of every message that it was handed, and `again ID` where the effect of one was there before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from aibos_realtime import MessageQueue
from aibos_realtime.backends.queue import QueueLimits, QueueStats, QueueStore, Sent, StoredLetter, Taken, Verdict
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.redis.queue import RedisQueue
from aibos_realtime.backends.redis.script import Script
from aibos_realtime.backends.sql.queue import SqlQueue
from aibos_realtime.errors import IdempotencyConflict, QueueFull

EXITED = 77
POINTS = ("taken", "before effect", "before commit", "before finish", "in finish", "after finish", "in takeover", "after takeover")
"""Where a worker can end. `in`: the store has it, and the worker has no answer; on SQL in the transaction, right before it commits."""
LEDGER = "CREATE TABLE IF NOT EXISTS effects (id TEXT PRIMARY KEY)"
SETTINGS = {"max_attempts": 1000, "visibility_timeout": 0.5, "backoff": {"first": 0.01}}


def main(options: dict[str, Any]) -> None:
    """`options`: `store` (URL), `prefix` (of keys in Redis), `ledger` (file), `queue`, `point` (None: works until SIGTERM), `exits`."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s %(message)s")
    asyncio.run(work(**options))


async def work(store: str, prefix: str, ledger: str, queue: str, point: str | None, exits: bool) -> None:
    end = Crash(point, exits)
    effects = sqlite3.connect(ledger, timeout=10, isolation_level=None)
    mortal = MortalStore(make_store(store, prefix), queue, end)

    async def handle(message: Any) -> None:
        end.at("before effect")
        effects.execute("BEGIN IMMEDIATE")
        is_first = effects.execute("INSERT OR IGNORE INTO effects VALUES (?)", (message.id,)).rowcount == 1
        end.at("before commit")
        effects.execute("COMMIT")
        if not is_first:
            say(f"again {message.id}")

    queues = MessageQueue(store=mortal)
    queues.process(queue, handle, **SETTINGS)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with queues:
        await stopped.wait()


class Crash:
    """The end of this process, planned for one point."""

    def __init__(self, point: str | None, exits: bool) -> None:
        self.point = point
        self._exits = exits

    def at(self, point: str) -> None:
        """End here, if this is the point."""
        if self.point == point:
            if self._exits:
                os._exit(EXITED)
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # in another thread the end may take a moment


class MortalStore:
    """A store that passes everything on, and says what was taken; the process may end before, in or after a call."""

    def __init__(self, store: SqlQueue | RedisQueue, queue: str, end: Crash) -> None:
        self._store = store
        self._queue = queue
        self._end = end

    async def open(self) -> None:
        await self._store.open()
        if isinstance(self._store, SqlQueue):
            end_in_transactions(self._store, self._end)
        else:
            end_in_scripts(self._store, self._queue, self._end)

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        taken = await self._store.take(queue, limit, visibility=visibility, limits=limits, ordered=ordered)
        for one in taken:
            say(f"took {one.id} {one.attempt} {time.time()}")
        if any(one.attempt > 1 for one in taken):
            self._end.at("after takeover")
        if taken:
            self._end.at("taken")
        return taken

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        self._end.at("before finish")
        counted = await self._store.settle(queue, verdicts, limits)
        self._end.at("after finish")
        return counted

    async def close(self) -> None:
        await self._store.close()

    async def send(self, queue: str, drafts: Sequence[Any], limits: QueueLimits) -> list[Sent | QueueFull | IdempotencyConflict]:
        return await self._store.send(queue, drafts, limits)

    async def wait(self, queue: str, timeout: float) -> None:
        await self._store.wait(queue, timeout)

    async def extend(self, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        return await self._store.extend(queue, taken, visibility)

    async def stats(self, queue: str) -> QueueStats:
        return await self._store.stats(queue)

    async def names(self) -> list[str]:
        return await self._store.names()

    async def dead_letters(self, queue: str, limit: int, before: str | None = None) -> list[StoredLetter]:
        return await self._store.dead_letters(queue, limit, before)

    async def requeue(self, queue: str, ids: Sequence[str] | None, limits: QueueLimits) -> int:
        return await self._store.requeue(queue, ids, limits)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        return await self._store.purge(queue, dead=dead)


def end_in_transactions(store: SqlQueue, end: Crash) -> None:
    """End after the statements of a transaction and before its commit."""
    rows: Any = store._rows
    take, settle = rows.take, rows.settle

    def take_and_end(*arguments: Any, **more: Any) -> Any:
        handed = take(*arguments, **more)
        if any(one.attempt > 1 for one in handed.taken):
            end.at("in takeover")
        return handed

    def settle_and_end(*arguments: Any, **more: Any) -> Any:
        counted = settle(*arguments, **more)
        end.at("in finish")
        return counted

    rows.take, rows.settle = take_and_end, settle_and_end


def end_in_scripts(store: RedisQueue, queue: str, end: Crash) -> None:
    """End when the command is on its way: the server may or may not have it, and nobody hears the answer."""
    client: Any = store._client
    run, points = client.run, {"settle": "in finish", "take": "in takeover"}
    turns = os.getpid() % 8

    async def has_leases() -> bool:
        return (await store.stats(queue)).in_flight > 0

    async def run_and_end(script: Script, *arguments: Any) -> Any:
        name = script.name
        if points.get(name) == end.point and (name == "settle" or await has_leases()):
            running = asyncio.ensure_future(run(script, *arguments))
            for _ in range(turns):
                await asyncio.sleep(0)
            end.at(points[name])
            await running
        return await run(script, *arguments)

    client.run = run_and_end


def make_store(url: str, prefix: str) -> SqlQueue | RedisQueue:
    """The real store of a URL."""
    return RedisQueue(RedisOptions(url=url, prefix=prefix)) if url.startswith(("redis", "unix")) else SqlQueue(url)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


_is_a_store: Callable[[SqlQueue, str, Crash], QueueStore] = MortalStore
