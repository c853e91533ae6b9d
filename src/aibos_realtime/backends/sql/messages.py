"""Messages in SQL, each function inside a transaction of the caller's: storing, reading in pages, burying what was refused.

A row without `data` has no payload: it keeps its place in a log, and is no message that anybody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Select, and_, func, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from .schema import dead_messages, messages

Outcome = Literal["stored", "duplicate", "conflict", "dead"]
"""What became of a message: stored now; had been stored before; the id has another content; refused by the database, and buried."""

Row = dict[str, Any]
"""A message by its columns."""
Key = tuple[str, str, str]
Point = tuple[int, int]
"""A point in a room's messages, which are ordered by (timestamp, seq)."""

KEYS_AT_ONCE = 200
_key = tuple_(messages.c.room_id, messages.c.user_id, messages.c.message_id)
_point = tuple_(messages.c.timestamp, messages.c.seq)
_has_payload = messages.c.data.is_not(None)


def insert_messages(connection: Connection, rows: Sequence[Row]) -> list[Outcome]:
    """Store messages, given by their columns; what became of each. One id is one message, whose content is its type and its data."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(messages).on_conflict_do_nothing().returning(messages.c.room_id, messages.c.user_id, messages.c.message_id)
    inserted: set[Key] = {(room, user, message) for room, user, message in connection.execute(statement, rows)}
    outcomes: list[Outcome] = []
    known: dict[Key, tuple[str, str | None]] | None = None
    for row in rows:
        key = _key_of(row)
        if key in inserted:
            inserted.remove(key)  # the same id further on in the same batch is there already
            outcomes.append("stored")
            continue
        if known is None:
            known = _find_contents(connection, {_key_of(one) for one in rows})
        # A row without a payload cannot be compared.
        outcomes.append("duplicate" if known[key] in ((row["type"], row["data"]), (row["type"], None)) else "conflict")
    return outcomes


def _key_of(row: Row) -> Key:
    return row["room_id"], row["user_id"], row["message_id"]


def _find_contents(connection: Connection, keys: set[Key]) -> dict[Key, tuple[str, str | None]]:
    found: dict[Key, tuple[str, str | None]] = {}
    wanted = sorted(keys)
    for start in range(0, len(wanted), KEYS_AT_ONCE):
        for row in connection.execute(select(messages).where(_key.in_(wanted[start : start + KEYS_AT_ONCE]))):
            found[row.room_id, row.user_id, row.message_id] = (row.type, row.data)
    return found


def bury(connection: Connection, row: Row, reason: str, now: int) -> None:
    """Keep a message that the database refused, with what it cannot hold replaced."""
    kept = {name: _harmless(value) if isinstance(value, str) else value for name, value in row.items()}
    connection.execute(insert(dead_messages).values(**kept, reason=reason, buried=now))


def _harmless(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def find_position(connection: Connection, room: str, epoch: str, offset: int) -> Point | None:
    """The point of a place in the room's log; None where the store has it no longer, or not yet."""
    return _find_point(connection, messages.c.room_id == room, messages.c.epoch == epoch, messages.c.log_offset == offset)


def find_message(connection: Connection, room: str, user: str, message: str) -> Point | None:
    """The point of a message; None where the store has it no longer."""
    return _find_point(connection, messages.c.room_id == room, messages.c.user_id == user, messages.c.message_id == message)


def _find_point(connection: Connection, *conditions: Any) -> Point | None:
    row = connection.execute(select(messages.c.timestamp, messages.c.seq).where(*conditions)).first()
    return None if row is None else (row.timestamp, row.seq)


def read_page(
    connection: Connection,
    room: str,
    *,
    limit: int,
    offset: int = 0,
    before: Point | None = None,
    after: Point | None = None,
    type: str | None = None,
    oldest_first: bool = False,
) -> list[Row]:
    """Messages of a room between two points, both left out; by default the newest first."""
    query = select(messages).where(messages.c.room_id == room, _has_payload)
    if before is not None:
        query = query.where(_point < before)
    if after is not None:
        query = query.where(_point > after)
    if type is not None:
        query = query.where(messages.c.type == type)
    order = (messages.c.timestamp, messages.c.seq) if oldest_first else (messages.c.timestamp.desc(), messages.c.seq.desc())
    return _rows(connection, query.order_by(*order).limit(limit).offset(offset))


def count_messages(connection: Connection, room: str, type: str | None) -> int:
    """How many messages of a room can be read."""
    query = select(func.count()).select_from(messages).where(messages.c.room_id == room, _has_payload)
    return connection.scalar(query if type is None else query.where(messages.c.type == type)) or 0


def read_dead(connection: Connection, room: str | None, limit: int, offset: int) -> list[Row]:
    """What was buried, the latest first."""
    query: Select[Any] = select(dead_messages).order_by(dead_messages.c.seq.desc()).limit(limit).offset(offset)
    return _rows(connection, query if room is None else query.where(dead_messages.c.room_id == room))


def read_of_user(connection: Connection, user: str, after: int, window: int, besides: str) -> tuple[list[Row], int | None]:
    """What a user published in a stretch of `window` rows after a `seq`, outside the room `besides`; and where the next stretch begins, if any."""
    last = connection.scalar(select(func.max(messages.c.seq)))
    stretch = and_(messages.c.seq > after, messages.c.seq <= after + window)
    query = select(messages).where(stretch, messages.c.user_id == user, messages.c.room_id != besides, _has_payload)
    found = _rows(connection, query.order_by(messages.c.seq))
    return found, after + window if last is not None and after + window < last else None


def _rows(connection: Connection, query: Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]
