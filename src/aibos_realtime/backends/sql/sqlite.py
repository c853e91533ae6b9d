"""SQLite: one thread that writes, a few that read beside it (WAL), a lock file for the one server that writes the log.

A transaction ends by itself within its time: a wait for a lock by `busy_timeout`, a long statement by a look at the clock every few
thousand steps of SQLite's machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from ...errors import ConfigurationError, StoreUnavailable
from .database import Versions, Work
from .failures import unavailable_for
from .meta import next_generation
from .options import DatabaseOptions
from .urls import Place
from .versions import find_version, upgrade

T = TypeVar("T")

READERS = 4
STEPS_BETWEEN_LOOKS = 20_000
GRACE = 1.0
"""Seconds beyond the statement time-out until a transaction that hangs in the disk is given up."""
LOCK_RETRY = 0.05

_NOT_A_DATABASE = 26


class Lane:
    """Threads with the connections that they alone use: one lane writes, one reads."""

    def __init__(self, place: Place, timeout: float, threads: int, *, is_writing: bool) -> None:
        self._limit = threading.local()
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

    async def run(self, work: Work[T], timeout: float | None) -> T:
        """One transaction, on one of the threads. It is given up a little after `timeout`, the wait for a free thread included."""
        try:
            running = self._pool.submit(self._transact, work, timeout)
        except RuntimeError as error:
            raise StoreUnavailable("The database was closed.") from error
        async with asyncio.timeout(None if timeout is None else timeout + GRACE):
            return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Wait for what is running, and disconnect. Blocks."""
        self._pool.shutdown()
        self.engine.dispose()

    def _transact(self, work: Work[T], timeout: float | None) -> T:
        self._limit.until = None if timeout is None else monotonic() + timeout
        with self.engine.begin() as connection:
            return work(connection)

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
        for lane in {self._reading, self._writing}:
            await asyncio.to_thread(lane.close)

    async def write(self, work: Work[T]) -> T:
        with unavailable_for(self._place.name):
            return await self._writing.run(work, self._timeout)

    async def read(self, work: Work[T]) -> T:
        with unavailable_for(self._place.name):
            return await self._reading.run(work, self._timeout)

    async def listen(self, channel: str, ring: Callable[[], None]) -> None:
        ring()
        await asyncio.Event().wait()

    async def acquire_writer(self, wait: float) -> SqliteWriter:
        writer = SqliteWriter(self)
        until = monotonic() + wait
        while self.writer is not None or not writer.try_lock(self._place):
            if monotonic() > until:
                raise ConfigurationError(f"database.url: another server writes to {self._place.shown}; stop it, or use another database")
            await asyncio.sleep(LOCK_RETRY)
        self.writer = writer
        try:
            writer.generation = await self.write(next_generation)
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
        # Beside the database SQLite keeps its log and we our lock.
        if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.R_OK | os.W_OK)):
            raise ConfigurationError(f"database.url: {self._place.shown}, or its directory, is read-only for this process")


class SqliteWriter:
    """See `database.Writer`. The right is an `flock`, which ends with the process; a database in memory has no file, and no other process."""

    def __init__(self, connections: SqliteConnections) -> None:
        self.generation = 0
        self._connections = connections
        self._descriptor: int | None = None

    def try_lock(self, place: Place) -> bool:
        """Take the right, unless another process, or another `Database` of this one, has it."""
        if place.file is None:
            return True
        path = place.file.with_name(f"{place.file.name}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    async def write(self, work: Work[T]) -> T:
        return await self._connections.write(work)

    async def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        if self._connections.writer is self:
            self._connections.writer = None
