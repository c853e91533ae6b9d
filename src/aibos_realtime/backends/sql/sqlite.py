"""SQLite: one thread that writes, a few that read beside it (WAL), a lock file for who writes the log: one server, or nodes of this machine.

A transaction ends by itself within its time: a wait for a lock by `busy_timeout`, a long statement by a look at the clock every few
thousand steps of SQLite's machine.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection

from ...errors import ConfigurationError, StoreUnavailable
from ...logs import get_logger
from .database import LOST, Statement, Versions, Work, in_use
from .failures import StoreErrors
from .lock_file import LockFile, Mark
from .meta import COMMITS, GENERATION, Era, count_commit, find_generation, identity, join_era, next_generation, renew_epochs
from .options import DatabaseOptions
from .sqlite_lane import LOCK_RETRY, PlainWork, wait
from .sqlite_lane import Lane as Lane
from .urls import Place
from .versions import find_version, upgrade

T = TypeVar("T")
W = TypeVar("W", bound="SqliteWriter")

logger = get_logger("aibos_realtime.database")

READERS = 4
GRACE = 1.0
"""Seconds beyond the statement time-out until a transaction that hangs in the disk is given up."""

_NOT_A_DATABASE = 26
_GENERATION = f"SELECT value FROM realtime_meta WHERE key = '{GENERATION}'"
_COUNT_WHILE_OURS = (
    f"UPDATE realtime_meta SET value = CAST(value AS INTEGER) + 1 WHERE key = '{COMMITS}'"
    f" AND EXISTS (SELECT 1 FROM realtime_meta WHERE key = '{GENERATION}' AND value = ?) RETURNING value"
)
"""`SqliteWriter.check` and `count_commit` in one statement: nothing comes back where the right is somebody else's."""


class SqliteConnections:
    """See `database.Connections`. In memory there is one connection, and reading happens on the writing thread."""

    def __init__(self, place: Place, options: DatabaseOptions) -> None:
        self._place = place
        self._errors = StoreErrors(place.name)
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
        with self._errors:
            return await self._writing.run(work, self.limit, committed)

    async def write_plain(self, work: PlainWork[T], committed: Callable[[T], None]) -> T:
        """As `write`, on the driver's own connection."""
        with self._errors:
            return await self._writing.run_plain(work, self.limit, committed)

    def call_after_writes(self, act: Callable[[], None]) -> Future[None]:
        """Call a function on the writing thread, after whatever it still has to do, also what nobody waits for any more."""
        return self._writing.call_after(act)

    async def read(self, work: Work[T]) -> T:
        with self._errors:
            return await self._reading.run(work, self.limit)

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
            with self._errors:
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
        self._errors = StoreErrors(place.name)
        self._identity = ""
        self._lock = LockFile(place.file) if place.file is not None else None

    def try_lock(self) -> bool:
        """Take the right, unless another process, or another `Database` of this one, has it."""
        if self._lock is None:
            return True
        with self._errors:
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

    async def execute(self, *statements: Statement) -> None:
        def guarded(driver: sqlite3.Connection) -> int:
            counted = driver.execute(_COUNT_WHILE_OURS, (str(self.generation),)).fetchone()
            if self.is_lost or counted is None:
                self.is_lost = True
                raise StoreUnavailable(LOST)
            for text, rows in statements:
                driver.executemany(text, rows)
            return int(counted[0])

        await self._connections.write_plain(guarded, self._remember)

    async def release(self) -> None:
        await wait(self.let_go(), GRACE)  # unless the disk hangs, it takes as long as what others are writing

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
