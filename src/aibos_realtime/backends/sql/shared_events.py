"""The log of events in SQL where several nodes write it, each function inside a transaction of the caller's.

What is written here may have been written before, by this node or another. Where rooms end is nobody's to write: positions come from elsewhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, null, select, tuple_

from ...protocol.messages import Position
from ..base import LoggedEvent, Refused
from ..shared_log import Remembered
from .event_rows import COLUMNS, POSTGRESQL_INSERT, SQLITE_INSERT, Values, repeated_id, to_arrays, to_id, to_values
from .messages import KEYS_AT_ONCE, Point, bury
from .schema import SERVER, messages
from .stretches import ERASED

NAMES_LENGTH = 600
"""Characters of room, user id and id together; by the limits of the wire there are fewer. An index of PostgreSQL holds 2,700 bytes of them."""

OWN_IDS = ("again-", "dead-", ERASED)
"""How ids begin that the store gives itself, in place of an event's own."""

_UNLESS_THERE = " ON CONFLICT DO NOTHING"
_ID, _USER = COLUMNS.index("message_id"), COLUMNS.index("user_id")

_position = tuple_(messages.c.room_id, messages.c.epoch, messages.c.log_offset)
_point = tuple_(messages.c.timestamp, messages.c.seq)
_in_log = messages.c.room_id == bindparam("room"), messages.c.epoch.is_not(None)
_newest_epoch = select(messages.c.epoch).where(*_in_log).order_by(messages.c.timestamp.desc(), messages.c.seq.desc()).limit(1)
_LAST = (
    select(messages.c.epoch, messages.c.log_offset)
    .where(messages.c.room_id == bindparam("room"), messages.c.epoch == _newest_epoch.scalar_subquery())
    .order_by(messages.c.log_offset.desc())
    .limit(1)
)


def append_once(connection: Connection, rows: list[Values]) -> int:
    """Store the rows whose position is free; how many. One whose id is taken, by another position or beside the log, gets an id of its own:
    `repeated_id`, or where somebody took that on purpose, a random one. There must be no hole in the log.

    Raises `Refused` where another event has the position of one: two copies of the shared log went on at the same time.
    """
    if any(len(row[0]) + len(row[_ID]) + len(row[_USER]) > NAMES_LENGTH for row in rows):
        raise Refused("names too long for an index")
    stored = _insert(connection, rows)
    for name in (repeated_id, _random_id):
        if stored == len(rows):
            break
        there = _find_positions(connection, [row[:3] for row in rows])
        if any(not _is_same(there[row[:3]], row) for row in rows if row[:3] in there):
            raise Refused("another event has its place")
        missing = [(*row[:_ID], name(row), *row[_ID + 1 :]) for row in rows if row[:3] not in there]
        if not missing:
            break
        stored += _insert(connection, missing)
    return stored


def _random_id(row: Values) -> str:
    return f"again-{secrets.token_urlsafe(12)}"


def _is_same(id: str, row: Values) -> bool:
    """Whether what is stored under this id at the position of a row is that row, as far as the id tells."""
    return id in (row[_ID], repeated_id(row)) or id.startswith(OWN_IDS)


def bury_event(connection: Connection, event: LoggedEvent, reason: str, now: int) -> None:
    """Store the place of an event, with nothing in it that could be refused, and the event among the dead messages, unless it was done before.

    Where another event has the place, the event itself is among the dead messages: a second time if it comes again.
    """
    place = to_values(LoggedEvent(event.room, "dead", b"", f"dead-{secrets.token_urlsafe(12)}", event.epoch, event.offset, event.timestamp), True)
    id = _find_positions(connection, [place[:3]]).get(place[:3])
    if append_once(connection, [place]) if id is None else not _is_same(id, to_values(event, True)):
        names = {"room_id": event.room, "message_id": event.id, "user_id": event.user_id or SERVER, "type": event.event}
        bury(connection, names | {"data": event.data.decode(errors="replace"), "timestamp": event.timestamp}, reason, now)


def find_last(connection: Connection, rooms: Iterable[str]) -> dict[str, Position]:
    """The last position of the newest epoch that rooms have rows of."""
    found = ((room, connection.execute(_LAST, {"room": room}).first()) for room in rooms)
    return {room: Position(row.epoch, row.log_offset) for room, row in found if row is not None}


def read_recent(
    connection: Connection, room: str, since: int, before: Point | None, limit: int, *, with_data: bool
) -> list[tuple[Point, Remembered]]:
    """The ids in a room's log since a time, the newest first, before a point."""
    columns = (
        messages.c.timestamp,
        messages.c.seq,
        messages.c.user_id,
        messages.c.message_id,
        messages.c.type,
        messages.c.epoch,
        messages.c.log_offset,
    )
    query = select(*columns, messages.c.data if with_data else null().label("data")).where(*_in_log, messages.c.timestamp >= since)
    if before is not None:
        query = query.where(_point < before)
    rows = connection.execute(query.order_by(messages.c.timestamp.desc(), messages.c.seq.desc()).limit(limit), {"room": room})
    return [((row.timestamp, row.seq), _remembered(row)) for row in rows]


def _remembered(row: Any) -> Remembered:
    data = row.data.encode() if row.data is not None else None
    return Remembered(row.user_id, to_id(row), row.type, data, Position(row.epoch, row.log_offset))


def _insert(connection: Connection, rows: list[Values]) -> int:
    """Store the rows that collide with no other; how many those were."""
    if connection.dialect.name == "sqlite":
        return connection.exec_driver_sql(SQLITE_INSERT + _UNLESS_THERE, rows).rowcount
    return connection.exec_driver_sql(POSTGRESQL_INSERT + _UNLESS_THERE, to_arrays(rows)).rowcount


def _find_positions(connection: Connection, positions: Sequence[Values]) -> dict[Values, str]:
    """Those that are taken, and by which ids."""
    columns = messages.c.room_id, messages.c.epoch, messages.c.log_offset, messages.c.message_id
    found: dict[Values, str] = {}
    for start in range(0, len(positions), KEYS_AT_ONCE):
        among = _position.in_(positions[start : start + KEYS_AT_ONCE])
        found.update((tuple(row[:3]), row[3]) for row in connection.execute(select(*columns).where(among)))
    return found
