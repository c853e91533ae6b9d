"""`Database`: one store, SQLite or PostgreSQL, in which others run their transactions. What the tables mean is theirs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from ...errors import ConfigurationError, StoreUnavailable
from .options import DatabaseOptions
from .urls import Dialect, read_url

if TYPE_CHECKING:
    from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[["Connection"], T]
"""What happens in one transaction: an ordinary function that uses SQLAlchemy Core. Raising takes everything back."""

Statement = tuple[str, Sequence[tuple[Any, ...]]]
"""A text in the words of the driver, and the values of each execution."""

Versions = tuple[str | None, str]
"""Of the schema, before and after; None where there were no tables of ours."""

LOST = "Another server writes to this database now."
"""What a writer, or a share, says for ever that has lost its right."""

WAIT_FOR_WRITER = 3.0
"""Seconds that a server waits for another one to let go of the log."""


class Writer(Protocol):
    """The right to write the log of a database, which one server has at a time."""

    generation: int
    """How often this right has gone to somebody else, this time included."""

    async def write(self, work: Work[T]) -> T:
        """As `Database.write`, and only while the right is ours: `StoreUnavailable` for ever after another server took it."""

    async def execute(self, *statements: Statement) -> None:
        """As `write`, of statements that need nobody to build them: the short way."""

    async def release(self) -> None:
        """Let go, once what is being written has ended, or with the end of the process. Idempotent."""


class Share(Protocol):
    """The right to write the log of a database beside others who share it, while no server has it alone."""

    era: str
    """A name of the time for which nodes share the log: another one once a server had it alone in between, or an older copy was restored."""
    is_lost: bool
    """Whether a server had the log alone meanwhile: then this one is of no use any more."""

    async def write(self, work: Work[T]) -> T:
        """As `Database.write`, and only while the right is shared with us. `StoreUnavailable` also while another server has it alone."""

    async def release(self) -> None:
        """As `Writer.release`."""


class Connections(Protocol):
    """What each kind of database does in its own way."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, work: Work[T]) -> T: ...

    async def read(self, work: Work[T]) -> T: ...

    async def acquire_writer(self, wait: float) -> Writer: ...

    async def acquire_share(self, wait: float, group: str | None) -> Share: ...

    async def upgrade(self) -> Versions: ...

    async def find_version(self) -> str | None: ...

    async def listen(self, channel: str, ring: Callable[[], None]) -> None: ...


class Database:
    """One database, to be shared by all parts of a server.

    `url`: `sqlite:///file.db`, `sqlite://` or `memory://` (in memory), `postgresql://user:password@host/database`. `statement_timeout`: seconds;
    `pool_size`: see `DatabaseOptions`. Opens nothing yet. Raises `ConfigurationError` naming `database.…`.

    SQLite has one thread that writes, and readers that it never stops (WAL); a commit is on the disk when `write` returns.
    """

    def __init__(self, url: str, *, statement_timeout: float = 5.0, pool_size: int = 10) -> None:
        self.options = DatabaseOptions.parse("database", {"url": url, "statement_timeout": statement_timeout, "pool_size": pool_size})
        self._place = read_url(self.options.url)
        self._connections: Connections | None = None
        self._opening = asyncio.Lock()

    @classmethod
    def from_options(cls, options: DatabaseOptions) -> Database:
        """The database that options describe."""
        return cls(options.url, statement_timeout=options.statement_timeout, pool_size=options.pool_size)

    def __repr__(self) -> str:
        return f"Database({self.url_shown!r})"

    @property
    def dialect(self) -> Dialect:
        """Which kind it is."""
        return self._place.dialect

    @property
    def url_shown(self) -> str:
        """The URL without its password."""
        return self._place.shown

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for one in memory, and for PostgreSQL."""
        return self._place.file

    @property
    def is_open(self) -> bool:
        """Whether it is between `open` and `close`."""
        return self._connections is not None

    async def open(self) -> None:
        """Connect. An SQLite database gets the newest schema; PostgreSQL must have it (`aibos-realtime database upgrade`). Idempotent.

        Raises `ConfigurationError` (no such directory, no rights, another version of the schema, the driver is not installed),
        `StoreUnavailable`. Cancelling is safe.
        """
        async with self._opening:
            if self._connections is not None:
                return
            connections = self._make_connections()
            try:
                await connections.open()
            except BaseException:
                await connections.close()
                raise
            self._connections = connections

    async def close(self) -> None:
        """Let what is running end, let go of the log, and disconnect. Idempotent.

        It returns a second after the statement time-out at the latest. A thread that then still hangs in the disk disconnects when that answers, and
        Python does not end before it: such a process can only be killed.
        """
        async with self._opening:
            connections, self._connections = self._connections, None
            if connections is not None:
                await connections.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def write(self, work: Callable[Concatenate[Connection, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run `work(connection, …)` in one transaction, and commit it: what it returned, once that is durable.

        Raises `StoreUnavailable` (retryable): whether it was committed is unknown, unless the text says that the database is full or locked.
        Errors of the data (`sqlalchemy.exc.IntegrityError`, `DataError`: see `failures.refusal`) and of `work` itself come as they are, with nothing
        written. Cancelling leaves the outcome unknown.
        """
        return await self._opened().write(lambda connection: work(connection, *arguments, **named))

    async def read(self, work: Callable[Concatenate[Connection, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run `work(connection, …)`, which only reads, beside writers. On PostgreSQL each statement sees what is committed when it begins.

        Raises `StoreUnavailable`. Cancelling is safe.
        """
        return await self._opened().read(lambda connection: work(connection, *arguments, **named))

    async def acquire_writer(self, wait: float = WAIT_FOR_WRITER) -> Writer:
        """The right to write the log, until `release`, or the end of the process. `wait`: seconds for another server to let go of it.

        Raises `ConfigurationError` when another one keeps it.
        """
        return await self._opened().acquire_writer(wait)

    async def acquire_share(self, wait: float = WAIT_FOR_WRITER, *, group: str | None = None) -> Share:
        """The right to write the log beside others, until `release`, or the end of the process. `wait`: seconds for a server that has it alone.

        `group`: the name of the nodes that meet in one place; nodes of another group do not get the right while one of these has it. None: of no
        group. SQLite, whose nodes are all on one machine, does not look at it. Raises `ConfigurationError` when others keep the right.
        """
        return await self._opened().acquire_share(wait, group)

    async def listen(self, channel: str, ring: Callable[[], None]) -> None:
        """Call `ring` once now, and after each commit of a transaction that did NOTIFY on a channel of PostgreSQL, until cancelled.

        On SQLite nobody notifies: it only waits. Raises `StoreUnavailable` when the connection is lost, which may show late.
        """
        await self._opened().listen(channel, ring)

    async def upgrade(self) -> Versions:
        """Bring the schema to the newest version, on a database that need not be open; the versions before and after.

        Several may do it at once: one does the work. It has no time limit. Raises as `open` does.
        """
        connections = self._make_connections()
        try:
            return await connections.upgrade()
        finally:
            await connections.close()

    async def find_version(self) -> str | None:
        """The version of the schema, of a database that need not be open: None where it has no tables of ours. It changes and makes nothing."""
        connections = self._make_connections()
        try:
            return await connections.find_version()
        finally:
            await connections.close()

    # — inside —

    def _opened(self) -> Connections:
        if self._connections is None:
            raise StoreUnavailable(f"The database {self._place.name} is not open.")
        return self._connections

    def _make_connections(self) -> Connections:
        kind: Any
        if self.dialect == "sqlite":
            from .sqlite import SqliteConnections as kind
        else:
            from .postgres import PostgresConnections as kind
        made: Connections = kind(self._place, self.options)
        return made


def in_other_hands(shown: str) -> ConfigurationError:
    """The error where nodes of another group write the log."""
    return ConfigurationError(
        f"database.url: nodes that meet elsewhere, in another Redis or under another prefix, write to {shown}: stop them, or use another database"
    )


def in_use(shown: str, *, is_shared: bool, is_wanted_alone: bool) -> ConfigurationError:
    """The error of a right that others keep. `is_shared`: they share it, as nodes do."""
    if is_shared:
        return ConfigurationError(f"database.url: nodes with scaling.enabled write to {shown}: stop them, set it here too, or use another database")
    alone = "" if is_wanted_alone else ", without scaling.enabled"
    return ConfigurationError(f"database.url: another server writes to {shown}{alone}; stop it, or use another database")
