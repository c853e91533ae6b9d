"""A PostgreSQL that is killed or hangs, and comes back: everybody is told in time, nothing is restarted by hand."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest
from sqlalchemy import Connection, func, insert, select, text

from aibos_realtime import MessagePersistence
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.postgres import GRACE
from aibos_realtime.backends.sql.schema import rooms
from aibos_realtime.errors import StoreUnavailable
from tests.servers.postgres import running_postgres


async def test_a_server_that_is_killed_and_started_again() -> None:
    with running_postgres() as server, server.database() as url:
        async with Database(url) as database, MessagePersistence(database=database) as persistence:
            writer = await database.acquire_writer()

            def add(connection: Connection, number: int) -> None:
                connection.execute(insert(rooms).values(room_id=f"room{number}", epoch="e", log_offset=1, touched=0))

            for number in range(3):
                await writer.write(lambda connection: add(connection, number))  # noqa: B023
            await asyncio.gather(*(database.read(lambda connection: connection.scalar(select(1))) for _ in range(5)))
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await writer.write(lambda connection: add(connection, 3))
                with pytest.raises(StoreUnavailable):
                    await persistence.get_messages("room1")
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(10):
                await _until_it_works(lambda: writer.write(lambda connection: add(connection, 4)))
                await _until_it_works(lambda: persistence.get_messages("room1"))
            found = await database.read(lambda connection: connection.scalar(select(func.count()).select_from(rooms)))
            assert (found, writer.generation) == (4, 1)

            await writer.release()


async def test_a_read_after_a_quick_restart_finds_a_connection_that_lives() -> None:
    with running_postgres() as server, server.database() as url:
        async with Database(url) as database:
            await asyncio.gather(*(database.read(lambda connection: connection.scalar(text("SELECT 1"))) for _ in range(5)))
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            await asyncio.to_thread(server.start)
            assert [await database.read(lambda connection: connection.scalar(text("SELECT 2"))) for _ in range(5)] == [2] * 5


async def test_a_server_that_hangs() -> None:
    with running_postgres() as server, server.database() as url:
        async with Database(url, statement_timeout=1.5) as database:
            writer = await database.acquire_writer()
            ask = database.write, writer.write
            for act in ask:
                await act(lambda connection: connection.scalar(select(1)))
            server.pause()
            try:
                for act in (*ask, writer.write):
                    began = monotonic()
                    with pytest.raises(StoreUnavailable):
                        await act(lambda connection: connection.scalar(select(1)))
                    assert monotonic() - began < 1.5 + GRACE + 0.7, "once the time-out, not again for taking it back"
            finally:
                server.resume()
            async with asyncio.timeout(10):
                for act in ask:
                    await _until_it_works(lambda: act(lambda connection: connection.scalar(select(1))))  # noqa: B023
            await writer.release()


async def _until_it_works(act: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await act()
        except StoreUnavailable:
            continue
        return
