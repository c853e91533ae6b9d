"""Nodes that share a database: what happens to the right when sessions, lock files and copies come and go, and two processes at one SQLite file."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text

from aibos_realtime import Position
from aibos_realtime.backends.base import Batch, LoggedEvent
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.backends.sql.schema import messages
from aibos_realtime.errors import ConfigurationError, StoreUnavailable
from tests.unit.backends.sql.test_sqlite import back_up


def event(offset: int, epoch: str = "e1", room: str = "lobby") -> LoggedEvent:
    return LoggedEvent(room, "note", b"1", f"{epoch}-{offset}", epoch, offset, 1_700_000_000_000 + offset)


async def append(store: SqlEventStore, *events: LoggedEvent) -> None:
    await store.append_once(list(events), frozenset())


async def count(database: Database) -> int:
    return await database.read(lambda connection: connection.scalar(select(func.count()).select_from(messages)) or 0)


async def share_again(store: SqlEventStore) -> str:
    """As soon as PostgreSQL has noticed that the session of the other one ended."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.share()
            except StoreUnavailable:
                continue


async def end_sessions(database: Database) -> None:
    """Those that hold a lock of this database end, as by an administrator or a restart."""
    ours = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    end = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND database = {ours}"
    await database.write(lambda connection: connection.execute(text(end)).all())


class TestALostSession:
    async def test_is_made_again(self, postgres_url: str) -> None:
        async with Database(postgres_url) as ours, Database(postgres_url) as others:
            store = SqlEventStore(ours)
            era = await store.share()
            await end_sessions(others)
            with pytest.raises(StoreUnavailable):
                await append(store, event(1))
            await append(store, event(1))
            assert await store.share() == era
            with pytest.raises(ConfigurationError, match="nodes with scaling.enabled"):
                await others.acquire_writer(wait=0)
            await store.close()

    async def test_making_sure_makes_it_again(self, postgres_url: str) -> None:
        """A node that has nothing to write notices too."""
        async with Database(postgres_url) as ours, Database(postgres_url) as others:
            store = SqlEventStore(ours)
            era = await store.share()
            await end_sessions(others)
            with pytest.raises(StoreUnavailable):
                await store.share()
            assert await store.share() == era
            with pytest.raises(ConfigurationError, match="nodes with scaling.enabled"):
                await others.acquire_writer(wait=0)
            await store.close()


class TestAServerThatWroteAloneMeanwhile:
    async def lose(self, database: Database, url: str) -> None:
        if database.file is None:
            await end_sessions(database)
        else:
            database.file.with_name(f"{database.file.name}.lock").unlink()

    async def test_ends_the_era(self, store_url: str) -> None:
        async with Database(store_url, statement_timeout=1) as ours, Database(store_url) as theirs:
            store, alone = SqlEventStore(ours), SqlEventStore(theirs)
            era = await store.share()
            await append(store, event(1))
            await self.lose(ours, store_url)
            epoch, ends = await alone.open()
            assert ends == {}
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await append(store, event(2))
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="Another server writes to this database now"):
                    await store.share()
            await alone.append(Batch([event(1, epoch)], frozenset(), {"lobby": Position(epoch, 1)}))
            await alone.close()
            with pytest.raises(StoreUnavailable):
                await append(store, event(2))
            assert await count(theirs) == 2, "nothing was written beside him, nor before the nodes know of him"
            again = await share_again(store)
            assert again != era
            await append(store, event(2))
            assert await store.share() == again
            assert await store.heads(["lobby"]) == {"lobby": Position("e1", 2)}
            await store.close()

    async def test_and_a_node_ends_the_right_of_one_whose_lock_was_taken_away(self, store_url: str) -> None:
        async with Database(store_url) as ours, Database(store_url) as theirs:
            alone, store = SqlEventStore(ours), SqlEventStore(theirs)
            epoch, _ = await alone.open()
            await self.lose(ours, store_url)
            await store.share()
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await alone.append(Batch([event(1, epoch)], frozenset(), {"lobby": Position(epoch, 1)}))
            assert await count(theirs) == 0
            await alone.close()
            await store.close()


async def share_once(file: Path, *events: LoggedEvent) -> str:
    async with Database(f"sqlite:///{file}") as database:
        store = SqlEventStore(database)
        era = await store.share()
        if events:
            await append(store, *events)
        await store.close()
    return era


async def serve_alone(file: Path, number: int) -> tuple[str, int]:
    """Publish; which epoch the room had, and where it ended before."""
    async with Database(f"sqlite:///{file}") as database:
        store = SqlEventStore(database)
        fresh, ends = await store.open()
        head = ends.get("lobby", Position(fresh, 0))
        for offset in range(head.offset + 1, head.offset + number + 1):
            await store.append(Batch([event(offset, head.epoch)], frozenset(), {"lobby": Position(head.epoch, offset)}))
        await store.close()
    return head.epoch, head.offset


class TestRestoring:
    async def test_a_copy_from_before_somebody_served_alone_is_of_a_new_era(self, tmp_path: Path) -> None:
        file = tmp_path / "realtime.db"
        era = await share_once(file, event(1))
        await asyncio.to_thread(back_up, file, tmp_path / "copy.db")
        await serve_alone(file, 1)
        shutil.copyfile(tmp_path / "copy.db", file)
        anew = await share_once(file)
        assert anew != era
        assert await share_once(file, event(2)) == anew, "once"

    @pytest.mark.parametrize("shared_first", [True, False])
    async def test_a_copy_from_before_nodes_shared_it(self, tmp_path: Path, shared_first: bool, caplog: pytest.LogCaptureFixture) -> None:
        file = tmp_path / "realtime.db"
        if shared_first:
            await share_once(file, event(1))
        epoch, _ = await serve_alone(file, 3)
        await asyncio.to_thread(back_up, file, tmp_path / "copy.db")
        await share_once(file, event(2))
        shutil.copyfile(tmp_path / "copy.db", file)
        caplog.set_level(logging.WARNING, "aibos_realtime.database")
        found, end = await serve_alone(file, 1)
        assert found != epoch and end == 0, "nodes published since, and nobody may take this for the same log"
        assert "is older than what was served from it" in caplog.text


PROGRAM = """
import asyncio, sys
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from tests.unit.backends.sql.test_sharing import event

async def main(url, first, last):
    async with Database(url) as database:
        store = SqlEventStore(database)
        print(await store.share(), flush=True)
        sys.stdin.readline()
        for offset in range(first, last, 5):
            await store.append_once([event(one) for one in range(offset, offset + 10)], frozenset())
        await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


async def test_two_processes_at_one_sqlite_file(tmp_path: Path) -> None:
    """Their stretches overlap, each its own batches and each the other's; both begin at the same moment."""
    url = f"sqlite:///{tmp_path}/realtime.db"
    pipe = asyncio.subprocess.PIPE
    ends = [(1, 301), (101, 401)]
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, *map(str, bounds), stdin=pipe, stdout=pipe) for bounds in ends
    ]
    try:
        async with asyncio.timeout(40):
            eras = {await process.stdout.readline() for process in processes if process.stdout is not None}
            assert len(eras) == 1
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            assert [await process.wait() for process in processes] == [0, 0]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    async with Database(url) as database:

        def read(connection: Connection) -> list[tuple[str, int]]:
            found = connection.execute(select(messages.c.message_id, messages.c.log_offset).order_by(messages.c.log_offset))
            return [(row.message_id, row.log_offset) for row in found]

        assert await database.read(read) == [(f"e1-{offset}", offset) for offset in range(1, 406)]


async def test_closing_the_database_lets_go(store_url: str) -> None:
    database = Database(store_url)
    await database.open()
    share = await database.acquire_share()
    await database.close()
    async with Database(store_url) as other:
        await (await other.acquire_writer(wait=5)).release()
    await share.release()


async def test_cancelling_at_any_step_of_acquiring(store_url: str) -> None:
    async with Database(store_url) as database, Database(store_url) as other:
        for steps in range(12):
            acquiring = asyncio.ensure_future(database.acquire_share(wait=0))
            for _ in range(steps):
                await asyncio.sleep(0)
            acquiring.cancel()
            await asyncio.wait([acquiring])
            if not acquiring.cancelled():
                await acquiring.result().release()
            await (await other.acquire_writer(wait=5)).release()
