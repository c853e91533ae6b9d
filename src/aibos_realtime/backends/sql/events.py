"""The log of events in SQL: `backends.base.EventStore` on the tables `realtime_messages` and `realtime_rooms`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, select, text, tuple_

from ...protocol.messages import Position
from ..base import Audience, Batch, Key, LoggedEvent, Refused, Stored
from ..epochs import new_epoch
from .failures import refusal
from .messages import KEYS_AT_ONCE
from .meta import FRESH_EPOCH, read_meta, write_meta
from .schema import messages, rooms

if TYPE_CHECKING:
    from .database import Database, Writer

ROOMS_AT_ONCE = 50_000

_COLUMNS = ("room_id", "epoch", "log_offset", "message_id", "user_id", "type", "data", "audience", "timestamp")
_TYPES = ("text", "text", "bigint", "text", "text", "text", "text", "text", "bigint")

_SQLITE_INSERT = f"INSERT INTO realtime_messages ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SQLITE_ENDS = (
    "INSERT INTO realtime_rooms (room_id, epoch, log_offset, touched) VALUES (?, ?, ?, ?) ON CONFLICT (room_id) DO UPDATE"
    " SET epoch = excluded.epoch, log_offset = excluded.log_offset, touched = excluded.touched"
)
# One statement, so one round trip: it is its own transaction's whole content.
_POSTGRESQL_APPEND = text(
    f"WITH stored AS (INSERT INTO realtime_messages ({', '.join(_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"CAST(:{column} AS {kind}[])" for column, kind in zip(_COLUMNS, _TYPES, strict=True))
    + ")) INSERT INTO realtime_rooms (room_id, epoch, log_offset, touched) SELECT * FROM unnest("
    "CAST(:rooms AS text[]), CAST(:epochs AS text[]), CAST(:offsets AS bigint[]), CAST(:touched AS bigint[])) ON CONFLICT (room_id) DO UPDATE"
    " SET epoch = excluded.epoch, log_offset = excluded.log_offset, touched = excluded.touched"
)

_ENDS = select(rooms.c.room_id, rooms.c.epoch, rooms.c.log_offset)
_log_rows = select(messages).where(messages.c.room_id == bindparam("room"), messages.c.epoch == bindparam("epoch"))
_AFTER = _log_rows.where(messages.c.log_offset > bindparam("offset")).order_by(messages.c.log_offset).limit(bindparam("count"))
_BEFORE = _log_rows.where(messages.c.log_offset < bindparam("offset")).order_by(messages.c.log_offset.desc()).limit(bindparam("count"))


class SqlEventStore:
    """See `backends.base.EventStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer: Writer | None = None
        self._append: Callable[[Connection, Batch], None] = _append_to_sqlite

    async def open(self) -> tuple[str, dict[str, Position]]:
        await self._database.open()
        self._append = _append_to_sqlite if self._database.dialect == "sqlite" else _append_to_postgresql
        self._writer = await self._database.acquire_writer()
        try:
            return await self._writer.write(_fresh_epoch), await self._load_ends()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.release()

    async def append(self, batch: Batch) -> None:
        try:
            await self._held.write(lambda connection: self._append(connection, batch))
        except Exception as error:
            if (reason := refusal(error)) is None:
                raise
            raise Refused(reason) from error

    async def heads(self, rooms: Iterable[str]) -> dict[str, Position]:
        # By the writer, so after whatever it was still doing.
        return await self._held.write(lambda connection: _ends(connection, list(rooms)))

    async def find(self, keys: Iterable[Key]) -> dict[Key, Stored]:
        wanted = list(keys)
        return await self._database.read(_find, wanted)

    async def read_after(self, room: str, after: Position, limit: int) -> list[LoggedEvent]:
        parameters = {"room": room, "epoch": after.epoch, "offset": after.offset, "count": limit}
        return await self._database.read(lambda connection: [_event(row) for row in connection.execute(_AFTER, parameters)])

    async def read_before(self, room: str, before: Position, limit: int) -> list[LoggedEvent]:
        parameters = {"room": room, "epoch": before.epoch, "offset": before.offset, "count": limit}
        return await self._database.read(lambda connection: [_event(row) for row in connection.execute(_BEFORE, parameters)][::-1])

    async def forget(self, rooms: Iterable[str], epoch: str) -> None:
        await self._held.write(lambda connection: _forget(connection, list(rooms), epoch))

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


def _row(event: LoggedEvent, is_hollow: bool) -> tuple[Any, ...]:
    data = None if is_hollow else event.data.decode()
    audience = None if is_hollow or event.audience is None else msgspec.json.encode(event.audience).decode()
    return event.room, event.epoch, event.offset, event.id, event.user_id or "", event.event, data, audience, event.timestamp


def _append_to_sqlite(connection: Connection, batch: Batch) -> None:
    hollow = batch.hollow
    connection.exec_driver_sql(_SQLITE_INSERT, [_row(event, number in hollow) for number, event in enumerate(batch.events)])
    now = batch.events[-1].timestamp
    connection.exec_driver_sql(_SQLITE_ENDS, [(room, end.epoch, end.offset, now) for room, end in batch.heads.items()])


def _append_to_postgresql(connection: Connection, batch: Batch) -> None:
    hollow = batch.hollow
    columns = zip(*(_row(event, number in hollow) for number, event in enumerate(batch.events)), strict=True)
    parameters: dict[str, Sequence[Any]] = dict(zip(_COLUMNS, (list(column) for column in columns), strict=True))
    ends = batch.heads.values()
    parameters |= {"rooms": list(batch.heads), "epochs": [end.epoch for end in ends], "offsets": [end.offset for end in ends]}
    parameters["touched"] = [batch.events[-1].timestamp] * len(batch.heads)
    connection.execute(_POSTGRESQL_APPEND, parameters)


def _find(connection: Connection, keys: list[Key]) -> dict[Key, Stored]:
    found: dict[Key, Stored] = {}
    key = tuple_(messages.c.room_id, messages.c.user_id, messages.c.message_id)
    for start in range(0, len(keys), KEYS_AT_ONCE):
        for row in connection.execute(select(messages).where(key.in_(keys[start : start + KEYS_AT_ONCE]))):
            position = Position(row.epoch, row.log_offset) if row.epoch is not None else None
            data = row.data.encode() if row.data is not None else None
            found[(row.room_id, row.user_id, row.message_id)] = Stored(row.type, data, position)
    return found


def _event(row: Row[Any]) -> LoggedEvent:
    audience = msgspec.json.decode(row.audience, type=Audience) if row.audience is not None else None
    data = row.data.encode() if row.data is not None else b""
    return LoggedEvent(
        row.room_id, row.type, data, row.message_id, row.epoch, row.log_offset, row.timestamp, row.user_id or None, audience
    )  # fmt: skip


def _forget(connection: Connection, gone: list[str], epoch: str) -> None:
    connection.execute(delete(rooms).where(rooms.c.room_id.in_(gone)))
    write_meta(connection, FRESH_EPOCH, epoch)
