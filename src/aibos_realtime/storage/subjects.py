"""Whom a request for data protection is about (a room, a user, a tenant), and going through all that is stored of it: to export, to erase."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..backends.sql import messages as sql
from ..backends.sql import stretches
from ..backends.sql.database import Database
from ..errors import ValidationError
from ..protocol.limits import user_stream
from .messages import Erased, Message, check_room, check_user, to_message

PAGE = 500
ROWS_AT_ONCE = 1000
WINDOW = 10_000
"""Rows that are looked at in one go for what a user published: there is no index on users."""

_BEGINNING = (-(2**62), -1)


class Subject:
    """Exactly one of the three.

    A user: what he published anywhere, and his own stream. A tenant: the room `tenant_<id>` and every room whose name begins with `tenant_<id>:`.
    """

    def __init__(self, room: str | None, user: str | None, tenant: str | None) -> None:
        if (room is not None) + (user is not None) + (tenant is not None) != 1:
            raise ValidationError("exactly one of room=, user= and tenant= is needed")
        self.user = user
        self.prefix: str | None = None
        if room is not None:
            check_room("room", room)
            self.room = room
        elif user is not None:
            check_user("user", user)
            self.room = user_stream(user)
        else:
            assert tenant is not None
            check_user("tenant", tenant)
            self.room = f"tenant_{tenant}"
            self.prefix = f"{self.room}:"

    def covers(self, room: str, user_id: str | None) -> bool:
        """Whether an event of a room, published by a user, is his."""
        if room == self.room or (self.user is not None and user_id == self.user):
            return True
        return self.prefix is not None and room.startswith(self.prefix)

    async def rooms(self, database: Database) -> AsyncIterator[str]:
        """The rooms that are wholly his."""
        yield self.room
        if self.prefix is None:
            return
        last = self.prefix
        while found := await database.read(stretches.read_rooms, last, PAGE):
            for one in found:
                if not one.room.startswith(self.prefix):
                    return
                yield one.room
            last = found[-1].room


async def export(database: Database, subject: Subject) -> AsyncIterator[Message]:
    """Every message of a subject, room by room by time, and then what a user published elsewhere."""
    async for room in subject.rooms(database):
        after = _BEGINNING
        while True:
            rows = await database.read(sql.read_page, room, limit=PAGE, after=after, oldest_first=True)
            for row in rows:
                yield to_message(row)
            if len(rows) < PAGE:
                break
            after = (rows[-1]["timestamp"], rows[-1]["seq"])
    if subject.user is not None:
        user, start = subject.user, 0
        going = True
        while going:
            rows, following = await database.read(sql.read_of_user, user, start, WINDOW, subject.room)
            for row in rows:
                yield to_message(row)
            going, start = following is not None, following or start


async def erase(database: Database, subject: Subject) -> Erased:
    """Take the payloads, audiences and ids of a subject out of the store; where a row has a place in a log, the place stays."""
    erased = 0
    async for room in subject.rooms(database):
        point: tuple[int, int] | None = _BEGINNING
        while point is not None:
            count, point = await database.write(stretches.erase_in_room, room, point, ROWS_AT_ONCE)
            erased += count
    if (user := subject.user) is not None:
        start: int | None = 0
        while start is not None:
            count, start = await database.write(stretches.erase_of_user, user, start, WINDOW)
            erased += count
    dead = await database.write(stretches.erase_dead, user, [subject.room], subject.prefix)
    return Erased(erased, dead)
