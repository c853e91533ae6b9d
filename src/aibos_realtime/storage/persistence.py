"""`MessagePersistence`: messages stored, read back in pages, kept for a time, exported and erased. Order and recovery of events are the log's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from ..backends.base import LoggedEvent
from ..backends.sql.database import Database
from ..backends.sql.options import DatabaseOptions
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import IdempotencyConflict, StoreUnavailable, UnrecoverablePosition, ValidationError
from ..options import Count, Options, Seconds
from ..protocol.messages import Position
from .messages import DeadMessage, Erased, Message, check_room, to_dead_message, to_message, to_milliseconds, to_row

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..backends.sql.messages import Outcome, Point
    from .intake import Intake
    from .retention import Retention

MAX_PAGE = 1000

Cursor = datetime | Position | Message
"""A point among the messages of a room: a moment, a place in its log, or a message of it."""


class RetentionOptions(Options):
    """How long, in seconds, and how many per room. None = without end. Nothing is removed in its first five minutes."""

    duration: Seconds | None = 7 * 86_400.0
    max_messages: Count | None = 100_000


class Log(Protocol):
    """What writes the log of this database."""

    async def forget(self, rooms: Sequence[str]) -> object:
        """Forget where rooms end of which nothing is stored any more, unless somebody needs it."""

    async def settle(self) -> None:
        """Wait until the database has what was published so far."""

    async def erase(self, is_meant: Callable[[LoggedEvent], bool]) -> None:
        """Take the content of some events out of memory."""


class _Running(NamedTuple):
    """What there is between `start` and `stop`."""

    intake: Intake
    retention: Retention


class MessagePersistence:
    """Stores messages in SQLite or PostgreSQL.

    `database`: `{"url": …}` (default `sqlite:///realtime.db`; further options: `DatabaseOptions`), or a `Database` that others use too, which is
    then left open. `retention`: `{"duration": seconds, "max_messages": per room}`, None for either = without end.

    Opens nothing before `start`, `async with`, or the first call. Between that and `stop` retention runs in the background.
    Raises `ConfigurationError` naming `database.…` or `retention.…`.
    """

    def __init__(
        self,
        *,
        database: Database | DatabaseOptions | Mapping[str, Any] | None = None,
        retention: RetentionOptions | Mapping[str, Any] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._is_shared = isinstance(database, Database)
        self.database = database if isinstance(database, Database) else Database.from_options(DatabaseOptions.parse("database", database))
        self.options = RetentionOptions.parse("retention", retention)
        self._log: Log | None = None
        self._clock = clock
        self._running: _Running | None = None
        self._is_stopped = False
        self._starting = asyncio.Lock()

    def attach(self, log: Log) -> None:
        """Be the stored messages of a server: its log has the newest ones in memory, and must hear of what goes. Called before `start`."""
        self._log = log

    # — life —

    async def start(self) -> None:
        """Open the database and begin to remove what is due. Idempotent. Raises as `Database.open` does. Cancelling is safe."""
        self._is_stopped = False
        await self._start()

    async def stop(self) -> None:
        """Let what is being stored be stored, end retention, and close the database unless it is shared. Idempotent."""
        self._is_stopped = True
        async with self._starting:
            running, self._running = self._running, None
            if running is not None:
                await running.retention.stop()
                await running.intake.drain()
                if not self._is_shared:
                    await self.database.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    # — storing —

    async def store_message(self, message: Message) -> Outcome:
        """Store one message: "stored", or "duplicate" where its id was there with the same type and data. Calls of one moment are one commit.

        Raises `ValidationError`, `MessageTooLarge`, `IdempotencyConflict` (the id has other content), `StoreUnavailable`, `Overloaded`.
        Cancelling leaves the outcome unknown: repeat it, the id makes it one message.
        """
        row = to_row(message)
        outcome = await (await self._start()).intake.add(row)
        if outcome == "conflict":
            raise IdempotencyConflict()
        if outcome == "dead":
            raise ValidationError("The database refused this message; it is among the dead messages, with the reason.")
        return outcome

    async def store_messages(self, messages: Iterable[Message]) -> list[Outcome]:
        """Store many; what became of each: "stored", "duplicate", "conflict" (the id has other content), "dead" (refused by the database, and kept
        among the dead messages with the reason).

        All are checked before the first is stored. Raises `ValidationError`, `MessageTooLarge`, `StoreUnavailable`: then some may be stored, and
        repeating stores the rest. So does cancelling.
        """
        rows = []
        for number, message in enumerate(messages):
            try:
                rows.append(to_row(message))
            except ValidationError as error:
                raise ValidationError(f"message {number}: {error}") from None
        return await (await self._start()).intake.add_all(rows)

    # — reading —

    async def get_messages(
        self,
        room_id: str,
        *,
        limit: int = 50,
        offset: int = 0,
        before: Cursor | None = None,
        after: Cursor | None = None,
        type: str | None = None,
        oldest_first: bool = False,
    ) -> list[Message]:
        """Messages of a room, the newest first; with `oldest_first` the other way round, to read on from a point.

        `limit`: 1–1000. `offset`: how many to leave out first; a cursor is better for paging, since it stays where it is while others store.
        `before`, `after`: neither includes its point. A moment in time; a `Message` that was read; a `Position` of the room's log. `type`: only
        this event name. Messages whose payload is not kept (`persist=False`, erased) are left out.

        Raises `ValidationError`, `StoreUnavailable`, and `UnrecoverablePosition` for a cursor whose message is not stored, or no longer.
        """
        check_room("room_id", room_id)
        _check_page(limit, offset)
        await self._start()
        from ..backends.sql.messages import read_page

        def read(connection: Connection) -> list[Message]:
            upper, lower = _point(connection, room_id, "before", before), _point(connection, room_id, "after", after)
            rows = read_page(connection, room_id, limit=limit, offset=offset, before=upper, after=lower, type=type, oldest_first=oldest_first)
            return [to_message(row) for row in rows]

        return await self.database.read(read)

    async def count(self, room_id: str, *, type: str | None = None) -> int:
        """How many messages of a room `get_messages` can give. Reads them all: not for every request."""
        check_room("room_id", room_id)
        await self._start()
        from ..backends.sql.messages import count_messages

        return await self.database.read(count_messages, room_id, type)

    async def dead_messages(self, room_id: str | None = None, *, limit: int = 50, offset: int = 0) -> list[DeadMessage]:
        """What the database refused, the latest first: of a room, or of all."""
        _check_page(limit, offset)
        await self._start()
        from ..backends.sql.messages import read_dead

        rows = await self.database.read(read_dead, room_id, limit, offset)
        return [to_dead_message(row) for row in rows]

    # — data protection —

    async def export(self, *, room: str | None = None, user: str | None = None, tenant: str | None = None) -> AsyncIterator[Message]:
        """Every message of a room, a user or a tenant, read in pages: `async for message in persistence.export(user="user_123")`.

        Exactly one of the three. A user: what he published anywhere, and his own stream. A tenant: the room `tenant_<id>` and every room whose name
        begins with `tenant_<id>:`. What is stored meanwhile may or may not be among it. Raises `ValidationError`, `StoreUnavailable`.
        """
        await self._start()
        from .subjects import Subject, export

        async for message in export(self.database, Subject(room, user, tenant)):
            yield message

    async def erase(self, *, room: str | None = None, user: str | None = None, tenant: str | None = None) -> Erased:
        """Erase what `export` would give, and what was buried of it; for a user also his id in the audiences of what others published.

        Payload, audience, user id and message id are gone. What has a place in a room's log keeps that, without a payload: no offset is missing
        or given again. `server.persistence` erases from the memory of its server too; elsewhere a running server keeps its last events for recovery
        until they leave it (`history_ttl`). Repeating is safe, and needed after an error or cancelling. Raises `ValidationError`, `StoreUnavailable`.
        """
        await self._start()
        from .subjects import Subject, erase

        subject = Subject(room, user, tenant)
        if self._log is not None:
            await self._log.settle()
        erased = await erase(self.database, subject)
        if self._log is not None:
            await self._log.erase(lambda event: subject.covers(event.room, event.user_id))
        return erased

    # — inside —

    async def _start(self) -> _Running:
        if self._running is not None:
            return self._running
        async with self._starting:
            if self._is_stopped:
                raise StoreUnavailable("The persistence was stopped.")
            if self._running is None:
                await self.database.open()
                from .intake import Intake
                from .retention import Retention

                duration, most = self.options.duration, self.options.max_messages
                forget = self._log.forget if self._log is not None else None
                retention = Retention(self.database, duration=duration, max_messages=most, clock=self._clock, forget=forget)
                self._running = _Running(Intake(self.database, self._clock), retention)
                await retention.start()
            return self._running


def _check_page(limit: int, offset: int) -> None:
    if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise ValidationError(f"limit: {limit!r} was given; allowed is 1–{MAX_PAGE}")
    if not isinstance(offset, int) or not 0 <= offset < 2**63:
        raise ValidationError(f"offset: {offset!r} was given; allowed is 0 or more")


def _point(connection: Connection, room: str, name: str, cursor: Cursor | None) -> Point | None:
    """Where a cursor stands. Beside a moment there is no message: it is before, or after, all of the same millisecond."""
    from ..backends.sql.messages import find_message, find_position

    if cursor is None:
        return None
    if isinstance(cursor, datetime):
        return to_milliseconds(name, cursor), -1 if name == "before" else 2**62
    if isinstance(cursor, Position):
        point = find_position(connection, room, cursor.epoch, cursor.offset)
    elif isinstance(cursor, Message):
        point = find_message(connection, room, cursor.user_id or "", cursor.id)
    else:
        raise ValidationError(f"{name}: a datetime, a Position or a Message is expected, not {type(cursor).__name__}")
    if point is None:
        raise UnrecoverablePosition(f"{name}: the store has no such message of this room, or no longer.")
    return point
