"""Going through many rows in stretches that take a few milliseconds each, so that writers in between never wait for long.

Who wants rows gone, and why, is `storage/retention` (age and number) and `storage/erasure` (data protection).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, delete, exists, func, literal, or_, select, text, tuple_, update

from .messages import Point
from .schema import SERVER, dead_messages, messages, rooms

_point = tuple_(messages.c.timestamp, messages.c.seq)

_ROOMS = text("""
    WITH RECURSIVE found(room_id) AS (
        SELECT (SELECT min(room_id) FROM realtime_messages WHERE room_id > :after)
        UNION ALL
        SELECT (SELECT min(room_id) FROM realtime_messages WHERE room_id > found.room_id) FROM found WHERE found.room_id IS NOT NULL
    )
    SELECT room_id, (SELECT min(timestamp) FROM realtime_messages WHERE room_id = found.room_id) AS oldest
    FROM found WHERE room_id IS NOT NULL LIMIT :limit
""")
"""A jump in the index from each room to the next: DISTINCT would read every row."""


class RoomAge(NamedTuple):
    """A room with messages, and the timestamp of its oldest one."""

    room: str
    oldest: int


def read_rooms(connection: Connection, after: str, limit: int) -> list[RoomAge]:
    """The rooms that have messages, in the order of their names, after a name."""
    return [RoomAge(row.room_id, row.oldest) for row in connection.execute(_ROOMS, {"after": after, "limit": limit})]


def read_grown(connection: Connection, after: int) -> tuple[list[str], int]:
    """The rooms that got messages after a `seq`, and the last `seq` there is."""
    grown = connection.scalars(select(messages.c.room_id).where(messages.c.seq > after).distinct()).all()
    return list(grown), connection.scalar(select(func.max(messages.c.seq))) or after


def find_excess(connection: Connection, room: str, keep: int) -> Point | None:
    """The first point of a room that is not among its newest `keep` rows; None where there is none."""
    order = (messages.c.timestamp.desc(), messages.c.seq.desc())
    found = connection.execute(
        select(messages.c.timestamp, messages.c.seq).where(messages.c.room_id == room).order_by(*order).offset(keep).limit(1)
    ).first()
    return None if found is None else (found.timestamp, found.seq)


def delete_until(connection: Connection, room: str, until: Point, limit: int) -> int:
    """Delete the oldest rows of a room up to a point, this included, `limit` of them at most; how many there were."""
    oldest = select(messages.c.seq).where(messages.c.room_id == room, _point <= until).order_by(messages.c.timestamp, messages.c.seq).limit(limit)
    return connection.execute(delete(messages).where(messages.c.seq.in_(oldest))).rowcount


def delete_dead(connection: Connection, before: int, limit: int) -> int:
    """Delete what was buried before a time, `limit` of them at most; how many there were."""
    oldest = select(dead_messages.c.seq).where(dead_messages.c.buried < before).order_by(dead_messages.c.seq).limit(limit)
    return connection.execute(delete(dead_messages).where(dead_messages.c.seq.in_(oldest))).rowcount


def read_forgettable(connection: Connection, before: int, after: str, limit: int) -> list[str]:
    """Rooms of the log of which nothing is stored any more and that were not touched since a time; by name, after a name."""
    empty = ~exists().where(messages.c.room_id == rooms.c.room_id)
    query = select(rooms.c.room_id).where(rooms.c.touched < before, rooms.c.room_id > after, empty)
    return list(connection.scalars(query.order_by(rooms.c.room_id).limit(limit)))


def erase_in_room(connection: Connection, room: str, after: Point, limit: int) -> tuple[int, Point | None]:
    """Erase the next `limit` rows of a room after a point; how many messages that were, and where to go on."""
    found = connection.execute(
        select(messages.c.timestamp, messages.c.seq, messages.c.data)
        .where(messages.c.room_id == room, _point > after)
        .order_by(messages.c.timestamp, messages.c.seq)
        .limit(limit)
    ).all()
    _erase_rows(connection, [row.seq for row in found])
    return sum(row.data is not None for row in found), (found[-1].timestamp, found[-1].seq) if len(found) == limit else None


def erase_of_user(connection: Connection, user: str, quoted: str, after: int, window: int) -> tuple[int, int | None]:
    """Erase what a user published, and his id from the audiences of others, in a stretch of `window` rows after a `seq`.

    `quoted`: the id as it stands in JSON. Returns how many messages were erased, and where to go on.
    """
    last = connection.scalar(select(func.max(messages.c.seq)))
    stretch = and_(messages.c.seq > after, messages.c.seq <= after + window)
    found = connection.execute(select(messages.c.seq, messages.c.data).where(stretch, messages.c.user_id == user)).all()
    _erase_rows(connection, [row.seq for row in found])
    # "" is nobody's id: a list that named him alone still names nobody else.
    named = messages.c.audience.contains(quoted, autoescape=True)
    connection.execute(update(messages).where(stretch, named).values(audience=func.replace(messages.c.audience, quoted, '""')))
    return sum(row.data is not None for row in found), after + window if last is not None and after + window < last else None


def erase_dead(connection: Connection, user: str | None, names: Sequence[str], prefix: str | None) -> int:
    """Delete what was buried of a user, or of rooms by name or prefix; how many there were."""
    chosen: list[ColumnElement[bool]] = [dead_messages.c.room_id.in_(names)]
    if user is not None:
        chosen.append(dead_messages.c.user_id == user)
    if prefix is not None:
        chosen.append(dead_messages.c.room_id.startswith(prefix, autoescape=True))
    return connection.execute(delete(dead_messages).where(or_(*chosen))).rowcount


def _erase_rows(connection: Connection, seqs: list[int]) -> None:
    """In a log the row stays, as a place without a payload: its offset is not given again. Beside the log nothing stays."""
    if not seqs:
        return
    among = messages.c.seq.in_(seqs)
    nothing: dict[str, Any] = {"data": None, "audience": None, "user_id": SERVER, "message_id": literal("erased-") + cast(messages.c.seq, Text)}
    connection.execute(update(messages).where(among, messages.c.epoch.is_not(None)).values(**nothing))
    connection.execute(delete(messages).where(among, messages.c.epoch.is_(None)))
