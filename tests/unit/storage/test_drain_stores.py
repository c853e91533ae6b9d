"""The drainer on real stores: two nodes that drain at once, and a database that is killed in the middle."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection, select

from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.backends.sql.schema import dead_messages, messages
from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.errors import ConfigurationError
from aibos_realtime.storage import drain
from tests.servers.postgres import running_postgres
from tests.unit.storage.drain_rig import Holder, MemoryIntake, Node

ROOMS = 20


def event(number: int) -> LoggedEvent:
    offset = number // ROOMS + 1
    id = f"half\ud800{number}" if number % 500 == 250 else "again" if number % 500 == 251 else f"id{number}"
    return LoggedEvent(f"room{number % ROOMS}", "note", b'{"n":%d}' % number, id, "e1", offset, 1_700_000_000_000 + number, "ann")


def fill(intake: MemoryIntake, first: int, last: int) -> None:
    for number in range(first, last):
        intake.put(event(number), shard=number % ROOMS % intake.shards)


@asynccontextmanager
async def nodes(url: str, intake: MemoryIntake, number: int = 2) -> AsyncIterator[list[Node]]:
    """Nodes that all have the lease. Once they are stopped, a server may write alone."""
    holder = Holder(SYSTEM_CLOCK)
    holder.is_everybodys = True
    databases = [Database(url, statement_timeout=1.0) for _ in range(number)]
    found = [Node(f"node{count}", intake, SqlEventStore(database), holder) for count, database in enumerate(databases)]
    try:
        await asyncio.gather(*(node.drainer.start() for node in found))
        yield found
    finally:
        for node in found:
            await node.drainer.stop()
        await (await databases[0].acquire_writer(wait=5)).release()
        for database in databases:
            await database.close()


async def assert_stored(url: str, number: int) -> None:
    """Every position has its row, and every event that can be stored its payload; the others are dead, each once."""

    def read(connection: Connection) -> tuple[list[tuple[str, int, str | None]], list[tuple[str, str | None]]]:
        rows = connection.execute(select(messages.c.room_id, messages.c.log_offset, messages.c.data))
        dead = connection.execute(select(dead_messages.c.message_id, dead_messages.c.data))
        return [(row.room_id, row.log_offset, row.data) for row in rows], [(row.message_id, row.data) for row in dead]

    async with Database(url) as database:
        rows, dead = await database.read(read)
    expected = [event(count) for count in range(number)]
    poisoned = [one for one in expected if "\ud800" in one.id]
    wanted = [(one.room, one.offset, None if one in poisoned else one.data.decode()) for one in expected]
    assert sorted(rows) == sorted(wanted, key=lambda row: row[:2]) and len(rows) == number
    assert sorted(dead) == sorted((one.id.replace("\ud800", "?"), one.data.decode()) for one in poisoned)


async def test_two_nodes_at_once(store_url: str) -> None:
    intake = MemoryIntake(SYSTEM_CLOCK, shards=4)
    fill(intake, 0, 2000)
    async with nodes(store_url, intake) as found, asyncio.timeout(25):
        async with Database(store_url) as other:
            with pytest.raises(ConfigurationError, match=r"nodes with scaling\.enabled write to"):
                await other.acquire_writer(wait=0)
        fill(intake, 2000, 4000)
        await intake.until_left(0)
        assert sum(node.drainer.entries for node in found) >= 4000 - 8
    await assert_stored(store_url, 4000)


@pytest.fixture
async def outage() -> AsyncIterator[asyncio.Event]:
    """Set when a drainer says that the store takes nothing."""
    told = asyncio.Event()

    def listen(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("the store takes nothing"):
            told.set()
        return True

    drain.logger.addFilter(listen)
    yield told
    drain.logger.removeFilter(listen)


async def test_a_database_that_is_killed_and_started_again(outage: asyncio.Event) -> None:
    with running_postgres() as server, server.database() as url:
        intake = MemoryIntake(SYSTEM_CLOCK)
        fill(intake, 0, 1000)
        async with nodes(url, intake) as found, asyncio.timeout(25):
            await intake.until_left(900)
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            fill(intake, 1000, 2000)
            await outage.wait()
            assert intake.left >= 1000
            await asyncio.to_thread(server.start)
            await intake.until_left(0)
            assert any(node.drainer.failures for node in found)
            fill(intake, 2000, 2500)
            await intake.until_left(0)
        await assert_stored(url, 2500)


async def test_a_database_that_hangs_and_goes_on(outage: asyncio.Event) -> None:
    with running_postgres() as server, server.database() as url:
        intake = MemoryIntake(SYSTEM_CLOCK)
        fill(intake, 0, 1000)
        async with nodes(url, intake, number=1) as [node], asyncio.timeout(25):
            await intake.until_left(900)
            server.pause()
            try:
                await outage.wait()
                assert node.drainer.failures
            finally:
                server.resume()
            fill(intake, 1000, 2000)
            await intake.until_left(0)
        await assert_stored(url, 2000)
