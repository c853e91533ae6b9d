"""The tables of the queues for whoever looks after them: how a queue stands, its dead letters, another chance for those, and an end of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ...clock import Clock
from ...errors import ValidationError
from ..queue import QueueDraft, QueueLimits, QueueStats, StoredLetter
from .queue_values import SLICE, among, find_now, notify, to_row
from .schema import queue_counts, queue_letters, queue_messages

q, letters, counts = queue_messages.c, queue_letters.c, queue_counts.c


class QueueOverview:
    """See `queue.QueueStore` for what each method promises."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def stats(self, connection: Connection, queue: str) -> QueueStats:
        """See `QueueStore.stats`."""
        now = find_now(connection, self._clock)
        is_waiting = q.in_flight.is_(False) & (q.due.is_(None) | (q.due <= now))
        is_delayed = q.in_flight.is_(False) & (q.due > now)
        how_many, oldest = sa.func.count(), sa.func.min(q.enqueued_at)
        row = connection.execute(
            sa.select(
                how_many.filter(is_waiting).label("depth"),
                how_many.filter(q.in_flight).label("in_flight"),
                how_many.filter(is_delayed).label("delayed"),
                oldest.filter(is_waiting | q.in_flight).label("oldest"),
            ).where(q.queue == queue)
        ).one()
        dead = connection.scalar(sa.select(how_many).where(letters.queue == queue)) or 0
        counted = connection.execute(sa.select(counts.expired, counts.dropped).where(counts.queue == queue)).first()
        age = None if row.oldest is None else max(0.0, (now - row.oldest) / 1000)
        return QueueStats(row.depth, row.in_flight, row.delayed, dead, age, *(counted or (0, 0)))

    def names(self, connection: Connection) -> list[str]:
        """See `QueueStore.names`."""
        return sorted(connection.scalars(sa.union(sa.select(q.queue), sa.select(letters.queue))))

    def dead_letters(self, connection: Connection, queue: str, limit: int, before: str | None) -> list[StoredLetter]:
        """See `QueueStore.dead_letters`."""
        query = sa.select(queue_letters).where(letters.queue == queue).order_by(letters.seq.desc()).limit(limit)
        if before is not None:
            if not (before.isascii() and before.isdecimal()):
                raise ValidationError("before: the place of a dead letter is expected")
            query = query.where(letters.seq < int(before))
        return [_as_letter(row) for row in connection.execute(query)]

    def find_last_letter(self, connection: Connection, queue: str) -> int:
        """The `seq` of the letter buried last; 0 where there is none."""
        return connection.scalar(sa.select(sa.func.max(letters.seq)).where(letters.queue == queue)) or 0

    def requeue(self, connection: Connection, queue: str, ids: Sequence[str] | None, limits: QueueLimits, last: int) -> int:
        """Move up to `SLICE` letters back, the longest dead first and none buried after `last`; how many it were."""
        now = find_now(connection, self._clock)
        query = sa.select(queue_letters).where(letters.queue == queue, letters.seq <= last).order_by(letters.seq).limit(SLICE).with_for_update()
        if ids is not None:
            query = query.where(among(connection, letters.message_id, ids))
        found = connection.execute(query).all()
        if found:
            drafts = [QueueDraft(row.message_id, row.data.encode(), row.message_key, ttl=limits.ttl) for row in found]
            connection.execute(queue_messages.insert().inline(), [to_row(queue, draft, now) for draft in drafts])
            connection.execute(queue_letters.delete().where(among(connection, letters.seq, [row.seq for row in found])))
            notify(connection)
        return len(found)

    def purge(self, connection: Connection, queue: str, dead: bool) -> int:
        """Remove up to `SLICE` messages or letters; how many it were. Resets the counters with the last messages."""
        table = queue_letters if dead else queue_messages
        query = sa.select(table.c.seq).where(table.c.queue == queue).order_by(table.c.seq).limit(SLICE).with_for_update()
        found = connection.scalars(query).all()
        connection.execute(table.delete().where(among(connection, table.c.seq, found)))
        if not dead and len(found) < SLICE:
            connection.execute(queue_counts.update().where(counts.queue == queue).values(expired=0, dropped=0))
        return len(found)


def _as_letter(row: Any) -> StoredLetter:
    return StoredLetter(
        str(row.seq), row.message_id, row.data.encode(), row.attempts, row.reason, row.enqueued_at / 1000, row.buried_at / 1000, row.message_key
    )
