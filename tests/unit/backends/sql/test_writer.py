"""`Writer.execute`, the short way of a batch into the log, on SQLite and on PostgreSQL: it keeps every promise of `write`."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from aibos_realtime.backends.sql.database import Database, Statement
from aibos_realtime.backends.sql.failures import refusal
from aibos_realtime.backends.sql.schema import rooms
from aibos_realtime.errors import StoreUnavailable

INSERT = {
    "sqlite": "INSERT INTO realtime_rooms (room_id, epoch, log_offset, touched) VALUES (?, 'e', ?, 0)",
    "postgresql": "INSERT INTO realtime_rooms (room_id, epoch, log_offset, touched) VALUES ($1, 'e', $2, 0)",
}
SLOW = {
    "sqlite": "INSERT INTO realtime_rooms WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'slow', 'e', count(*), 0 FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}
LONG = {
    "sqlite": "INSERT INTO realtime_rooms WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    " SELECT 'long', 'e', count(*), 0 FROM n",
    "postgresql": "INSERT INTO realtime_rooms SELECT 'long', 'e', count(*), 0 FROM generate_series(1, 20000)",
}


def add(database: Database, *names: str) -> Statement:
    return INSERT[database.dialect], [(name, number) for number, name in enumerate(names)]


def names_of(connection: Connection) -> list[str]:
    return sorted(connection.scalars(select(rooms.c.room_id)))


async def test_what_was_written_is_read(database: Database) -> None:
    writer = await database.acquire_writer()
    await writer.execute(add(database, "a"))
    await writer.execute(add(database, "b", "c"), add(database, "d"))
    assert await database.read(names_of) == list("abcd")
    await writer.release()


async def test_what_is_refused_takes_everything_back_and_the_next_one_goes(database: Database) -> None:
    writer = await database.acquire_writer()
    await writer.execute(add(database, "there"))
    for refused in ([add(database, "there")], [add(database, "a", "b"), add(database, "c", "there")], [add(database, "a"), add(database, "\ud800")]):
        with pytest.raises((DBAPIError, UnicodeEncodeError)) as caught:
            await writer.execute(*refused)
        assert refusal(caught.value) is not None
    await writer.execute(add(database, "next"))
    assert await database.read(names_of) == ["next", "there"]
    await writer.release()


async def test_a_long_statement_ends_in_its_time(url: str) -> None:
    async with Database(url, statement_timeout=0.2) as database:
        writer = await database.acquire_writer()
        with pytest.raises(StoreUnavailable, match="took too long"):
            await writer.execute((SLOW[database.dialect], [()]))
        await writer.execute((LONG[database.dialect], [()]))  # which has its own time
        assert await database.read(names_of) == ["long"]
        await writer.release()


async def test_cancelling_leaves_the_writer_usable(database: Database) -> None:
    writer = await database.acquire_writer()
    for number in range(20):
        writing = asyncio.ensure_future(writer.execute(add(database, f"room{number}")))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
    await writer.execute(add(database, "last"))
    assert "last" in await database.read(names_of)
    await writer.release()


async def test_closed_is_closed(database: Database) -> None:
    writer = await database.acquire_writer()
    await database.close()
    with pytest.raises(StoreUnavailable):
        await writer.execute(add(database, "late"))
    await writer.release()


class TestSqlite:
    async def test_who_lost_the_right_never_writes_again(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/realtime.db"
        async with Database(url) as ours, Database(url) as theirs:
            lost = await ours.acquire_writer()
            (tmp_path / "realtime.db.lock").unlink()
            taken = await theirs.acquire_writer(wait=0)
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                    await lost.execute(add(ours, "lost"))
            await taken.execute(add(theirs, "theirs"))
            assert await ours.read(names_of) == ["theirs"]
            await taken.release()
            await lost.release()

    async def test_a_writer_that_was_released_writes_no_more(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db") as database:
            writer = await database.acquire_writer()
            await writer.release()
            with pytest.raises(StoreUnavailable):
                await writer.execute(add(database, "late"))
            assert await database.read(names_of) == []

    async def test_nothing_is_acknowledged_that_is_in_no_file(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db") as database:
            writer = await database.acquire_writer()
            (tmp_path / "realtime.db").rename(tmp_path / "away.db")
            with pytest.raises(StoreUnavailable, match=r"The file realtime\.db is not there any more, or was replaced"):
                await writer.execute(add(database, "lost"))
            (tmp_path / "away.db").rename(tmp_path / "realtime.db")
            await writer.execute(add(database, "back"))
            assert await database.read(names_of) == ["back"]
            await writer.release()

    async def test_a_lock_is_not_waited_for_longer(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db", statement_timeout=0.2) as database:
            writer = await database.acquire_writer()
            other = sqlite3.connect(tmp_path / "realtime.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match=r"realtime\.db is locked by another process"):
                await writer.execute(add(database, "late"))
            other.execute("COMMIT")
            other.close()
            await writer.execute(add(database, "next"))
            await writer.release()


class TestPostgres:
    async def test_a_session_that_was_ended_is_made_again_unless_somebody_took_the_right(self, postgres_url: str) -> None:
        async with Database(postgres_url) as ours, Database(postgres_url) as theirs:
            writer = await ours.acquire_writer()
            await end_sessions(theirs)
            with pytest.raises(StoreUnavailable):
                await writer.execute(add(ours, "lost"))
            await writer.execute(add(ours, "again"))
            await end_sessions(theirs)
            taken = await theirs.acquire_writer()
            with pytest.raises(StoreUnavailable):
                await writer.execute(add(ours, "lost"))
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                    await writer.execute(add(ours, "lost"))
            assert await theirs.read(names_of) == ["again"]
            await taken.release()
            await writer.release()

    async def test_a_server_that_says_nothing_is_cut_off(self, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
        monkeypatch.setattr("aibos_realtime.backends.sql.postgres.GRACE", 0.1)
        async with Database(postgres_url, statement_timeout=0.2) as database:
            writer = await database.acquire_writer()
            await writer.write(lambda connection: connection.execute(text("SELECT set_config('statement_timeout', '0', false)")))
            with pytest.raises(StoreUnavailable):
                await writer.execute((SLOW["postgresql"], [()]))
            await writer.execute(add(database, "next"))
            assert await database.read(names_of) == ["next"]
            await writer.release()


async def end_sessions(database: Database) -> None:
    """The writer's session ends, as by an administrator or a restart."""
    ours = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = {ours}"
    await database.write(lambda connection: connection.execute(text(end)).all())
