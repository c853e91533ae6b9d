"""PostgreSQL through asyncpg: a pool for everybody, and one connection whose session holds the lock of who writes the log: one server
alone, or a node beside others.

A statement is ended by the server after its time; where the server itself is out of reach, the connection is cut a little later. Behind pgbouncer:
session pooling, since the lock and LISTEN belong to a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar
from zlib import crc32

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from ...errors import ConfigurationError, StoreUnavailable
from .database import LOST, Statement, Versions, Work, in_other_hands, in_use
from .failures import StoreErrors
from .meta import find_generation, join_era, join_group, next_generation
from .options import DatabaseOptions
from .urls import Place
from .versions import find_version, require_current, upgrade

try:
    import asyncpg  # type: ignore[import-untyped]
except ImportError:
    raise ConfigurationError('database.url: PostgreSQL needs a driver that is not installed: pip install "aibos-realtime[postgres]"') from None

T = TypeVar("T")
W = TypeVar("W", bound="PostgresWriter")

GRACE = 0.5
"""Seconds beyond the statement time-out until a connection that says nothing is cut."""
LOCK_RETRY = 0.05
AT_ONCE = 1.0
"""Seconds within which a read on a connection that was lost is done again on another one."""

_LOG, _SCHEMA, _ERA = "1633444467, 1", "1633444467, 2", "1633444467, 3"
"""Keys of advisory locks, which are per database: "aibs" as a number, and what is locked."""

_GROUPS = "1633444468"
"""The same for the groups of nodes that share the log, each with a number of its own."""
_LIVES = text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND classid = {_GROUPS} AND objid = :group)"
)

_TRY_SHARE = f"SELECT pg_try_advisory_lock_shared({_LOG})"

_MISTAKES = {
    "28P01": "does not take this password",
    "28000": "does not let this user in",
    "3D000": "has no such database",
    "42501": "denies this user the rights to its tables",
    "42704": "does not know a parameter of the URL",
    "22023": "does not take a parameter of the URL",
}
"""By SQLSTATE, what an operator has to mend: trying again would not help."""


class PostgresConnections:
    """See `database.Connections`."""

    def __init__(self, place: Place, options: DatabaseOptions) -> None:
        self._place = place
        self.errors = StoreErrors(place.name)
        self.timeout = options.statement_timeout
        pool: dict[str, Any] = {"poolclass": AsyncAdaptedQueuePool, "pool_size": max(1, options.pool_size // 2), "max_overflow": 0}
        common: dict[str, Any] = pool | {"pool_timeout": options.statement_timeout, "hide_parameters": True}
        self._writing = create_async_engine("postgresql+asyncpg://", async_creator=self.connect, **common)
        # At READ COMMITTED each statement sees what is committed when it begins, in a transaction or not: without one, it is one round trip of three.
        reader = partial(self.connect, default_transaction_read_only="on")
        self._reading = create_async_engine("postgresql+asyncpg://", async_creator=reader, isolation_level="AUTOCOMMIT", **common)
        self._writer: PostgresWriter | None = None

    @property
    def name(self) -> str:
        """How error texts name the database."""
        return self._place.name

    async def connect(self, *, is_limited: bool = True, **settings: str) -> asyncpg.Connection:
        """A connection of its own; whoever asked for it closes it. `is_limited`: its statements have the configured time, else any.

        `settings`: of the session. Raises `StoreUnavailable`.
        """
        limit = self.timeout if is_limited else None
        settings |= {"application_name": "aibos-realtime", "statement_timeout": str(int((limit or 0) * 1000))}
        try:
            # The driver's own time-out comes last: it asks a server out of reach to cancel, and then takes two more seconds to say good-bye.
            command_timeout = limit + 2 * GRACE if limit else None
            return await asyncpg.connect(self._place.dsn, timeout=self.timeout, command_timeout=command_timeout, server_settings=settings)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable(f"The database {self.name} does not answer: try again later.") from error
        except ValueError:  # of the driver's own parser, whose words may quote the password
            raise ConfigurationError(f"database.url: {self._place.shown} is nothing that the driver can read") from None

    async def open(self) -> None:
        with _Explained(self._place.shown):
            await self.read(lambda connection: require_current(connection, self._place.shown))

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.release()
        # The pool says good-bye to each connection, and a server out of reach does not answer.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                await self._writing.dispose()
                await self._reading.dispose()

    async def find_version(self) -> str | None:
        with _Explained(self._place.shown):
            return await self.read(find_version)

    async def upgrade(self) -> Versions:
        def work(connection: Connection) -> Versions:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_SCHEMA})"))
            return upgrade(connection, self._place.shown)

        engine = create_async_engine("postgresql+asyncpg://", async_creator=partial(self.connect, is_limited=False), hide_parameters=True)
        try:
            with _Explained(self._place.shown), self.errors:
                async with engine.begin() as connection:
                    return await connection.run_sync(work)
        finally:
            await engine.dispose()

    async def write(self, work: Work[T]) -> T:
        with self.errors:
            async with self._writing.connect() as connection:
                return await self.transact(connection, work)

    async def read(self, work: Work[T]) -> T:
        began = monotonic()
        with self.errors:
            try:
                return await self._read(work)
            except DBAPIError as error:
                # A connection from before a restart of the server; the pool has dropped it, and its like.
                if not error.connection_invalidated or monotonic() - began > AT_ONCE:
                    raise
                return await self._read(work)

    async def _read(self, work: Work[T]) -> T:
        async with self._reading.connect() as connection:
            return await self.transact(connection, work)

    async def transact(self, connection: AsyncConnection, work: Work[T]) -> T:
        """One transaction. Its connection is cut when it takes so long that the server cannot be there."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        cut = asyncio.get_running_loop().call_later(self.timeout + GRACE, driver.terminate)
        try:
            async with connection.begin():
                return await connection.run_sync(work)
        finally:
            cut.cancel()

    async def execute(self, connection: AsyncConnection, statement: Statement) -> None:
        """One statement as its own transaction, on the driver's connection, within the same time."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        words, (values,) = statement
        cut = asyncio.get_running_loop().call_later(self.timeout + GRACE, driver.terminate)
        try:
            await driver.execute(words, *values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # the last: the server ended the session
            raise DBAPIError(None, None, error, hide_parameters=True) from error
        finally:
            cut.cancel()

    async def acquire_writer(self, wait: float) -> PostgresWriter:
        return await self._acquire(PostgresWriter(self, self._place), wait)

    async def acquire_share(self, wait: float, group: str | None) -> PostgresShare:
        return await self._acquire(PostgresShare(self, self._place, group), wait)

    async def _acquire(self, writer: W, wait: float) -> W:
        try:
            await writer.acquire(wait)
        except BaseException:
            await writer.release()
            raise
        self._writer = writer
        return writer

    async def listen(self, channel: str, ring: Callable[[], None]) -> None:
        connection = await self.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(channel, lambda *_: ring())
            ring()
            await lost.wait()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable(f"The database {self.name} does not answer: try again later.") from error
        finally:
            connection.terminate()
        raise StoreUnavailable(f"The database {self.name} has closed the connection for its notices.")

    async def connect_alone(self) -> AsyncConnection:
        """A connection outside the pool, which closing disconnects. Raises `StoreUnavailable`."""
        engine = create_async_engine("postgresql+asyncpg://", async_creator=self.connect, poolclass=NullPool, hide_parameters=True)
        return await engine.connect()


class PostgresWriter:
    """See `database.Writer`. The right is an advisory lock of one session, and every write goes through that session.

    Where the session was lost, the next write makes a new one, ends what the server still has of the old, and goes on unless somebody else had the
    right in between.
    """

    try_lock = f"SELECT pg_try_advisory_lock({_LOG})"

    def __init__(self, connections: PostgresConnections, place: Place) -> None:
        self.generation = 0
        self.is_lost = False
        self._connections = connections
        self._place = place
        self._session: AsyncConnection | None = None
        self._backend: tuple[int, Any] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def acquire(self, wait: float) -> None:
        """Get the right for the first time. Raises `ConfigurationError` where others keep it for `wait` seconds."""
        with self._connections.errors:
            self._session = await self._connections.connect_alone()
            if not await self._lock(self._session, wait):
                raise await self._in_use(self._session)
            until = monotonic() + wait
            while not await self._connections.transact(self._session, self._begin):
                if monotonic() > until:
                    raise in_other_hands(self._place.shown)
                await asyncio.sleep(LOCK_RETRY)

    async def _in_use(self, session: AsyncConnection) -> ConfigurationError:
        is_shared = await self._connections.transact(session, lambda connection: bool(connection.scalar(text(_TRY_SHARE))))
        return in_use(self._place.shown, is_shared=is_shared, is_wanted_alone=True)

    def _begin(self, connection: Connection) -> bool:
        """Whether the right, which is there, can be taken up."""
        self.generation = next_generation(connection)
        return True

    async def write(self, work: Work[T]) -> T:
        return await self._act(lambda session: self._connections.transact(session, work))

    async def execute(self, *statements: Statement) -> None:
        if [len(rows) for _, rows in statements] == [1]:  # it is its own transaction: one round trip instead of three
            await self._act(lambda session: self._connections.execute(session, statements[0]))
            return

        def work(connection: Connection) -> None:
            for words, rows in statements:
                for values in rows:
                    connection.exec_driver_sql(words, values)

        await self.write(work)

    async def _act(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._one_at_a_time:
            try:
                with self._connections.errors:
                    if self._session is None:
                        self._session = await self._reconnect()
                    return await act(self._session)
            except (StoreUnavailable, asyncio.CancelledError):
                # What became of the transaction is not known: the session that may still be at it must end before the next one begins.
                await self._disconnect()
                raise

    async def release(self) -> None:
        self.is_lost = True
        await self._disconnect()

    async def _reconnect(self) -> AsyncConnection:
        if self.is_lost:
            raise StoreUnavailable(LOST)
        session = await self._connections.connect_alone()
        try:
            await self._connections.transact(session, self._end_old_session)
            if not await self._lock(session, self._connections.timeout):
                raise StoreUnavailable("The lock of the log is held by another session of the database: try again later.")
        except BaseException:
            await _end(session)
            raise
        return session

    async def _lock(self, session: AsyncConnection, wait: float) -> bool:
        until = monotonic() + wait
        while not await self._connections.transact(session, self._try_lock):
            if monotonic() > until:
                return False
            await asyncio.sleep(LOCK_RETRY)
        return True

    def _try_lock(self, connection: Connection) -> bool:
        is_ours = bool(connection.scalar(text(self.try_lock)))
        # Asked after the lock: whoever had it meanwhile has counted.
        if self.generation and find_generation(connection) != self.generation:
            self.is_lost = True
            raise StoreUnavailable(LOST)
        if is_ours:
            found = connection.execute(text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")).one()
            self._backend = (found.pid, found.backend_start)
        return is_ours

    def _end_old_session(self, connection: Connection) -> None:
        """A server that did not notice the end of a connection keeps its session, with the lock, and perhaps in the middle of a commit."""
        if self._backend is not None:
            pid, start = self._backend
            end = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :start")
            connection.execute(end, {"pid": pid, "start": start})

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await _end(session)


class PostgresShare(PostgresWriter):
    """See `database.Share`. As the writer alone, with the shared form of its lock, and one of the group, which says that the group lives."""

    era = ""

    def __init__(self, connections: PostgresConnections, place: Place, group: str | None) -> None:
        super().__init__(connections, place)
        self._group = group
        self.try_lock = _TRY_SHARE if group is None else f"{_TRY_SHARE} AND pg_try_advisory_lock_shared({_GROUPS}, {_number(group)})"

    async def _in_use(self, session: AsyncConnection) -> ConfigurationError:
        return in_use(self._place.shown, is_shared=False, is_wanted_alone=False)

    def _begin(self, connection: Connection) -> bool:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ERA})"))  # nodes come at the same moment
        if self._group is not None and not join_group(connection, self._group, partial(_lives, connection)):
            return False
        self.generation, self.era = join_era(connection)
        return True


def _lives(connection: Connection, group: str) -> bool:
    """Whether any session has the lock of a group."""
    return bool(connection.scalar(_LIVES, {"group": _number(group)}))


def _number(group: str) -> int:
    """What a group's lock is called."""
    return crc32(group.encode()) & 0x7FFFFFFF


async def _end(session: AsyncConnection) -> None:
    """Disconnect at once, without a word to a server that may not be there."""
    if not session.invalidated:  # one that is would connect again to be asked
        driver: Any = (await session.get_raw_connection()).driver_connection
        driver.terminate()
    with suppress(Exception):
        await session.close()


class _Explained:
    """Around the first contact with a server: what an operator has to mend becomes a `ConfigurationError` that says so."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
        state = getattr(getattr(cause, "orig", cause), "sqlstate", None)
        why = "cannot be asked with these parameters of the URL" if isinstance(cause, asyncpg.ClientConfigurationError) else _MISTAKES.get(str(state))
        if why is not None:
            raise ConfigurationError(f"database.url: {self._shown} {why}") from None
