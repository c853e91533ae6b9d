"""The outbox's table: what a caller's transaction leaves there, read in the order of transactions, and taken out when the log has it.

It decides nothing about events: what may be published is `storage.outbox`, when it is relayed `storage.relay`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ...errors import ConfigurationError
from ...protocol.codec import encode_json
from ..base import Draft
from .database import Database
from .schema import dead_messages, outbox

CHANNEL = "realtime_outbox"
"""On which PostgreSQL tells that a transaction with rows has been committed: see the trigger in `migrations/versions/0003_outbox.py`."""

# A visible row's transaction has ended; but one that began earlier may still be open, and its rows come first: any transaction before `xmin` has
# ended. A row from `xmax` on is of no transaction of this server: it came with a dump from another one.
_SETTLED = sa.text(
    "(transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    " OR transaction_id >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
)
_IN_ORDER = sa.select(outbox).order_by(outbox.c.transaction_id, outbox.c.seq)


class Waiting(Struct, frozen=True):
    """A row: an event that waits to be relayed, as its caller left it. `timestamp`: when that was, ms since 1970."""

    seq: int
    room: str
    id: str
    event: str
    data: str
    audience: str | None
    persist: bool
    timestamp: int


class Window(NamedTuple):
    """The next rows. `is_held`: there are none, but some are kept back by a transaction that is still open."""

    rows: list[Waiting]
    is_held: bool


# — the caller's side —


def insert(executor: Session | Connection, draft: Draft, timestamp: int) -> None:
    """Add a row in the executor's transaction, which begins here if there is none. `timestamp`: ms since 1970.

    Raises `ConfigurationError` where the database is none of ours, else what the driver raises, without the values of the row.
    """
    connection = executor.connection(bind_arguments={"clause": outbox}) if isinstance(executor, Session) else executor
    if connection.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"outbox.publish: the outbox is in SQLite or PostgreSQL; this session is connected to {connection.dialect.name}")
    row = {
        "room_id": draft.room,
        "message_id": draft.id,
        "type": draft.event,
        "data": draft.data.decode(),
        "audience": encode_json(draft.audience).decode() if draft.audience is not None else None,
        "persist": draft.persist,
        "timestamp": timestamp,
    }
    try:
        connection.execute(outbox.insert().inline(), row)
    except DBAPIError as error:
        if _is_missing_table(error):
            raise ConfigurationError(
                "outbox.publish: this database has no table realtime_outbox; `aibos-realtime database upgrade --database-url URL` makes it"
            ) from None
        error.hide_parameters = True
        raise
    if isinstance(executor, Session):
        _ring_after_commit(executor)


def _is_missing_table(error: DBAPIError) -> bool:
    # 42P01 is undefined_table in appendix A of PostgreSQL's manual; psycopg2 has its own name for the field.
    states = (getattr(error.orig, name, None) for name in ("sqlstate", "pgcode"))
    return "42P01" in states or str(error.orig) == f"no such table: {outbox.name}"


# — waking a relay in the same process —

_bells: set[Callable[[], None]] = set()


def _ring_after_commit(session: Session) -> None:
    if _bells and not event.contains(session, "after_commit", _ring):
        event.listen(session, "after_commit", _ring)


def _ring(session: Session) -> None:
    for ring in tuple(_bells):
        ring()


# — the relay's side —


def read(connection: Connection, limit: int) -> Window:
    """The next rows in their order: that of their transactions, where one that began after another's end comes later.

    A row is left out as long as a transaction is open that may still add one before it.
    """
    is_postgresql = connection.dialect.name == "postgresql"
    query = _IN_ORDER.limit(limit)
    found = connection.execute(query.where(_SETTLED) if is_postgresql else query)
    rows = [Waiting(row.seq, row.room_id, row.message_id, row.type, row.data, row.audience, row.persist, row.timestamp) for row in found]
    return Window(rows, not rows and is_postgresql and connection.scalar(sa.select(sa.exists(outbox.select()))) is True)


def clear(connection: Connection, relayed: Iterable[int], dead: Sequence[tuple[Waiting, str]], now: int) -> None:
    """Take out rows: those that were relayed, by `seq`, and those that cannot be, which go to the dead messages with a reason. `now`: ms."""
    buried = [
        {
            "room_id": row.room,
            "message_id": row.id,
            "type": row.event,
            "data": row.data if row.persist else None,
            "reason": reason,
            "timestamp": row.timestamp,
            "buried": now,
        }
        for row, reason in dead
    ]
    if buried:
        connection.execute(dead_messages.insert(), buried)
    gone = [*relayed, *(row.seq for row, _ in dead)]
    connection.execute(outbox.delete().where(outbox.c.seq.in_(gone)))


async def listen(database: Database, ring: Callable[[], None]) -> None:
    """Call `ring` when rows may have come: after commits of this process's `Session`s, and on PostgreSQL of everybody's. Until cancelled.

    Raises `StoreUnavailable` when the connection that listens is lost.
    """
    loop = asyncio.get_running_loop()

    def ring_in_loop() -> None:
        with suppress(RuntimeError):  # the loop was closed without cancelling this, and the thread that commits is not to blame
            loop.call_soon_threadsafe(ring)

    _bells.add(ring_in_loop)
    try:
        await database.listen(CHANNEL, ring)
    finally:
        _bells.discard(ring_in_loop)


def measure(connection: Connection) -> tuple[int, int | None]:
    """How many rows wait, and the `timestamp` of the oldest; None where none does."""
    count, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(outbox.c.timestamp)).select_from(outbox)).one()
    return count, oldest
