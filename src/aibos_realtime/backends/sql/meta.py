"""Single values of a database, in `realtime_meta`: read and set inside a transaction of the caller's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ..epochs import new_epoch
from .schema import meta, rooms

GENERATION = "generation"
"""How often the right to write the log has gone to somebody else."""
FRESH_EPOCH = "fresh_epoch"
"""The epoch of every room that is not in `realtime_rooms`."""
IDENTITY = "identity"
"""A random name of this database, which its copies share."""
COMMITS = "commits"
"""How often the log was written: of two copies of one database, the older one has fewer."""
ERA = "era"
"""The generation in which nodes shared the log last, and the name of that era."""

GROUP = "group"
"""The name of the nodes that shared the log last: those that meet in one place."""

_COUNT = f"UPDATE realtime_meta SET value = CAST(value AS INTEGER) + 1 WHERE key = '{COMMITS}' RETURNING value"


def read_meta(connection: Connection, key: str) -> str | None:
    """A value; None where there is none."""
    return connection.scalar(select(meta.c.value).where(meta.c.key == key))


def write_meta(connection: Connection, key: str, value: str) -> None:
    """Set a value, whether or not there was one."""
    connection.execute(_insert(connection, key, value).on_conflict_do_update(index_elements=[meta.c.key], set_={"value": value}))


def _insert(connection: Connection, key: str, value: str) -> sqlite.Insert | postgresql.Insert:
    values = {"key": key, "value": value}
    return sqlite.insert(meta).values(values) if connection.dialect.name == "sqlite" else postgresql.insert(meta).values(values)


class Era(NamedTuple):
    """A time in which nodes share the log, and no server writes it alone. `name`: random."""

    generation: int
    name: str


def find_generation(connection: Connection) -> int:
    """How often the right to write the log has gone to somebody else."""
    return int(read_meta(connection, GENERATION) or 0)


def next_generation(connection: Connection) -> int:
    """Count one more writer. Whoever calls it holds the writer's lock."""
    generation = find_generation(connection) + 1
    write_meta(connection, GENERATION, str(generation))
    return generation


def join_era(connection: Connection, *, is_new: bool = False) -> Era:
    """The present era, or a new one where a server wrote alone since the last, or where `is_new` says so.

    Nodes do not write where rooms end, and their epochs are their own: a new era begins new epochs in all rooms, for the next server that writes
    alone. Whoever calls it shares the lock of the log, and nobody else runs it at the same time.
    """
    generation = find_generation(connection)
    number, _, name = (read_meta(connection, ERA) or "").partition(" ")
    if is_new or number != str(generation):
        generation, name = next_generation(connection), secrets.token_hex(8)
        renew_epochs(connection)
        write_meta(connection, ERA, f"{generation} {name}")
    return Era(generation, name)


def join_group(connection: Connection, group: str, lives: Callable[[str], bool]) -> bool:
    """Note which nodes share the log; False, and nothing is changed, where others do. `lives(name)`: whether a group has any node left.

    Two groups would each give positions to the same rooms. Whoever calls it shares the lock of the log, and nobody else runs it at the same time.
    """
    last = read_meta(connection, GROUP)
    if last == group:
        return True
    if last is not None and lives(last):
        return False
    write_meta(connection, GROUP, group)
    return True


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
        connection.execute(_insert(connection, IDENTITY, secrets.token_hex(8)).on_conflict_do_nothing())
        found = read_meta(connection, IDENTITY)  # the name that the first of several nodes gave, which begin at one moment
        assert found is not None
    return found


def renew_epochs(connection: Connection) -> int:
    """Begin a new epoch in every room, with the offset 1; how many rooms had one. Whoever calls it holds the writer's lock."""
    count = connection.execute(delete(rooms)).rowcount
    write_meta(connection, FRESH_EPOCH, new_epoch())
    return count
