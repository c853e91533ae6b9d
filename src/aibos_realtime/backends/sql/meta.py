"""Single values of a database, in `realtime_meta`: read and set inside a transaction of the caller's."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ..epochs import new_epoch
from .schema import meta, rooms

GENERATION = "generation"
"""How often a server has become the one that writes the log."""
FRESH_EPOCH = "fresh_epoch"
"""The epoch of every room that is not in `realtime_rooms`."""


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


def renew_epochs(connection: Connection) -> int:
    """Begin a new epoch in every room, with the offset 1; how many rooms had one. Whoever calls it holds the writer's lock."""
    count = connection.execute(delete(rooms)).rowcount
    write_meta(connection, FRESH_EPOCH, new_epoch())
    return count
