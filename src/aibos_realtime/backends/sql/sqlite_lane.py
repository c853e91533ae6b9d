"""A lane of SQLite: threads with the connections that they alone use, and a transaction on one of them as something to await."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from ...errors import StoreUnavailable
from .database import Work
from .threads import Threads
from .urls import Place

T = TypeVar("T")

PlainWork = Callable[[sqlite3.Connection], T]
"""What happens in one transaction of the driver's own connection. Raising takes everything back."""

STEPS_BETWEEN_LOOKS = 20_000
LOCK_RETRY = 0.05


class Lane:
    """Threads with the connections that they alone use: one lane writes, one reads."""

    def __init__(self, place: Place, timeout: float, threads: int, *, is_writing: bool) -> None:
        self._limit = threading.local()
        self._place = place
        self._file = str(place.file.absolute()) if place.file is not None and is_writing else None
        self._opened: tuple[int, int] | None = None
        self._timeout = timeout
        self._threads = Threads(threads, f"aibos-realtime-{'write' if is_writing else 'read'}")
        self._driver: sqlite3.Connection | None = None
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

    async def run(self, work: Work[T], limit: float | None, committed: Callable[[T], None] | None = None) -> T:
        """One transaction, on one of the threads. It is given up after `limit` seconds, the wait for a free thread included; None: it has any time.

        `committed`: called with the result once it is durable, on the thread, before anything else happens there.
        """
        return await self._threads.run(partial(self._transact, work, limit is not None, committed), limit)

    async def run_plain(self, work: PlainWork[T], limit: float, committed: Callable[[T], None]) -> T:
        """As `run`, of the lane that writes, with the driver's own connection: SQLAlchemy costs more than the statements do."""
        return await self._threads.run(partial(self._transact_plain, work, committed), limit)

    def call_after(self, act: Callable[[], None]) -> Future[None]:
        """Call a function after whatever runs or waits on the one thread."""
        try:
            return self._threads.submit(act)
        except StoreUnavailable:  # it was closed
            act()
            done: Future[None] = Future()
            done.set_result(None)
            return done

    async def close(self, limit: float) -> None:
        """Wait for what is running, and disconnect; after `limit` seconds that goes on by itself."""
        ended: Future[None] = Future()

        def end() -> None:
            try:
                self._threads.join()
                self.engine.dispose()
            finally:
                ended.set_result(None)

        self._threads.close()
        # The loop would wait at its end for a thread of its own.
        threading.Thread(target=end, name="aibos-realtime-close", daemon=True).start()
        await wait(ended, limit)

    def _transact(self, work: Work[T], is_limited: bool, committed: Callable[[T], None] | None) -> T:
        self._limit.until = monotonic() + self._timeout if is_limited else None
        with self.engine.begin() as connection:
            self._check_place()
            result = work(connection)
        if committed is not None:
            committed(result)
        return result

    def _transact_plain(self, work: PlainWork[T], committed: Callable[[T], None]) -> T:
        assert self._driver is not None, "the schema was looked at"
        self._limit.until = monotonic() + self._timeout
        try:
            self._driver.execute("BEGIN IMMEDIATE")
            try:
                self._check_place()
                result = work(self._driver)
                self._driver.execute("COMMIT")
            except BaseException:
                self._driver.rollback()
                raise
        except sqlite3.Error as error:
            raise DBAPIError.instance(None, None, error, sqlite3.Error) from error
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
            self._driver = raw
        if self._file is not None:
            self._opened = _find_inode(self._file)


def _find_inode(file: str) -> tuple[int, int] | None:
    """Which file has a name now."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


async def wait(done: Future[None], limit: float) -> None:
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
