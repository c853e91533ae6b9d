"""The log of events in SQL: `backends.base.EventStore` on the tables `realtime_messages` and `realtime_rooms`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, select, tuple_

from ...errors import ConfigurationError, StoreUnavailable
from ...protocol.messages import Position
from ..base import Batch, Key, LoggedEvent, Refused, Stored
from ..epochs import new_epoch
from ..shared_log import Remembered
from .database import LOST, Share, Statement, Writer
from .event_rows import COLUMNS, POSTGRESQL_INSERT, SQLITE_INSERT, Values, to_arrays, to_event, to_values, unnest
from .failures import refusal
from .messages import KEYS_AT_ONCE
from .meta import FRESH_EPOCH, read_meta, write_meta
from .schema import messages, rooms
from .shared_events import append_once, bury_event, find_last, read_recent
from .urls import Dialect

if TYPE_CHECKING:
    from .database import Database

ROOMS_AT_ONCE = 50_000
IDS, IDS_AT_ONCE = 10_000, 500
IDS_BYTES = 32 * 1024 * 1024
"""Of data that is read with the ids of the last minutes; of what was published before, only the ids are."""

_ENDS_COLUMNS = "room_id, epoch, log_offset, touched"
_ENDS_TYPES = ("text", "text", "bigint", "bigint")
_IN_THEIR_PLACE = "ON CONFLICT (room_id) DO UPDATE SET epoch = excluded.epoch, log_offset = excluded.log_offset, touched = excluded.touched"
_SQLITE_ENDS = f"INSERT INTO realtime_rooms ({_ENDS_COLUMNS}) VALUES (?, ?, ?, ?) {_IN_THEIR_PLACE}"
# One statement, so one round trip: it is its own transaction.
_POSTGRESQL_APPEND = (
    f"WITH stored AS ({POSTGRESQL_INSERT}) INSERT INTO realtime_rooms ({_ENDS_COLUMNS})"
    f" SELECT * FROM {unnest(_ENDS_TYPES, len(COLUMNS) + 1)} {_IN_THEIR_PLACE}"
)

_ENDS = select(rooms.c.room_id, rooms.c.epoch, rooms.c.log_offset)
_log_rows = select(messages).where(messages.c.room_id == bindparam("room"), messages.c.epoch == bindparam("epoch"))
_AFTER = _log_rows.where(messages.c.log_offset > bindparam("offset")).order_by(messages.c.log_offset).limit(bindparam("count"))
_BEFORE = _log_rows.where(messages.c.log_offset < bindparam("offset")).order_by(messages.c.log_offset.desc()).limit(bindparam("count"))


class SqlEventStore:
    """See `backends.base.EventStore`. `group()`: the nodes that this one shares the store with (`Database.acquire_share`)."""

    def __init__(self, database: Database, *, group: Callable[[], str | None] = lambda: None) -> None:
        self._database = database
        self._group = group
        self._writer: Writer | None = None
        self._share: Share | None = None
        self._sharing = asyncio.Lock()

    # — one broker writes —

    async def open(self) -> tuple[str, dict[str, Position]]:
        await self._database.open()
        self._writer = await self._database.acquire_writer()
        try:
            return await self._writer.write(_fresh_epoch), await self._load_ends()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        held: Sequence[Writer | Share | None] = self._writer, self._share
        self._writer = self._share = None
        for right in held:
            if right is not None:
                await right.release()

    async def append(self, batch: Batch) -> None:
        with _REFUSALS:
            await self._held.execute(*_to_statements(batch, self._database.dialect))

    async def forget(self, rooms: Iterable[str], epoch: str) -> None:
        await self._held.write(lambda connection: _forget(connection, list(rooms), epoch))

    # — several nodes write —

    async def share(self) -> str:
        async with self._sharing:
            if self._share is None:
                await self._database.open()
                self._share = await self._database.acquire_share(group=self._group())
            elif self._share.is_lost:
                self._share = await self._share_again(self._share)
            else:
                await self._share.write(lambda connection: connection.scalar(select(1)))  # an empty transaction is never begun
            return self._share.era

    async def _share_again(self, lost: Share) -> Share:
        await lost.release()
        try:
            return await self._database.acquire_share(wait=0, group=self._group())
        except ConfigurationError as error:
            raise StoreUnavailable(LOST) from error

    async def append_once(self, events: Sequence[LoggedEvent], hollow: frozenset[int]) -> None:
        with _REFUSALS:
            rows = _rows(events, hollow)
            await self._shared.write(lambda connection: append_once(connection, rows))

    async def bury(self, event: LoggedEvent, reason: str, now: int) -> None:
        with _REFUSALS:
            await self._shared.write(lambda connection: bury_event(connection, event, reason, now))

    async def recent_ids(self, room: str, since: int) -> list[Remembered]:
        found: list[Remembered] = []
        size, last = 0, None
        while len(found) < IDS:
            page = await self._database.read(read_recent, room, since, last, IDS_AT_ONCE, with_data=size < IDS_BYTES)
            found += [known for _, known in page]
            size += sum(len(known.data or b"") for _, known in page)
            if len(page) < IDS_AT_ONCE:
                break
            last = page[-1][0]
        return found

    # — reading —

    async def heads(self, rooms: Iterable[str]) -> dict[str, Position]:
        wanted = list(rooms)
        if self._share is not None:
            return await self._database.read(find_last, wanted)
        # By the writer, so after whatever it was still doing.
        return await self._held.write(lambda connection: _ends(connection, wanted))

    async def find(self, keys: Iterable[Key]) -> dict[Key, Stored]:
        wanted = list(keys)
        return await self._database.read(_find, wanted)

    async def read_after(self, room: str, after: Position, limit: int) -> list[LoggedEvent]:
        parameters = {"room": room, "epoch": after.epoch, "offset": after.offset, "count": limit}
        return await self._database.read(lambda connection: [to_event(row) for row in connection.execute(_AFTER, parameters)])

    async def read_before(self, room: str, before: Position, limit: int) -> list[LoggedEvent]:
        parameters = {"room": room, "epoch": before.epoch, "offset": before.offset, "count": limit}
        return await self._database.read(lambda connection: [to_event(row) for row in connection.execute(_BEFORE, parameters)][::-1])

    # — inside —

    async def _load_ends(self) -> dict[str, Position]:
        """In pages, each within the statement time-out: there may be millions, and whoever holds the writer's right alone changes them."""
        ends: dict[str, Position] = {}
        # Rooms of one age share an epoch: one text for all of them.
        epochs: dict[str, str] = {}
        last: str | None = None
        while True:
            page = await self._database.read(_page_of_ends, last)
            ends.update((room, Position(epochs.setdefault(epoch, epoch), offset)) for room, epoch, offset in page)
            if len(page) < ROOMS_AT_ONCE:
                return ends
            last = page[-1].room_id

    @property
    def _held(self) -> Writer:
        assert self._writer is not None, "open() comes first"
        return self._writer

    @property
    def _shared(self) -> Share:
        assert self._share is not None, "share() comes first"
        return self._share


class _Refusals:
    """Around a write: errors of the data become `Refused`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, UnicodeError | msgspec.MsgspecError):
            raise Refused(type(error).__name__) from error
        if isinstance(error, Exception) and (reason := refusal(error)) is not None:
            raise Refused(reason) from error


_REFUSALS = _Refusals()


def _fresh_epoch(connection: Connection) -> str:
    epoch = read_meta(connection, FRESH_EPOCH)
    if epoch is None:
        epoch = new_epoch()
        write_meta(connection, FRESH_EPOCH, epoch)
    return epoch


def _page_of_ends(connection: Connection, after: str | None) -> Sequence[Any]:
    query = _ENDS if after is None else _ENDS.where(rooms.c.room_id > after)
    return connection.execute(query.order_by(rooms.c.room_id).limit(ROOMS_AT_ONCE)).all()


def _ends(connection: Connection, only: list[str]) -> dict[str, Position]:
    return {room: Position(epoch, offset) for room, epoch, offset in connection.execute(_ENDS.where(rooms.c.room_id.in_(only)))}


def _to_statements(batch: Batch, dialect: Dialect) -> list[Statement]:
    rows, now = _rows(batch.events, batch.hollow), batch.events[-1].timestamp
    ends = [(room, end.epoch, end.offset, now) for room, end in batch.heads.items()]
    if dialect == "sqlite":
        return [(SQLITE_INSERT, rows), (_SQLITE_ENDS, ends)]
    return [(_POSTGRESQL_APPEND, [to_arrays(rows) + to_arrays(ends)])]


def _rows(events: Sequence[LoggedEvent], hollow: frozenset[int]) -> list[Values]:
    return [to_values(event, number in hollow) for number, event in enumerate(events)]


def _find(connection: Connection, keys: list[Key]) -> dict[Key, Stored]:
    found: dict[Key, Stored] = {}
    key = tuple_(messages.c.room_id, messages.c.user_id, messages.c.message_id)
    for start in range(0, len(keys), KEYS_AT_ONCE):
        for row in connection.execute(select(messages).where(key.in_(keys[start : start + KEYS_AT_ONCE]))):
            position = Position(row.epoch, row.log_offset) if row.epoch is not None else None
            data = row.data.encode() if row.data is not None else None
            found[(row.room_id, row.user_id, row.message_id)] = Stored(row.type, data, position)
    return found


def _forget(connection: Connection, gone: list[str], epoch: str) -> None:
    connection.execute(delete(rooms).where(rooms.c.room_id.in_(gone)))
    write_meta(connection, FRESH_EPOCH, epoch)
