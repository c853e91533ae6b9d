"""Which messages of a queue come next. Where a worker asks for order, of each key only the first unfinished one does; the others are held back.

A message that is held back has no `due`, so no `take` looks at it again until the one before it is gone: each is held back, and let go, once at
most, however long the line behind a key is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from .schema import queue_messages

SLICE = 1000
"""Rows that one statement looks at, moves or removes at most."""
LOOKED_AT = 5000
"""Rows that one `take` looks at in all; what it has not found by then is for the next one."""

q = queue_messages.c
_other = queue_messages.alias("other")
_same_key = (_other.c.queue == q.queue) & (_other.c.message_key == q.message_key)
_line = (
    sa.select(sa.func.min(_other.c.seq)).where(_same_key, _other.c.due > 0, _other.c.takes > 0).scalar_subquery().label("begun"),
    sa.select(sa.func.min(_other.c.seq)).where(_same_key, _other.c.due == 0).scalar_subquery().label("first"),
    sa.select(sa.func.max(_other.c.due)).where(_same_key, _other.c.due > 0, _other.c.in_flight).scalar_subquery().label("busy_until"),
)
"""Of the same key: the first message that was handed out before and is unfinished, the first one that waits, and the end of the last lease."""


class Candidates:
    """What may be handed out now: first what has a delay or lease that is over, then the others as they were sent.

    After `find`, `expired` are those that it met on the way; `hold_back` is for those that must wait for another one of their key.
    """

    def __init__(self, connection: Connection, queue: str, now: int, is_expired: sa.ColumnElement[bool], *, ordered: bool) -> None:
        self._connection = connection
        self._now = now
        self._is_ordered = ordered
        self._query = (
            sa.select(queue_messages, is_expired.label("is_expired"), *(_line if ordered else ()))
            .where(q.queue == queue)
            .order_by(q.due, q.seq)
            .with_for_update(of=queue_messages, skip_locked=True)
        )
        self._left = LOOKED_AT
        self._keys: set[str] = set()
        self._blocked: list[tuple[int, int | None]] = []
        self.expired: list[Any] = []

    def find(self, limit: int) -> list[Any]:
        """Up to `limit` messages, locked."""
        found: list[Any] = []
        for is_due in (q.due.between(1, self._now), q.due == 0):
            size = limit - len(found)
            query = self._query.where(is_due)
            while len(found) < limit and self._left > 0:
                size = min(size, SLICE)
                rows = self._connection.execute(query.limit(size)).all()
                self._left -= len(rows)
                self._sort(rows, found, limit)
                if len(rows) < size:
                    break
                query = self._query.where(is_due, sa.tuple_(q.due, q.seq) > sa.tuple_(*map(sa.literal, (rows[-1].due, rows[-1].seq))))
                size *= 2
        return found

    def _sort(self, rows: Sequence[Any], found: list[Any], limit: int) -> None:
        for row in rows:
            if len(found) == limit:
                return
            if row.is_expired:
                self.expired.append(row)
            elif not self._is_ordered or row.message_key is None or self._has_place(row):
                found.append(row)

    def _has_place(self, row: Any) -> bool:
        """Whether a message is the first of its key."""
        if row.takes > 0:
            has_place = row.message_key not in self._keys and row.begun == row.seq and (row.busy_until or 0) <= self._now
        elif row.message_key in self._keys:
            has_place = self._block(row, None)
        elif row.begun is not None:
            has_place = self._block(row, row.begun)
        elif row.due == 0 and row.first < row.seq:
            has_place = self._block(row, row.first)
        else:
            has_place = True
        if has_place:
            self._keys.add(row.message_key)
        return has_place

    def _block(self, row: Any, blocker: int | None) -> bool:
        self._blocked.append((row.seq, blocker))
        return False

    def hold_back(self) -> None:
        """Take those that must wait out of everybody's sight.

        Whoever removes a message lets the next one of its key go, so none may be held back behind a message that is just being removed: only
        where that one is locked here, and still there. The others are looked at again by the next `take`.
        """
        if not self._blocked:
            return
        blockers = {blocker for _, blocker in self._blocked if blocker is not None}
        is_there = sa.select(q.seq).where(among(self._connection, q.seq, blockers), q.due.is_not(None)).with_for_update(skip_locked=True)
        locked = {None, *self._connection.scalars(is_there)}
        held = [seq for seq, blocker in self._blocked if blocker in locked]
        self._connection.execute(queue_messages.update().where(among(self._connection, q.seq, held)).values(due=None))


def free_followers(connection: Connection, queue: str, keys: Iterable[str | None]) -> None:
    """Let the next message of each key go, in the transaction that removed one of it."""
    rows = [{"of_queue": queue, "of_key": key} for key in sorted({key for key in keys if key is not None})]
    if rows:
        of_key = (_other.c.queue == sa.bindparam("of_queue", type_=sa.Text)) & (_other.c.message_key == sa.bindparam("of_key", type_=sa.Text))
        following = sa.select(sa.func.min(_other.c.seq)).where(of_key, _other.c.due.is_(None)).scalar_subquery()
        connection.execute(queue_messages.update().where(q.seq == following, q.due.is_(None)).values(due=0), rows)


def among(connection: Connection, column: sa.ColumnElement[Any], values: Iterable[int] | Iterable[str]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values: one parameter and one text of the statement, however many there are."""
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.literal(list(values), ARRAY(column.type)))
    one = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(one.c.value))
