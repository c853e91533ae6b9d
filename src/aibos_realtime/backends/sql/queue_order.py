"""Which messages of a queue come next. Where a worker asks for order, of each key only the first unfinished one does; the others are held back.

A message that is held back has no `due`, so no `take` looks at it again until the one before it is gone: each is held back, and let go, once at
most, however long the line behind a key is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY

from .queue_values import AT_ONCE, SLICE, Line, among
from .schema import queue_messages

KEYS_AT_ONCE = 200
"""Messages that one `take` gives at most where it asks for order: PostgreSQL has some thousand places for locks in all."""
KEY_LOCK = 1633444468
"""The class of the advisory locks of keys."""
LOOKED_AT = 1000
"""Rows that one `take` looks at in all; what it has not found by then is for the next one."""


q = queue_messages.c
_other = queue_messages.alias("other")


def _of_same_key(line: Line, column: sa.ColumnElement[int], *more: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    same = sa.and_(_other.c.queue == q.queue, _other.c.message_key == q.message_key, _other.c.line == line, *more)
    return sa.select(column).where(same).scalar_subquery()


_LINE = (
    _of_same_key(Line.FIRST, sa.func.min(_other.c.seq)).label("first"),
    _of_same_key(Line.WAITING, sa.func.min(_other.c.seq)).label("waiting"),
    # "+ 0": else both databases would rather walk down the index of `due` than look at the one whose turn it is.
    _of_same_key(Line.FIRST, sa.func.max(_other.c.due + 0), _other.c.in_flight).label("busy_until"),
)
"""Of the same key: the one whose turn it is, the first one that waits, and the end of the lease."""


class Candidates:
    """What may be handed out now: first what has a delay or lease that is over, then the others as they were sent.

    After `find`, `expired` are those that it met on the way; `hold_back` is for those that must wait for another one of their key.
    """

    def __init__(self, connection: Connection, queue: str, now: int, is_expired: sa.ColumnElement[bool], *, ordered: bool) -> None:
        self._connection = connection
        self._now = now
        self._is_ordered = ordered
        self._query = (
            sa.select(queue_messages, is_expired.label("is_expired"), *(_LINE if ordered else ()))
            .where(q.queue == queue)
            .order_by(q.due, q.seq)
            .with_for_update(of=queue_messages, skip_locked=True)
        )
        self._queue = queue
        self._left = LOOKED_AT
        self.is_cut_short = False
        """Whether there may be more at once, which `find` did not give."""
        self._keys: set[str] = set()
        self._blocked: list[tuple[int, int | None]] = []
        self.expired: list[Any] = []

    def find(self, limit: int) -> list[Any]:
        """Up to `limit` messages, locked."""
        found: list[Any] = []
        self._walk(q.due.between(1, self._now), found, limit)
        self._walk(q.due == 0, found, limit)
        keys = {row.message_key for row in found if row.message_key is not None} if self._is_ordered else None
        return self._confirm(found, keys) if keys and self._connection.dialect.name == "postgresql" else found

    def _walk(self, is_due: sa.ColumnElement[bool], found: list[Any], limit: int) -> None:
        size = limit - len(found)
        query = self._query.where(is_due)
        while len(found) < limit and self._left > 0:
            size = min(size, SLICE)
            rows = self._connection.execute(query.limit(size)).all()
            self._left -= len(rows)
            self.is_cut_short |= self._left <= 0
            self._sort(rows, found, limit)
            if len(rows) < size:
                return
            last, size = rows[-1], 2 * size
            # Equality keeps SQLite from sorting what its index has in order.
            is_after = q.seq > last.seq if last.due == 0 else sa.tuple_(q.due, q.seq) > sa.tuple_(sa.literal(last.due), sa.literal(last.seq))
            query = self._query.where(is_due, is_after)

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
        if row.line == Line.FIRST:
            # More than one can be in its turn where some workers did not ask for order.
            has_place = row.message_key not in self._keys and row.first == row.seq and (row.busy_until or 0) <= self._now
        elif row.message_key in self._keys:
            has_place = self._block(row, None)
        elif row.first is not None:
            has_place = self._block(row, row.first)
        elif row.line == Line.WAITING and row.waiting < row.seq:
            has_place = self._block(row, row.waiting)
        else:
            has_place = True
        if has_place:
            self._keys.add(row.message_key)
        return has_place

    def _confirm(self, found: list[Any], keys: set[str]) -> list[Any]:
        """Leave out those whose key somebody else has just handed out another message of.

        Two may look at the same moment, and one of them see the end of a delay that the other does not see yet: each then finds its own first
        message of the key. So a key is locked, and looked at once more by a statement that sees everything that was done until then.
        """
        key: Any = sa.func.unnest(sa.literal(sorted(keys), ARRAY(sa.Text))).column_valued("key")
        lock = sa.func.pg_try_advisory_xact_lock(KEY_LOCK, sa.func.hashtext(sa.literal(f"{self._queue} ").concat(key)))
        locked = set(self._connection.scalars(sa.select(key).where(lock)))
        is_other = among(self._connection, q.message_key, locked) & ~among(self._connection, q.seq, [row.seq for row in found])
        is_live = sa.func.bool_or(q.in_flight & (q.due > self._now))
        query = (
            sa.select(q.message_key, is_live.label("is_live")).where(q.queue == self._queue, is_other, q.line == Line.FIRST).group_by(q.message_key)
        )
        others = {row.message_key: row.is_live for row in self._connection.execute(query)}

        def has_place_still(row: Any) -> bool:
            if row.message_key is None:
                return True
            return row.message_key in locked and (row.message_key not in others or (row.line == Line.FIRST and not others[row.message_key]))

        confirmed = [row for row in found if has_place_still(row)]
        self.is_cut_short |= len(confirmed) < len(found)
        return confirmed

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
        is_there = sa.select(q.seq).where(among(self._connection, q.seq, blockers), q.line != Line.HELD).with_for_update(skip_locked=True)
        locked = {None, *self._connection.scalars(is_there)}
        held = [seq for seq, blocker in self._blocked if blocker in locked]
        self._connection.execute(queue_messages.update().where(among(self._connection, q.seq, held)).values(due=None, line=Line.HELD))


def free_followers(connection: Connection, queue: str, keys: Iterable[str | None]) -> None:
    """Let the next message of each key stand in line again, in the transaction that removed some of these keys.

    Whether it is its turn is for the next `take` to see: it may be held back once more, behind one that another transaction knew of.
    """
    rows = [{"of_queue": queue, "of_key": key} for key in sorted({key for key in keys if key is not None})]
    if rows:
        of_queue, of_key = (sa.bindparam(name, type_=sa.Text) for name in ("of_queue", "of_key"))
        is_held = sa.and_(_other.c.queue == of_queue, _other.c.message_key == of_key, _other.c.line == Line.HELD)
        following = sa.select(sa.func.min(_other.c.seq)).where(is_held).scalar_subquery()
        # What another transaction has let go, and perhaps handed out, since this statement began stays as it is.
        is_still_held = (q.seq == following) & (q.line == Line.HELD)
        connection.execute(queue_messages.update().where(is_still_held).values(due=AT_ONCE, line=Line.WAITING), rows)
