"""What the modules of the queues' tables share: the time, the words of a row, and how a statement is given many values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY

from ...clock import Clock
from ..queue import QueueDraft

CHANNEL = "realtime_queue"
"""On which PostgreSQL tells that a transaction has put something into some queue."""
SLICE = 1000
"""Rows that one statement looks at, moves or removes at most."""
AT_ONCE, RELEASED = 0, 1
"""Values of `due`: see `schema.queue_messages`."""
FOREVER = 1e11
"""Seconds: as far as a time goes here."""


class Line(IntEnum):
    """How a message stands among those of its key."""

    WAITING = 0
    FIRST = 1
    """It was handed out before and is unfinished, so it comes before all that were not."""
    HELD = 2
    """Another one of its key comes first."""
    DELAYED = 3
    """It was sent with a delay, and keeps nobody waiting meanwhile."""


def find_now(connection: Connection, clock: Clock) -> int:
    """Ms since 1970 by a clock that all processes share: that of the server, or of the machine that SQLite's file is on."""
    if connection.dialect.name == "sqlite":
        return to_ms(clock.now())
    return int(connection.scalar(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")))


def to_ms(seconds: float) -> int:
    """Milliseconds."""
    return round(min(seconds, FOREVER) * 1000)


def among(connection: Connection, column: sa.ColumnElement[Any], values: Iterable[int] | Iterable[str]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values: one parameter and one text of the statement, however many there are."""
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.literal(list(values), ARRAY(column.type)))
    one = sa.func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value")
    return column.in_(sa.select(one.c.value))


def insert_into(connection: Connection, table: sa.Table) -> Any:
    """An INSERT that may have an ON CONFLICT, of the database's own kind."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def to_row(queue: str, draft: QueueDraft, now: int) -> dict[str, Any]:
    """A message that is sent now, for `schema.queue_messages`."""
    return {
        "queue": queue,
        "message_id": draft.id,
        "message_key": draft.key,
        "data": draft.data.decode(),
        "enqueued_at": now,
        "expires_at": None if draft.ttl is None else now + to_ms(draft.ttl),
        "due": now + to_ms(draft.delay) if draft.delay > 0 else AT_ONCE,
        "line": Line.DELAYED if draft.delay > 0 else Line.WAITING,
    }


def notify(connection: Connection) -> None:
    """Have everybody who waits look again, when this transaction commits."""
    # Equal notices of one transaction are sent once, when it commits (PostgreSQL manual, NOTIFY).
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))
