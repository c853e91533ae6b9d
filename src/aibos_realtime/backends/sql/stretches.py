"""Going through many rows in stretches that take a few milliseconds each, so that writers in between never wait for long.

Who wants rows gone, and why, is `storage/retention` (age and number) and `storage/subjects` (data protection).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Text, and_, bindparam, cast, delete, exists, func, literal, or_, select, text, tuple_, update

from ...protocol.messages import Position
from ..base import Audience
from .messages import Point
from .schema import SERVER, dead_messages, messages, rooms

ERASED = "erased-"
"""How the id begins of what was erased."""

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


def find_ends(connection: Connection, room: str, until: Point) -> list[Position]:
    """How far the log of a room must go, in each of its epochs, for as many rows to be gone as there are up to a point, this included.

    By offset, not by time: a clock that was set back must leave no hole in a log. None where another node removes rows of the room just now: each
    statement sees what is there when it begins, and what was counted before would be too much.
    """
    place = messages.c.room_id == room, messages.c.epoch.is_not(None)
    counting = select(messages.c.epoch, func.count()).where(*place, _point <= until).group_by(messages.c.epoch).order_by(messages.c.epoch)
    counts = connection.execute(counting).all()
    ends = []
    for epoch, count in counts:
        offsets = select(messages.c.log_offset).where(messages.c.room_id == room, messages.c.epoch == epoch).order_by(messages.c.log_offset)
        ends += [Position(epoch, offset) for offset in connection.scalars(offsets.offset(count - 1).limit(1))]
    return ends if connection.execute(counting).all() == counts else []


def delete_log_until(connection: Connection, room: str, last: Position, limit: int) -> int:
    """Delete the first rows of an epoch of a room's log up to a place, this included, `limit` of them at most; how many there were."""
    place = messages.c.room_id == room, messages.c.epoch == last.epoch, messages.c.log_offset <= last.offset
    first = select(messages.c.seq).where(*place).order_by(messages.c.log_offset).limit(limit)
    return connection.execute(delete(messages).where(messages.c.seq.in_(first))).rowcount


def delete_until(connection: Connection, room: str, until: Point, limit: int) -> int:
    """Delete the oldest rows of a room beside its log up to a point, this included, `limit` of them at most; how many there were."""
    beside = messages.c.room_id == room, messages.c.epoch.is_(None), _point <= until
    oldest = select(messages.c.seq).where(*beside).order_by(messages.c.timestamp, messages.c.seq).limit(limit)
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


def erase_of_user(connection: Connection, user: str, after: int, window: int) -> tuple[int, int | None]:
    """Erase what a user published, and his id from the audiences of others, in a stretch of `window` rows after a `seq`.

    Returns how many messages were erased, and where to go on.
    """
    last = connection.scalar(select(func.max(messages.c.seq)))
    stretch = and_(messages.c.seq > after, messages.c.seq <= after + window)
    found = connection.execute(select(messages.c.seq, messages.c.data).where(stretch, messages.c.user_id == user)).all()
    _erase_rows(connection, [row.seq for row in found])
    # The text of his id may stand for other things too: only the decoded value tells.
    named = messages.c.audience.contains(msgspec.json.encode(user).decode(), autoescape=True)
    changed = []
    for row in connection.execute(select(messages.c.seq, messages.c.audience).where(stretch, named)):
        audience = msgspec.json.decode(row.audience, type=Audience)
        if (other := _without(audience, user)) != audience:
            changed.append({"row": row.seq, "other": msgspec.json.encode(other).decode()})
    if changed:
        connection.execute(update(messages).where(messages.c.seq == bindparam("row")).values(audience=bindparam("other")), changed)
    return sum(row.data is not None for row in found), after + window if last is not None and after + window < last else None


def _without(audience: Audience, user: str) -> Audience:
    """An audience that does not name a user, and is the same for everybody else. Without its only user it is for nobody."""
    users = None if audience.users is None else audience.users - {user}
    where = None if audience.where is None else {key: _unnamed(key, wanted, user) for key, wanted in audience.where.items()}
    return Audience(where, audience.filter, users, audience.exclude - {user})


def _unnamed(key: str, wanted: object, user: str) -> object:
    """What a condition wants, without a user's id. The other operators compare ids with a text, which names nobody."""
    if key in ("id__in", "id__not_in") and isinstance(wanted, list):
        return [one for one in wanted if one != user]
    return "" if key in ("id", "id__eq", "id__ne") and wanted == user else wanted  # "" is nobody's id


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
    nothing: dict[str, Any] = {"data": None, "audience": None, "user_id": SERVER, "message_id": literal(ERASED) + cast(messages.c.seq, Text)}
    connection.execute(update(messages).where(among, messages.c.epoch.is_not(None)).values(**nothing))
    connection.execute(delete(messages).where(among, messages.c.epoch.is_(None)))
