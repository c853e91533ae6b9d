"""One writer for one SQLite file, by whatever name, whatever happens to the files beside it; and what a restored copy is told."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from aibos_realtime import Position
from aibos_realtime.backends.base import Batch, LoggedEvent
from aibos_realtime.backends.sql import events, meta, sqlite
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.backends.sql.schema import rooms
from aibos_realtime.errors import ConfigurationError, StoreUnavailable


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "realtime.db"


def open_at(file: Path, **options: Any) -> Database:
    return Database(f"sqlite:///{file}", **options)


def add(connection: Connection, room: str = "lobby") -> str:
    connection.execute(insert(rooms).values(room_id=room, epoch="e", log_offset=1, touched=0))
    return room


def add_and_fail(connection: Connection) -> None:
    add(connection, "half")
    raise LookupError


def rooms_of(file: Path) -> list[str]:
    connection = sqlite3.connect(file)
    try:
        return [room for (room,) in connection.execute("SELECT room_id FROM realtime_rooms ORDER BY room_id")]
    finally:
        connection.close()


class TestOneWriter:
    async def test_by_the_name_of_a_symbolic_link(self, file: Path, tmp_path: Path) -> None:
        async with open_at(file) as database:
            writer = await database.acquire_writer()
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "other.db").symlink_to(file)
            async with open_at(tmp_path / "elsewhere" / "other.db") as other:
                with pytest.raises(ConfigurationError, match="another server writes to"):
                    await other.acquire_writer(wait=0)
            await writer.release()

    async def test_a_file_with_two_names_is_not_opened(self, file: Path, tmp_path: Path) -> None:
        """SQLite would keep a log for each name, and neither server would see what the other one wrote."""
        async with open_at(file):
            os.link(file, tmp_path / "other.db")
        for name in (file, tmp_path / "other.db"):
            with pytest.raises(ConfigurationError, match="has more than one name"):
                await open_at(name).open()

    async def test_without_its_lock_file_the_first_one_stops_for_ever(self, file: Path) -> None:
        async with open_at(file) as ours, open_at(file) as theirs:
            lost = await ours.acquire_writer()
            await lost.write(lambda connection: add(connection, "first"))
            file.with_name("realtime.db.lock").unlink()
            taken = await theirs.acquire_writer(wait=0)
            with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                await lost.write(lambda connection: add(connection, "lost"))
            await taken.write(lambda connection: add(connection, "second"))
            await taken.release()
            with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                await lost.write(lambda connection: add(connection, "lost"))
            await lost.release()
        assert rooms_of(file) == ["first", "second"]

    async def test_a_lock_file_of_somebody_else(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> int:
            raise PermissionError

        async with open_at(file) as database:
            with monkeypatch.context() as patched:
                patched.setattr("aibos_realtime.backends.sql.lock_file.os.open", refuse)
                with pytest.raises(ConfigurationError, match=r"realtime\.db\.lock, beside the database, may not be written"):
                    await database.acquire_writer()
            await (await database.acquire_writer(wait=0)).release()


class TestTheFile:
    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    async def test_nothing_is_acknowledged_that_is_in_no_file(self, file: Path, tmp_path: Path, how: str) -> None:
        async with open_at(tmp_path / "other.db"):
            pass
        async with open_at(file) as database:
            writer = await database.acquire_writer()
            await writer.write(add)
            os.rename(file, tmp_path / "away.db")
            if how == "replaced":
                (tmp_path / "other.db").rename(file)
            for act in (writer.write, database.write):
                with pytest.raises(StoreUnavailable, match=r"The file realtime\.db is not there any more, or was replaced"):
                    await act(lambda connection: add(connection, "lost"))
            (tmp_path / "away.db").rename(file)
            assert await writer.write(lambda connection: add(connection, "back")) == "back", "it was only away"
            await writer.release()
        assert rooms_of(file) == ["back", "lobby"]


def event(offset: int, epoch: str) -> LoggedEvent:
    return LoggedEvent("lobby", "note", b"1", f"{epoch}-{offset}", epoch, offset, 1_700_000_000_000 + offset)


class Server:
    """One run of what writes the log: `epoch` and `end` are those of the room at its start."""

    def __init__(self, store: SqlEventStore, epoch: str, end: int) -> None:
        self.store = store
        self.epoch = epoch
        self.end = end

    async def publish(self) -> None:
        self.end += 1
        await self.store.append(Batch([event(self.end, self.epoch)], frozenset(), {"lobby": Position(self.epoch, self.end)}))


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Server]:
    async with open_at(file) as database:
        store = SqlEventStore(database)
        fresh, ends = await store.open()
        head = ends.get("lobby", Position(fresh, 0))
        yield Server(store, head.epoch, head.offset)
        await store.close()


def back_up(file: Path, copy: Path) -> None:
    source, target = sqlite3.connect(file), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What the database said: not what other parts of the process did."""
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "aibos_realtime.database"]


class TestRestoring:
    async def test_a_backup_from_the_middle_of_a_run_gets_new_epochs_by_itself(
        self, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(file) as server:
            await server.publish()
            await asyncio.to_thread(back_up, file, tmp_path / "copy.db")
            await server.publish()
            epoch = server.epoch
        shutil.copyfile(tmp_path / "copy.db", file)
        async with serving(file) as server:
            assert server.epoch != epoch and server.end == 0, "offset 2 was given before"
            await server.publish()
            epoch = server.epoch
        assert [(level, text.partition(",")[0]) for level, text in told(caplog)] == [
            (logging.WARNING, "realtime.db is older than what was served from it")
        ]
        async with serving(file) as server:
            assert (server.epoch, server.end) == (epoch, 1), "once"
        shutil.copyfile(tmp_path / "copy.db", file)
        async with serving(file) as server:
            assert server.epoch != epoch and server.end == 0, "the same backup a second time"

    async def test_another_database_in_its_place(self, file: Path, tmp_path: Path) -> None:
        for name in (file, tmp_path / "other.db"):
            async with serving(name) as server:
                await server.publish()
                epoch = server.epoch
        (tmp_path / "other.db").rename(file)
        async with serving(file) as server:
            assert server.epoch != epoch and server.end == 0

    @pytest.mark.parametrize("taken_along", [True, False])
    async def test_a_database_that_was_moved_goes_on(self, file: Path, tmp_path: Path, taken_along: bool, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(file) as server:
            await server.publish()
            epoch = server.epoch
        (tmp_path / "new").mkdir()
        for name in ("realtime.db", "realtime.db.lock") if taken_along else ("realtime.db",):
            (tmp_path / name).rename(tmp_path / "new" / name)
        async with serving(tmp_path / "new" / "realtime.db") as server:
            assert (server.epoch, server.end) == (epoch, 1)
        assert not told(caplog)

    @pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\0" * 38])
    async def test_a_lock_file_that_says_nothing(self, file: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(file) as server:
            await server.publish()
            epoch = server.epoch
        file.with_name("realtime.db.lock").write_bytes(content)
        async with serving(file) as server:
            assert (server.epoch, server.end) == (epoch, 1)
        assert not told(caplog)

    async def test_beginning_anew_is_no_restore(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(file) as server:
            await server.publish()
        os.unlink(file)
        async with serving(file) as server:
            assert server.end == 0
        assert not told(caplog)

    async def test_what_was_not_committed_is_not_remembered(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving(file) as server:
            await server.publish()
            with pytest.raises(LookupError):
                await server.store._held.write(add_and_fail)
            await server.store.heads(["lobby"])
            epoch = server.epoch
        async with serving(file) as server:
            assert (server.epoch, server.end) == (epoch, 1)

    async def test_looking_in_is_cheap(self, file: Path) -> None:
        """Two short statements and two system calls: 0.03 ms of a commit's 0.3; the bound here is for a busy machine."""
        async with open_at(file) as database:

            def measure(connection: Connection) -> float:
                times = []
                for _ in range(200):
                    began = monotonic()
                    connection.exec_driver_sql(sqlite._GENERATION).scalar()
                    meta.count_commit(connection)
                    times.append(monotonic() - began)
                return sorted(times)[100]

            writer = await database.acquire_writer()
            assert await writer.write(measure) < 0.000_5
            await writer.release()


def is_locked(file: Path) -> bool:
    lock = os.path.realpath(f"{file}.lock")
    return lock in (os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd"))


class TestLettingGo:
    async def test_everything_is_in_the_one_file_afterwards(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two connections that close at once, neither brings the log of SQLite into the file; who moves that alone loses what is not in it."""
        steps: list[str] = []
        close = sqlite.Lane.close

        async def watched(lane: sqlite.Lane, limit: float) -> None:
            steps.append("begins")
            await close(lane, limit)
            steps.append("ends")

        monkeypatch.setattr(sqlite.Lane, "close", watched)
        async with open_at(file) as database:
            await database.write(add)
            await database.read(lambda connection: connection.exec_driver_sql("SELECT 1").all())
            assert file.with_name("realtime.db-wal").exists()
        assert steps == ["begins", "ends"] * 2
        assert not file.with_name("realtime.db-wal").exists()

    @pytest.mark.parametrize("how", ["fails", "is cancelled"])
    async def test_a_start_that_fails_can_be_repeated(self, file: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        reading = threading.Event()
        go_on = threading.Event()
        page_of_ends = events._page_of_ends

        def broken(connection: Connection, after: str | None) -> Any:
            reading.set()
            if how == "fails":
                raise StoreUnavailable("once")
            go_on.wait(5)
            return page_of_ends(connection, after)

        async with open_at(file) as database:
            store = SqlEventStore(database)
            with monkeypatch.context() as patched:
                patched.setattr(events, "_page_of_ends", broken)
                opening = asyncio.ensure_future(store.open())
                assert await asyncio.to_thread(reading.wait, 5)
                opening.cancel() if how == "is cancelled" else None
                await asyncio.wait([opening])
                go_on.set()
            assert opening.cancelled() or isinstance(opening.exception(), StoreUnavailable)
            assert not is_locked(file)
            await store.open()
            await store.close()
            assert not is_locked(file)

    async def test_cancelling_at_any_step_of_acquiring(self, file: Path) -> None:
        async with open_at(file) as database:
            for steps in range(12):
                acquiring = asyncio.ensure_future(database.acquire_writer(wait=0))
                for _ in range(steps):
                    await asyncio.sleep(0)
                acquiring.cancel()
                await asyncio.wait([acquiring])
                if not acquiring.cancelled():
                    await acquiring.result().release()
                await (await database.acquire_writer(wait=5)).release()
        assert not is_locked(file)

    async def test_closing_the_database_lets_go(self, file: Path) -> None:
        database = open_at(file)
        await database.open()
        writer = await database.acquire_writer()
        await database.close()
        assert not is_locked(file)
        await writer.release()
        async with database:
            await (await database.acquire_writer(wait=0)).release()

    async def test_a_disk_that_hangs_is_not_waited_for_and_keeps_the_lock(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "GRACE", 0.1)
        began, go_on = threading.Event(), threading.Event()

        def hang(connection: Connection) -> str:
            began.set()
            go_on.wait(10)
            return add(connection)

        database = open_at(file, statement_timeout=0.1)
        await database.open()
        writer = await database.acquire_writer()
        writing = asyncio.ensure_future(writer.write(hang))
        assert await asyncio.to_thread(began.wait, 5)
        try:
            async with asyncio.timeout(5):
                with pytest.raises(StoreUnavailable, match="took too long"):
                    await writing
                await writer.release()
                assert is_locked(file)
                await database.close()
            assert is_locked(file)
        finally:
            go_on.set()
        async with open_at(file) as other:
            await (await other.acquire_writer(wait=5)).release()
        await asyncio.to_thread(join, "aibos-realtime-close")
        assert rooms_of(file) == ["lobby"], "it was committed while nobody else could write"


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(5)
