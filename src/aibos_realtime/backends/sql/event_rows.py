"""Events of the log as rows of `realtime_messages`, and back. What is written when, and by whom, is for others to know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Row

from ..base import Audience, LoggedEvent
from .schema import SERVER

COLUMNS = ("room_id", "epoch", "log_offset", "message_id", "user_id", "type", "data", "audience", "timestamp")
_ID = COLUMNS.index("message_id")
_TYPES = ("text", "text", "bigint", "text", "text", "text", "text", "text", "bigint")

Values = tuple[Any, ...]
"""An event by its columns."""

SQLITE_INSERT = f"INSERT INTO realtime_messages ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def unnest(kinds: Iterable[str], first: int = 1) -> str:
    """Rows of PostgreSQL from one array for each column: parameters that are numbered from `first` on."""
    return f"unnest({', '.join(f'CAST(${number} AS {kind}[])' for number, kind in enumerate(kinds, first))})"


POSTGRESQL_INSERT = f"INSERT INTO realtime_messages ({', '.join(COLUMNS)}) SELECT * FROM {unnest(_TYPES)}"
"""One statement for any number of rows: one round trip. Its parameters are those of `to_arrays`."""


def to_values(event: LoggedEvent, is_hollow: bool) -> Values:
    """An event by its columns, without its payload if it is hollow."""
    data = None if is_hollow else event.data.decode()
    audience = None if is_hollow or event.audience is None else msgspec.json.encode(event.audience).decode()
    return event.room, event.epoch, event.offset, event.id, event.user_id or SERVER, event.event, data, audience, event.timestamp


def to_arrays(rows: Iterable[Values]) -> Values:
    """Rows as one list for each column."""
    return tuple(map(list, zip(*rows, strict=True)))


def repeated_id(row: Values) -> str:
    """What a row has for an id, where another position of the room has that id already."""
    return f"{row[_ID]}~{row[1]}:{row[2]}"


def to_id(row: Row[Any]) -> str:
    """The id of the event that a row holds."""
    id: str = row.message_id
    return id.removesuffix(f"~{row.epoch}:{row.log_offset}")


def to_event(row: Row[Any]) -> LoggedEvent:
    """The event that a row holds; empty `data` where its payload is not kept."""
    audience = msgspec.json.decode(row.audience, type=Audience) if row.audience is not None else None
    data = row.data.encode() if row.data is not None else b""
    return LoggedEvent(
        row.room_id, row.type, data, to_id(row), row.epoch, row.log_offset, row.timestamp, row.user_id or None, audience
    )  # fmt: skip
