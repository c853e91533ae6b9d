"""SQLite: one thread that writes, a few that read beside it (WAL), a lock file for who writes the log: one server, or nodes of this machine.

A transaction ends by itself within its time: a wait for a lock by `busy_timeout`, a long statement by a look at the clock every few
thousand steps of SQLite's machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from ...errors import ConfigurationError, StoreUnavailable
from .database import LOST, Versions, Work, in_use
from .failures import unavailable_for
from .lock_file import LockFile, Mark
from .meta import Era, count_commit, find_generation, identity, join_era, next_generation, renew_epochs
from .options import DatabaseOptions
from .urls import Place
from .versions import find_version, upgrade

T = TypeVar("T")
W = TypeVar("W", bound="SqliteWriter")

logger = logging.getLogger("aibos_realtime.database")

READERS = 4
STEPS_BETWEEN_LOOKS = 20_000
GRACE = 1.0
"""Seconds beyond the statement time-out until a transaction that hangs in the disk is given up."""
LOCK_RETRY = 0.05

_NOT_A_DATABASE = 26
_GENERATION = "SELECT value FROM realtime_meta WHERE key = 'generation'"


class Lane:
    """Threads with the connections that they alone use: one lane writes, one reads."""

    def __init__(self, place: Place, timeout: float, threads: int, *, is_writing: bool) -> None:
        self._limit = threading.local()
        self._place = place
        self._file = place.file.absolute() if place.file is not None and is_writing else None
        self._opened: tuple[int, int] | None = None
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"aibos-realtime-{'write' if is_writing else 'read'}")
        self.engine = create_engine(
            f"sqlite+pysqlite:///{place.file}" if place.file else "sqlite+pysqlite://",
            poolclass=StaticPool if is_writing else QueuePool,
            connect_args={"timeout": timeout, "check_same_thread": False},  # closed by another thread, at the end
            hide_parameters=True,
            **({} if is_writing else {"pool_size": threads, "max_overflow": 0}),
        )
        begin = "BEGIN IMMEDIATE" if is_writing else "BEGIN"
        event.listen(self.engine, "connect", lambda raw, record: self._prepare(raw, is_writing))
        event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql(begin))

    async def run(self, work: Work[T], timeout: float | None, committed: Callable[[T], None] | None = None) -> T:
        """One transaction, on one of the threads. It is given up a little after `timeout`, the wait for a free thread included.

        `committed`: called with the result once it is durable, on the thread, before anything else happens there.
        """
        try:
            running = self._pool.submit(self._transact, work, timeout, committed)
        except RuntimeError as error:
            raise StoreUnavailable("The database was closed.") from error
        async with asyncio.timeout(None if timeout is None else timeout + GRACE):
            return await asyncio.wrap_future(running)

    def call_after(self, act: Callable[[], None]) -> Future[None]:
        """Call a function after whatever runs or waits on the one thread."""
        try:
            return self._pool.submit(act)
        except RuntimeError:  # it was closed
            act()
            done: Future[None] = Future()
            done.set_result(None)
            return done

    async def close(self, limit: float) -> None:
        """Wait for what is running, and disconnect; after `limit` seconds that goes on by itself."""
        ended: Future[None] = Future()

        def end() -> None:
            try:
                self._pool.shutdown()
                self.engine.dispose()
            finally:
                ended.set_result(None)

        # The loop would wait at its end for a thread of its own.
        threading.Thread(target=end, name="aibos-realtime-close", daemon=True).start()
        await _wait(ended, limit)

    def _transact(self, work: Work[T], timeout: float | None, committed: Callable[[T], None] | None) -> T:
        self._limit.until = None if timeout is None else monotonic() + timeout
        with self.engine.begin() as connection:
            self._check_place()
            result = work(connection)
        if committed is not None:
            committed(result)
        return result

    def _check_place(self) -> None:
        """A file that was deleted can be written to, and nobody will ever read that."""
        if self._file is not None and self._opened != _find_inode(self._file):
            raise StoreUnavailable(f"The file {self._place.name} is not there any more, or was replaced: start the server again.")

    def _is_over(self) -> bool:
        return self._limit.until is not None and monotonic() > self._limit.until

    def _prepare(self, raw: Any, is_writing: bool) -> None:
        raw.isolation_level = None  # the driver begins nothing by itself
        raw.set_progress_handler(self._is_over, STEPS_BETWEEN_LOOKS)
        pragmas = ["foreign_keys = ON", "temp_store = MEMORY"]
        # FULL: a commit is on the disk before it is told. The log is cut back to 64 MB after a burst.
        pragmas += ["synchronous = FULL", "journal_size_limit = 67108864"] if is_writing else ["query_only = ON"]
        for pragma in pragmas:
            raw.execute(f"PRAGMA {pragma}").close()
        if is_writing:
            _switch_to_wal(raw, monotonic() + self._timeout)
        if self._file is not None:
            self._opened = _find_inode(self._file)


def _find_inode(file: Path) -> tuple[int, int] | None:
    """Which file has a name now."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


async def _wait(done: Future[None], limit: float) -> None:
    """Wait for what a thread does, for `limit` seconds at most. It is never cancelled."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[None]) -> None:
        with suppress(RuntimeError):  # the loop ended meanwhile
            loop.call_soon_threadsafe(ended.set)

    done.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await ended.wait()


def _switch_to_wal(raw: Any, until: float) -> None:
    """The journal of the file. SQLite does not wait for others by itself here: two may open a new file at the same moment."""
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError:
            if monotonic() > until:
                raise
            sleep(LOCK_RETRY)
        else:
            return


class SqliteConnections:
    """See `database.Connections`. In memory there is one connection, and reading happens on the writing thread."""

    def __init__(self, place: Place, options: DatabaseOptions) -> None:
        self._place = place
        self._timeout = options.statement_timeout
        self._writing = Lane(place, options.statement_timeout, 1, is_writing=True)
        self._reading = Lane(place, options.statement_timeout, min(options.pool_size, READERS), is_writing=False) if place.file else self._writing
        self.writer: SqliteWriter | None = None

    @property
    def limit(self) -> float:
        """Seconds after which nothing of ours is running, unless it hangs in the disk."""
        return self._timeout + GRACE

    async def open(self) -> None:
        await self.upgrade()

    async def upgrade(self) -> Versions:
        self._check_file()
        return await self._meet(self._writing, lambda connection: upgrade(connection, self._place.shown))

    async def find_version(self) -> str | None:
        self._check_file()
        if self._place.file is None or not self._place.file.exists():
            return None
        return await self._meet(self._reading, find_version)

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.let_go()
        until = monotonic() + self.limit
        if self._reading is not self._writing:
            await self._reading.close(self.limit)
        # Last, and alone: only so does SQLite bring what is in its log into the file. Of two that close at once, neither does.
        await self._writing.close(until - monotonic())

    async def write(self, work: Work[T], committed: Callable[[T], None] | None = None) -> T:
        with unavailable_for(self._place.name):
            return await self._writing.run(work, self._timeout, committed)

    def call_after_writes(self, act: Callable[[], None]) -> Future[None]:
        """Call a function on the writing thread, after whatever it still has to do, also what nobody waits for any more."""
        return self._writing.call_after(act)

    async def read(self, work: Work[T]) -> T:
        with unavailable_for(self._place.name):
            return await self._reading.run(work, self._timeout)

    async def listen(self, channel: str, ring: Callable[[], None]) -> None:
        ring()
        await asyncio.Event().wait()

    async def acquire_writer(self, wait: float) -> SqliteWriter:
        return await self._acquire(SqliteWriter(self, self._place), wait)

    async def acquire_share(self, wait: float, group: str | None) -> SqliteShare:
        return await self._acquire(SqliteShare(self, self._place), wait)

    async def _acquire(self, writer: W, wait: float) -> W:
        until = monotonic() + wait
        while self.writer is not None or not writer.try_lock():
            if monotonic() > until:
                raise in_use(self._place.shown, is_shared=self.writer is None and writer.is_kept_by_shares(), is_wanted_alone=not writer.IS_SHARED)
            await asyncio.sleep(LOCK_RETRY)
        self.writer = writer
        try:
            await writer.take_over()
        except BaseException:
            await writer.release()
            raise
        return writer

    async def _meet(self, lane: Lane, work: Work[T]) -> T:
        """The first transaction in a file, which may be anything; it has no time limit."""
        try:
            with unavailable_for(self._place.name):
                return await lane.run(work, None)
        except StoreUnavailable as error:
            if getattr(getattr(error.__cause__, "orig", None), "sqlite_errorcode", None) == _NOT_A_DATABASE:
                raise ConfigurationError(f"database.url: {self._place.shown} is no SQLite database") from None
            raise

    def _check_file(self) -> None:
        """SQLite says the same for everything that is wrong with a path."""
        file = self._place.file
        if file is None:
            return
        if not file.parent.is_dir():
            raise ConfigurationError(f"database.url: the directory of {self._place.shown} does not exist: make it, or name another file")
        if file.is_dir():
            raise ConfigurationError(f"database.url: {self._place.shown} is a directory; the name of a file is needed")
        if file.exists() and file.stat().st_nlink > 1:
            # SQLite's log has the name of the database: under two names there would be two (manual, "How To Corrupt", 2.5).
            raise ConfigurationError(f"database.url: {self._place.shown} has more than one name (hard links): copy it, or remove the others")
        # Beside the database SQLite keeps its log and we our lock.
        if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.R_OK | os.W_OK)):
            raise ConfigurationError(f"database.url: {self._place.shown}, or its directory, is read-only for this process")


class SqliteWriter:
    """See `database.Writer`. The right is a lock file's; a database in memory has no file, and no other process.

    A lock file can be removed, so the generation is looked at in each transaction too.
    """

    IS_SHARED = False

    def __init__(self, connections: SqliteConnections, place: Place) -> None:
        self.generation = 0
        self.is_lost = False
        self._connections = connections
        self._place = place
        self._identity = ""
        self._lock = LockFile(place.file) if place.file is not None else None

    def try_lock(self) -> bool:
        """Take the right, unless another process, or another `Database` of this one, has it."""
        if self._lock is None:
            return True
        with unavailable_for(self._place.name):
            return self._lock.try_lock(is_shared=self.IS_SHARED)

    def is_kept_by_shares(self) -> bool:
        """Whether nodes share what could not be had."""
        if self._lock is None or self.IS_SHARED or not self._lock.try_lock(is_shared=True):
            return False
        self._lock.close()
        return True

    async def take_over(self) -> None:
        """Count one more writer; and where the database is older than what was served from it, begin new epochs in all rooms."""

        def work(connection: Connection) -> tuple[int, bool]:
            commits, is_older = self._count(connection)
            self.generation = next_generation(connection)
            if is_older:
                renew_epochs(connection)
            return commits, is_older

        _, is_older = await self._connections.write(work, lambda done: self._remember(done[0]))
        if is_older:
            told = "%s is older than what was served from it, as a restored backup is: every room begins a new epoch, and clients reload"
            logger.warning(told, self._place.name)

    def _count(self, connection: Connection) -> tuple[int, bool]:
        """Count one more transaction: how many there were, and whether the database is older than what the lock file remembers."""
        last = self._lock.read() if self._lock is not None else None
        self._identity, commits = identity(connection), count_commit(connection)
        if last is None or find_generation(connection) == 0:  # it is a new one, perhaps in the place of another
            return commits, False
        return commits, last.identity != self._identity or last.commits >= commits + self.IS_SHARED

    def check(self, connection: Connection) -> None:
        """Raise `StoreUnavailable` unless the right is still ours."""
        if self.is_lost or connection.exec_driver_sql(_GENERATION).scalar() != str(self.generation):
            self.is_lost = True
            raise StoreUnavailable(LOST)

    async def write(self, work: Work[T]) -> T:
        def guarded(connection: Connection) -> tuple[T, int | None]:
            self.check(connection)
            driver: Any = connection.connection.driver_connection
            before = driver.total_changes
            result = work(connection)
            return result, count_commit(connection) if driver.total_changes != before else None

        result, _ = await self._connections.write(guarded, lambda done: self._remember(done[1]))
        return result

    async def release(self) -> None:
        await _wait(self.let_go(), GRACE)  # unless the disk hangs, it takes as long as what others are writing

    def let_go(self) -> Future[None]:
        """Begin to release: what still hangs in the disk keeps the lock until it has ended."""
        if self._connections.writer is self:
            self._connections.writer = None
        return self._connections.call_after_writes(self._end)

    def _remember(self, commits: int | None) -> None:
        if self._lock is not None and commits is not None:
            self._lock.write(Mark(self._identity, commits))

    def _end(self) -> None:
        self.is_lost = True
        if self._lock is not None:
            self._lock.close()


class SqliteShare(SqliteWriter):
    """See `database.Share`. Its transactions are not counted: an older copy is known by that only where positions are given from it."""

    IS_SHARED = True
    era = ""

    async def take_over(self) -> None:
        def work(connection: Connection) -> Era:
            commits, is_older = self._count(connection)
            era = join_era(connection, is_new=is_older)
            # Within the transaction: the next node must see it. It may remember one that is not committed then, which `_count` lets pass.
            self._remember(commits)
            return era

        self.generation, self.era = await self._connections.write(work)

    async def write(self, work: Work[T]) -> T:
        def guarded(connection: Connection) -> T:
            self.check(connection)
            return work(connection)

        return await self._connections.write(guarded)
