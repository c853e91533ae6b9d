"""An application of the soak: it writes to a table of its own, and tells a room of it in the same transaction; some transactions it takes back.

What its table has at the end is the truth: the log has to have an event of each row, once and in order, and none of anything else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aibos_realtime import outbox
from tests.faults.checker import Entry
from tests.faults.clients import EVENT, pause
from tests.faults.journal import Attempt, Journal

DEADLINE = 4.0
"""Seconds for a transaction."""
DRAIN = 45.0
"""Seconds until nothing waits in the outbox at the end."""
TAKEN_BACK = 0.1
"""The share of transactions that are rolled back."""

ADD = text("INSERT INTO soak_orders VALUES (:id, :room)")


class TakenBackError(Exception):
    """The application changes its mind."""


class Application:
    """`count` writers, each of one transaction after another, `rate` a second in all. `database`: its URL, as the server is told."""

    def __init__(self, database: str, folder: Path, rooms: Sequence[str], *, rate: float, seed: int, count: int = 2) -> None:
        self._engine = _make_engine(database)
        self._journals = [Journal(folder, f"application-{number}") for number in range(count)]
        self._rooms = rooms
        self._pace = count / rate
        self._chance = random.Random(seed)
        self._doubtful: set[str] = set()
        self._taken_back: set[str] = set()
        self.errors: Counter[str] = Counter()
        self.committed = 0
        """Rows at the end."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        asyncio.get_running_loop().set_exception_handler(_pass_over_driver)
        async with self._engine.begin() as connection:
            await connection.execute(text("CREATE TABLE soak_orders (id TEXT PRIMARY KEY, room TEXT)"))
        async with asyncio.TaskGroup() as group:
            for journal in self._journals:
                group.create_task(self._write_on(journal, stop))

    async def drain(self) -> list[str]:
        """Wait until nothing waits; what was wrong at the deadline."""
        until = time.monotonic() + DRAIN
        while True:
            async with self._engine.connect() as connection:
                waiting = (await connection.execute(text("SELECT count(*) FROM realtime_outbox"))).scalar_one()
                dead = (await connection.execute(text("SELECT room_id, message_id, reason FROM realtime_dead_messages"))).all()
            if dead:
                return [f"{len(dead)} events are among the dead messages, such as {tuple(dead[0])}"]
            if not waiting:
                return []
            if time.monotonic() > until:
                return [f"{waiting} events still wait in the outbox after {DRAIN:g} s"]
            await pause(0.1)

    async def judge(self, log: Sequence[Entry]) -> list[str]:
        """What the log has of it and should not, or lacks, or has in another order. After `drain`."""
        async with self._engine.connect() as connection:
            rows = {(room, id) for id, room in (await connection.execute(text("SELECT id, room FROM soak_orders"))).all()}
        self.committed = len(rows)
        told = [(entry.room, entry.id) for entry in log if entry.id.startswith("application-")]
        found = [f"{id} was committed, and {room} was not told" for room, id in sorted(rows - set(told))]
        found += [f"{room} was told of {id}, which was not committed" for room, id in sorted(set(told) - rows)]
        found += [f"{id} was taken back, and is there" for _, id in sorted(rows) if id in self._taken_back]
        newest: dict[tuple[str, str], int] = {}
        for room, id in told:
            writer, _, number = id.rpartition(".")
            if id not in self._doubtful:  # a commit without an answer may take its place later
                if int(number) < newest.get((room, writer), 0):
                    found.append(f"{room} was told of {id} after {writer}.{newest[room, writer]}")
                newest[room, writer] = max(int(number), newest.get((room, writer), 0))
        return [f"outbox: {what}" for what in found[:5]] + ([f"outbox: and {len(found) - 5} more"] if len(found) > 5 else [])

    async def close(self) -> None:
        for journal in self._journals:
            journal.close()
        await self._engine.dispose()

    async def _write_on(self, journal: Journal, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            id, room = f"{journal.client}.{number}", self._rooms[number % len(self._rooms)]
            journal.write(Attempt(journal.client, room, id), flush=True)
            try:
                async with asyncio.timeout(DEADLINE):
                    await self._write(id, room, is_taken_back=self._chance.random() < TAKEN_BACK)
            except TakenBackError:
                self._taken_back.add(id)
            except (SQLAlchemyError, OSError) as error:  # a deadline is the latter
                self._doubtful.add(id)
                self.errors[type(error).__name__] += 1
            await pause(self._chance.expovariate(1 / self._pace))

    async def _write(self, id: str, room: str, *, is_taken_back: bool) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(ADD, {"id": id, "room": room})
            await outbox.publish(connection, room, EVENT, {"id": id}, id=id)
            if is_taken_back:
                raise TakenBackError


def _pass_over_driver(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """SQLAlchemy closes a connection whose database does not answer in a task of its own, and does not look at the time-out that this ends with."""
    if "_terminate_graceful_close" not in str(context.get("future")):
        loop.default_exception_handler(context)


def _make_engine(database: str) -> AsyncEngine:
    scheme, _, rest = database.partition("://")
    if scheme == "sqlite":
        return create_async_engine(f"sqlite+aiosqlite://{rest}", connect_args={"timeout": DEADLINE / 2})
    limits: dict[str, Any] = {"timeout": DEADLINE / 2, "command_timeout": DEADLINE / 2}
    return create_async_engine(f"postgresql+asyncpg://{rest}", connect_args=limits)
