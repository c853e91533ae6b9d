"""`Database` and its writer, on SQLite and on PostgreSQL: transactions, time-outs, one writer, and what each wrong use is told."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.failures import refusal
from aibos_realtime.backends.sql.options import DatabaseOptions
from aibos_realtime.backends.sql.schema import rooms
from aibos_realtime.backends.sql.urls import Place
from aibos_realtime.backends.sql.versions import known_versions
from aibos_realtime.errors import ConfigurationError, StoreUnavailable
from tests.servers.postgres import PostgresServer


def add(connection: Connection, room: str = "lobby") -> str:
    connection.execute(insert(rooms).values(room_id=room, epoch="e", log_offset=1, touched=0))
    return room


def count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(rooms)) or 0


class TestTransactions:
    async def test_what_was_written_is_read(self, database: Database) -> None:
        assert await database.write(add) == "lobby"
        assert await database.read(count) == 1

    async def test_an_error_of_the_work_takes_everything_back_and_comes_as_it_is(self, database: Database) -> None:
        def work(connection: Connection) -> None:
            add(connection)
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await database.write(work)
        assert await database.read(count) == 0

    async def test_errors_of_the_data_pass_through(self, database: Database) -> None:
        await database.write(add)
        with pytest.raises(IntegrityError) as caught:
            await database.write(add)
        assert refusal(caught.value) is not None
        with pytest.raises((DBAPIError, UnicodeEncodeError)) as other:
            await database.write(lambda connection: add(connection, "\ud800"))
        assert refusal(other.value) is not None
        assert await database.read(count) == 1

    async def test_wrong_sql_is_nobodys_outage(self, database: Database) -> None:
        with pytest.raises(DBAPIError) as caught:
            await database.write(lambda connection: connection.execute(text("SELECT * FROM no_such_table")))
        assert refusal(caught.value) is None

    async def test_parameters_are_in_no_error(self, database: Database) -> None:
        with pytest.raises(DBAPIError) as caught:
            await database.read(lambda connection: connection.execute(text("SELECT :secret FROM no_such_table"), {"secret": "hunter2"}))
        assert "hunter2" not in str(caught.value)

    async def test_many_writers_at_once(self, database: Database) -> None:
        await asyncio.gather(*(database.write(lambda connection, n=number: add(connection, f"room{n}")) for number in range(200)))  # type: ignore[misc]
        assert await database.read(count) == 200

    async def test_reading_cannot_write(self, url: str) -> None:
        if url == "memory://":
            return  # one connection for both
        async with Database(url) as database:
            with pytest.raises((DBAPIError, StoreUnavailable)):
                await database.read(add)
            assert await database.read(count) == 0

    async def test_cancelling_leaves_it_usable(self, database: Database) -> None:
        for number in range(30):
            writing = asyncio.ensure_future(database.write(lambda connection: add(connection, f"room{number}")))  # noqa: B023
            for _ in range(number % 5):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
        await database.write(add)
        assert await database.read(lambda connection: connection.scalar(select(rooms.c.room_id).where(rooms.c.room_id == "lobby"))) == "lobby"


class TestLife:
    async def test_opening_and_closing_twice(self, url: str) -> None:
        database = Database(url)
        await asyncio.gather(database.open(), database.open())
        await database.open()
        await database.close()
        await database.close()
        with pytest.raises(StoreUnavailable, match="is not open"):
            await database.read(count)
        await database.open()
        assert await database.read(count) == 0
        await database.close()

    async def test_nothing_is_opened_at_construction(self, tmp_path: Path) -> None:
        Database(f"sqlite:///{tmp_path}/x.db")
        assert os.listdir(tmp_path) == []

    def test_no_driver_is_imported_before_one_is_opened(self) -> None:
        program = (
            "import sys\nfrom aibos_realtime.backends.sql.database import Database\nDatabase('postgresql://h/x')\nprint('sqlalchemy' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
        assert done.stdout.strip() == "False", done.stderr

    async def test_sqlite_keeps_its_promises(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db") as database:

            def pragmas(connection: Connection) -> list[Any]:
                return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")]

            assert await database.write(pragmas) == ["wal", 2, 1]
            threads = await asyncio.gather(*(database.write(lambda _: threading.current_thread().name) for _ in range(20)))
            assert len(set(threads)) == 1, "one thread writes"
        assert os.listdir(tmp_path) == ["realtime.db"], "the log is in the file at the end"

    async def test_readers_do_not_wait_for_the_writer(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db") as database:
            go_on = threading.Event()

            def slow(connection: Connection) -> None:
                add(connection)
                assert go_on.wait(5)

            writing = asyncio.ensure_future(database.write(slow))
            try:
                assert await database.read(count) == 0
            finally:
                go_on.set()
                await writing
            assert await database.read(count) == 1


SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


class TestTimeouts:
    async def test_a_long_statement_ends_in_its_time(self, url: str) -> None:
        async with Database(url, statement_timeout=0.2) as database:
            for act in (database.write, database.read):
                with pytest.raises(StoreUnavailable, match="took too long"):
                    await act(lambda connection: connection.execute(text(SLOW[connection.dialect.name])).all())
            assert await database.write(add) == "lobby"

    async def test_a_lock_is_not_waited_for_longer(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db", statement_timeout=0.2) as database:
            other = sqlite3.connect(tmp_path / "realtime.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="realtime.db is locked by another process") as caught:
                await database.write(add)
            assert caught.value.retryable and str(tmp_path) not in str(caught.value)
            assert isinstance(caught.value.__cause__, DBAPIError)
            other.execute("COMMIT")
            other.close()
            assert await database.write(add) == "lobby"

    async def test_a_disk_that_hangs_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aibos_realtime.backends.sql.sqlite.GRACE", 0.1)
        hung = threading.Event()
        async with Database(f"sqlite:///{tmp_path}/realtime.db", statement_timeout=0.1) as database:
            with pytest.raises(StoreUnavailable, match="took too long"):
                await database.write(lambda _: hung.wait(10))
            behind = asyncio.ensure_future(database.write(add))
            with pytest.raises(StoreUnavailable, match="took too long"):
                await behind
            hung.set()
            assert await database.write(count) == 0, "what had not begun never happened"

    async def test_a_server_that_says_nothing_is_cut_off(self, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
        """The server's own time-out is switched off, as it is where the network swallows everything."""
        monkeypatch.setattr("aibos_realtime.backends.sql.postgres.GRACE", 0.1)
        async with Database(postgres_url, statement_timeout=0.2) as database:

            def hang(connection: Connection) -> None:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text(SLOW["postgresql"]))

            with pytest.raises(StoreUnavailable):
                await database.write(hang)
            assert await database.write(add) == "lobby"

    async def test_connections_are_bounded(self, postgres_url: str) -> None:
        async with Database(postgres_url, pool_size=1, statement_timeout=0.3) as database:
            hanging = asyncio.ensure_future(database.read(lambda connection: connection.execute(text("SELECT pg_sleep(0.25)"))))
            await asyncio.sleep(0)
            results = await asyncio.gather(*(database.read(count) for _ in range(3)), hanging, return_exceptions=True)
            assert all(not isinstance(one, BaseException) or isinstance(one, StoreUnavailable) for one in results)


class TestWriter:
    async def test_there_is_one(self, url: str, database: Database) -> None:
        writer = await database.acquire_writer()
        same = database.url_shown
        for second in [database] if url == "memory://" else [database, Database(url)]:
            await second.open()
            with pytest.raises(ConfigurationError, match="another server writes to") as caught:
                await second.acquire_writer(wait=0.1)
            assert same in str(caught.value)
            if second is not database:
                await second.close()
        assert await writer.write(add) == "lobby"
        await writer.release()
        await writer.release()
        again = await database.acquire_writer(wait=0)
        assert (writer.generation, again.generation) == (1, 2)
        await again.release()

    async def test_the_next_one_waits_for_it(self, url: str, database: Database) -> None:
        writer = await database.acquire_writer()
        waiting = asyncio.ensure_future(database.acquire_writer(wait=5))
        await asyncio.sleep(0)
        await writer.release()
        await (await waiting).release()

    async def test_closing_the_database_lets_go(self, url: str) -> None:
        async with Database(url) as database:
            lost = await database.acquire_writer()
        async with database:
            await (await database.acquire_writer(wait=5)).release()
            await lost.release()

    async def test_cancelling_the_wait_is_safe(self, database: Database) -> None:
        writer = await database.acquire_writer()
        waiting = asyncio.ensure_future(database.acquire_writer(wait=60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await writer.release()
        await (await database.acquire_writer(wait=0.5)).release()

    async def test_a_killed_process_lets_go(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/realtime.db"
        program = (
            "import asyncio, sys\nfrom aibos_realtime.backends.sql.database import Database\n"
            "async def main():\n database = Database(sys.argv[1])\n await database.open()\n await database.acquire_writer()\n"
            " print('mine', flush=True)\n await asyncio.Event().wait()\nasyncio.run(main())"
        )
        async with Database(url) as database:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE)
            try:
                assert process.stdout is not None
                async with asyncio.timeout(20):
                    assert await process.stdout.readline() == b"mine\n"
                with pytest.raises(ConfigurationError, match="another server"):
                    await database.acquire_writer(wait=0)
            finally:
                process.kill()
                await process.wait()
            writer = await database.acquire_writer(wait=5)
            assert writer.generation == 2
            await writer.release()

    async def test_a_lost_session_is_made_again(self, postgres: PostgresServer, postgres_url: str) -> None:
        async with Database(postgres_url) as database:
            writer = await database.acquire_writer()
            await self.end_sessions(database)
            with pytest.raises(StoreUnavailable):
                await writer.write(add)
            assert await writer.write(add) == "lobby"
            assert writer.generation == 1
            with pytest.raises(ConfigurationError):
                await database.acquire_writer(wait=0)
            await writer.release()

    async def test_a_session_that_the_server_still_has_is_ended_first(self, postgres_url: str) -> None:
        """As where the network went away in the middle of a transaction: the server knows nothing of it, and the lock is with the old session."""
        async with Database(postgres_url, statement_timeout=1) as database:
            writer = await database.acquire_writer()

            def hang(connection: Connection) -> None:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                add(connection, "half")
                connection.execute(text(SLOW["postgresql"]))

            with pytest.raises(StoreUnavailable):
                await writer.write(hang)
            assert await writer.write(add) == "lobby"
            assert await database.read(count) == 1, "what hung was not committed behind our back"
            await writer.release()

    async def test_who_lost_the_right_never_writes_again(self, postgres_url: str) -> None:
        async with Database(postgres_url) as ours, Database(postgres_url) as theirs:
            lost = await ours.acquire_writer()
            await self.end_sessions(theirs)
            taken = await theirs.acquire_writer()
            with pytest.raises(StoreUnavailable):
                await lost.write(add)
            with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                await lost.write(add)
            await taken.release()
            with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                await lost.write(add)
            assert await theirs.read(count) == 0
            await lost.release()

    async def test_cancelling_a_write_leaves_the_writer_usable(self, database: Database) -> None:
        writer = await database.acquire_writer()
        for number in range(20):
            writing = asyncio.ensure_future(writer.write(lambda connection: add(connection, f"room{number}")))  # noqa: B023
            for _ in range(number % 4):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
        assert await writer.write(add) == "lobby"
        await writer.release()

    async def end_sessions(self, database: Database) -> None:
        """The writer's session ends, as by an administrator or a restart."""
        ours = "(SELECT oid FROM pg_database WHERE datname = current_database())"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = {ours}"
        await database.write(lambda connection: connection.execute(text(end)).all())


class TestListening:
    async def test_notices_of_committed_transactions(self, postgres_url: str) -> None:
        rung: asyncio.Queue[int] = asyncio.Queue()
        async with Database(postgres_url) as database:
            listening = asyncio.ensure_future(database.listen("bell", lambda: rung.put_nowait(1)))
            async with asyncio.timeout(5):
                await rung.get()  # it listens
                await database.write(lambda connection: connection.execute(text("NOTIFY bell")))
                await rung.get()
            await database.write(
                lambda connection: connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
                ).all()
            )
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(5):
                    await listening


class TestWrongUse:
    async def test_a_server_that_is_not_there(self) -> None:
        for url in ("postgresql://ann:hunter2@127.0.0.1:1/app", "postgresql://ann:hunter2@/app?host=/nowhere"):
            with pytest.raises(StoreUnavailable, match="The database PostgreSQL does not answer") as caught:
                await Database(url).open()
            assert caught.value.retryable and "hunter2" not in str(caught.value) and caught.value.__cause__ is not None

    async def test_a_database_that_is_not_there(self, postgres: PostgresServer) -> None:
        with pytest.raises(ConfigurationError, match="has no such database"):
            await Database(postgres.url("none")).open()

    async def test_a_user_that_is_not_there(self, postgres: PostgresServer) -> None:
        url = postgres.url("postgres").replace("postgres@", "nobody:hunter2@")
        with pytest.raises(ConfigurationError, match="does not let this user in") as caught:
            await Database(url).open()
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("parameter", ["nonsense=1", "sslmode=hunter2"])
    async def test_a_parameter_that_is_not_there(self, postgres: PostgresServer, parameter: str) -> None:
        with pytest.raises(ConfigurationError, match="parameter") as caught:
            await Database(f"{postgres.url('postgres')}&{parameter}").open()
        assert "hunter2" not in str(caught.value)

    async def test_what_the_drivers_own_parser_cannot_read(self) -> None:
        from aibos_realtime.backends.sql.postgres import PostgresConnections

        place = Place("postgresql", "postgresql://…@h/db", dsn="postgresql://ann:hunter2/x@h/db")
        connections = PostgresConnections(place, DatabaseOptions(url="postgresql://h/db"))
        with pytest.raises(ConfigurationError, match=r"^database\.url: postgresql://…@h/db is nothing that the driver can read$") as caught:
            await connections.open()
        assert caught.value.__suppress_context__ and caught.value.__cause__ is None
        await connections.close()

    async def test_without_the_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "asyncpg", None)
        monkeypatch.delitem(sys.modules, "aibos_realtime.backends.sql.postgres", raising=False)
        with pytest.raises(ConfigurationError, match=r'pip install "aibos-realtime\[postgres\]"'):
            await Database("postgresql://127.0.0.1/app").open()

    async def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="the directory of .*none/realtime.db does not exist"):
            await Database(f"sqlite:///{tmp_path}/none/realtime.db").open()

    async def test_a_directory_in_place_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="is a directory"):
            await Database(f"sqlite:///{tmp_path}").open()

    async def test_a_file_that_is_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "realtime.db").write_text("not a database at all " * 100)
        for act in (Database.open, Database.upgrade, Database.find_version):
            with pytest.raises(ConfigurationError, match=r"realtime\.db is no SQLite database"):
                await act(Database(f"sqlite:///{tmp_path}/realtime.db"))

    @pytest.mark.parametrize("what", ["file", "directory"])
    async def test_read_only(self, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Root may write anywhere, so the system's answer is given in its place."""
        async with Database(f"sqlite:///{tmp_path}/realtime.db"):
            pass
        refused = str(tmp_path / "realtime.db" if what == "file" else tmp_path)
        monkeypatch.setattr("os.access", lambda path, mode: str(path) != refused)
        with pytest.raises(ConfigurationError, match="is read-only for this process"):
            await Database(f"sqlite:///{tmp_path}/realtime.db").open()

    async def test_a_full_disk(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db") as database:
            pages = await database.write(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar())
            await database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())

            def fill(connection: Connection) -> None:
                for number in range(2000):
                    add(connection, f"room{number}" + "x" * 500)

            with pytest.raises(StoreUnavailable, match=r"The database realtime\.db is full") as caught:
                await database.write(fill)
            assert caught.value.retryable
            assert await database.read(count) == 0
            await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 100000").scalar())
            await database.write(fill)
            assert await database.read(count) == 2000, "back to work when there is room"


class TestVersions:
    async def test_an_old_schema(self, postgres: PostgresServer) -> None:
        with postgres.database("template0") as url:
            with pytest.raises(ConfigurationError, match="has no tables of aibos-realtime, and .* is needed: run `aibos-realtime database upgrade`"):
                await Database(url).open()
            assert await Database(url).find_version() is None
            newest = known_versions()[-1]
            both = await asyncio.gather(Database(url).upgrade(), Database(url).upgrade())
            assert sorted(both, key=str) == sorted([(None, newest), (newest, newest)], key=str), "one of them did the work"
            async with Database(url) as database:
                assert await database.write(add) == "lobby"

    async def test_the_version_before(self, postgres_url: str) -> None:
        async with Database(postgres_url) as database:
            await database.write(lambda connection: connection.execute(text("UPDATE realtime_alembic SET version_num = '0001'")))
        with pytest.raises(ConfigurationError, match="has version 0001 of the schema, and"):
            await Database(postgres_url).open()

    async def test_a_newer_one(self, store_url: str) -> None:
        async with Database(store_url) as database:
            await database.write(lambda connection: connection.execute(text("UPDATE realtime_alembic SET version_num = '9999'")))
        for act in (Database.open, Database.upgrade):
            with pytest.raises(ConfigurationError, match="has version 9999 of the schema, and this aibos-realtime knows 0001 to"):
                await act(Database(store_url))
        assert await Database(store_url).find_version() == "9999"

    async def test_sqlite_is_upgraded_by_several_at_once(self, tmp_path: Path) -> None:
        databases = [Database(f"sqlite:///{tmp_path}/realtime.db") for _ in range(4)]
        await asyncio.gather(*(database.open() for database in databases))
        assert await databases[0].write(add) == "lobby"
        assert await databases[3].read(count) == 1
        for database in databases:
            await database.close()

    async def test_a_new_file_that_another_process_is_just_writing(self, tmp_path: Path) -> None:
        other = sqlite3.connect(tmp_path / "realtime.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE theirs (number)")
        database = Database(f"sqlite:///{tmp_path}/realtime.db")
        opening = asyncio.ensure_future(database.open())
        done, _ = await asyncio.wait([opening], timeout=0.2)
        other.execute("COMMIT")
        other.close()
        await opening
        assert not done and await database.write(add) == "lobby"
        await database.close()

    async def test_looking_makes_nothing(self, tmp_path: Path) -> None:
        assert await Database(f"sqlite:///{tmp_path}/realtime.db").find_version() is None
        assert os.listdir(tmp_path) == []

    async def test_the_current_version_needs_no_alembic(self, tmp_path: Path) -> None:
        async with Database(f"sqlite:///{tmp_path}/realtime.db"):
            pass
        program = (
            "import asyncio, sys\nfrom aibos_realtime.backends.sql.database import Database\n"
            "async def main():\n async with Database(sys.argv[1]): print('alembic' in sys.modules)\nasyncio.run(main())"
        )
        command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/realtime.db"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(20):
            assert (await process.communicate())[0] == b"False\n"
