"""Single values of a database, in `realtime_meta`: read and set inside a transaction of the caller's."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ..epochs import new_epoch
from .schema import meta, rooms

GENERATION = "generation"
"""How often a server has become the one that writes the log."""
FRESH_EPOCH = "fresh_epoch"
"""The epoch of every room that is not in `realtime_rooms`."""
IDENTITY = "identity"
"""A random name of this database, which its copies share."""
COMMITS = "commits"
"""How often the log was written: of two copies of one database, the older one has fewer."""

_COUNT = f"UPDATE realtime_meta SET value = CAST(value AS INTEGER) + 1 WHERE key = '{COMMITS}' RETURNING value"


def read_meta(connection: Connection, key: str) -> str | None:
    """A value; None where there is none."""
    return connection.scalar(select(meta.c.value).where(meta.c.key == key))


def write_meta(connection: Connection, key: str, value: str) -> None:
    """Set a value, whether or not there was one."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(meta).values(key=key, value=value)
    connection.execute(insert.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": value}))


def next_generation(connection: Connection) -> int:
    """Count one more writer. Whoever calls it holds the writer's lock."""
    generation = int(read_meta(connection, GENERATION) or 0) + 1
    write_meta(connection, GENERATION, str(generation))
    return generation


def count_commit(connection: Connection) -> int:
    """Count one more transaction of the writer; how many there were, this one included."""
    count = connection.exec_driver_sql(_COUNT).scalar()
    if count is None:
        write_meta(connection, COMMITS, "1")
    return int(count or 1)


def identity(connection: Connection) -> str:
    """The random name of this database, given now where it has none."""
    found = read_meta(connection, IDENTITY)
    if found is None:
        found = secrets.token_hex(8)
        write_meta(connection, IDENTITY, found)
    return found


def renew_epochs(connection: Connection) -> int:
    """Begin a new epoch in every room, with the offset 1; how many rooms had one. Whoever calls it holds the writer's lock."""
    count = connection.execute(delete(rooms)).rowcount
    write_meta(connection, FRESH_EPOCH, new_epoch())
    return count
