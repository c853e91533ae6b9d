"""The tables of the queues: what each call does in its transaction. Who is woken up afterwards is the business of `queue.py`.

Several workers share a queue without waiting for one another: on PostgreSQL each passes over rows that another has locked (SKIP LOCKED); SQLite
has one writing transaction at a time. Rows that may have to be waited for are always locked by rising `seq`, so that nobody waits in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from ...clock import Clock
from ...errors import IdempotencyConflict, QueueFull
from ..queue import QueueDraft, QueueLimits, Sent, Taken, Verdict
from .queue_order import KEYS_AT_ONCE, Candidates, free_followers
from .queue_values import RELEASED, SLICE, Line, among, find_now, insert_into, notify, to_ms, to_row
from .schema import queue_counts, queue_keys, queue_letters, queue_messages

MAX_NAMES = 1000
"""Queues that something is remembered of between calls, where any name is allowed."""
SWEEP_EVERY = 10.0
"""Seconds between two removals of idempotency keys that are over."""

T = TypeVar("T")

Outcome = Sent | QueueFull | IdempotencyConflict

q, letters, keys, counts = queue_messages.c, queue_letters.c, queue_keys.c, queue_counts.c


class Handed(NamedTuple):
    """What a `take` found. `rest`: seconds until the next delay or lease is over; 0 where there is more to take; None where nothing is planned."""

    taken: list[Taken]
    rest: float | None


class Size(NamedTuple):
    """How many messages a queue had when `last` was the highest `seq` of all."""

    size: int
    last: int


class KeyRace(Exception):
    """Another transaction used one of the idempotency keys in the meantime: the whole of this one has to begin anew."""


class QueueRows:
    """See `queue.QueueStore` for what each method promises. All times in the tables are ms since 1970."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._swept: dict[str, float] = {}
        self._sizes: dict[str, Size] = {}

    # — sending —

    def send(self, connection: Connection, queue: str, drafts: Sequence[QueueDraft], limits: QueueLimits) -> list[Outcome]:
        """Raises `KeyRace`."""
        now = find_now(connection, self._clock)
        room = self._find_room(connection, queue, len(drafts), limits, now)
        known = self._find_keys(connection, queue, drafts, now)
        results: list[Outcome] = []
        rows: list[dict[str, Any]] = []
        claims: list[QueueDraft] = []
        for draft in drafts:
            first = known.get(draft.idempotency_key) if draft.idempotency_key is not None else None
            if first is not None:
                results.append(Sent(first[0], duplicate=True) if first[1] == _digest(draft) else IdempotencyConflict())
            elif room is not None and len(rows) >= room:
                results.append(QueueFull())
            else:
                if draft.idempotency_key is not None:
                    known[draft.idempotency_key] = draft.id, _digest(draft)
                    claims.append(draft)
                rows.append(to_row(queue, draft, now))
                results.append(Sent(draft.id))
        if claims:
            self._claim(connection, queue, claims, limits, now)
        if rows:
            connection.execute(queue_messages.insert().inline(), rows)
            notify(connection)
        return results

    def _find_room(self, connection: Connection, queue: str, wanted: int, limits: QueueLimits, now: int) -> int | None:
        """How many more messages there may be; None: any number. Until the end of the transaction nobody else adds some."""
        if limits.max_size is None:
            return None
        if connection.dialect.name == "postgresql":
            row = sa.select(queue_counts).where(counts.queue == queue).with_for_update()
            if connection.execute(row).first() is None:
                self._count(connection, queue)
        # Counting takes time, with many messages. Those that are there now are at most those that were counted, and the rows added since.
        last = connection.scalar(sa.select(sa.func.max(q.seq))) or 0
        known = self._sizes.get(queue)
        if known is not None and (at_most := known.size + max(0, last - known.last)) + wanted <= limits.max_size:
            return limits.max_size - at_most
        size = connection.scalar(sa.select(sa.func.count()).select_from(queue_messages).where(q.queue == queue)) or 0
        _remember(self._sizes, queue, Size(size, last))
        if size + wanted > limits.max_size:
            size -= self._remove_expired(connection, queue, limits, now)
        return limits.max_size - size

    def _remove_expired(self, connection: Connection, queue: str, limits: QueueLimits, now: int) -> int:
        """Remove messages that are over and not in flight, which is room for more than one `send` asks for; how many."""
        return self._expire(connection, queue, self._find_expired(connection, queue, limits, now, q.in_flight.is_(False)))

    def _find_expired(self, connection: Connection, queue: str, limits: QueueLimits, now: int, which: sa.ColumnElement[bool]) -> list[Any]:
        query = sa.select(q.seq, q.message_key).where(q.queue == queue, which, _expiry(limits) <= now)
        return list(connection.execute(query.limit(SLICE).with_for_update(skip_locked=True)))

    def _expire(self, connection: Connection, queue: str, expired: Sequence[Any]) -> int:
        if expired:
            _delete(connection, [row.seq for row in expired])
            free_followers(connection, queue, (row.message_key for row in expired))
            self._count(connection, queue, expired=len(expired))
        return len(expired)

    def _find_keys(self, connection: Connection, queue: str, drafts: Sequence[QueueDraft], now: int) -> dict[str, tuple[str, str]]:
        """By idempotency key that is in use: the first message's id and digest."""
        wanted = [draft.idempotency_key for draft in drafts if draft.idempotency_key is not None]
        if not wanted:
            return {}
        self._sweep(connection, queue, now)
        in_use = among(connection, keys.idempotency_key, wanted) & (keys.expires_at > now)
        found = connection.execute(sa.select(queue_keys).where(keys.queue == queue, in_use))
        return {row.idempotency_key: (row.message_id, row.digest) for row in found}

    def _claim(self, connection: Connection, queue: str, claims: list[QueueDraft], limits: QueueLimits, now: int) -> None:
        until = now + to_ms(limits.idempotency_window)
        claims.sort(key=lambda draft: draft.idempotency_key or "")
        rows = [
            {"queue": queue, "idempotency_key": draft.idempotency_key, "message_id": draft.id, "digest": _digest(draft), "expires_at": until}
            for draft in claims
        ]
        insert = insert_into(connection, queue_keys)
        fresh = {name: insert.excluded[name] for name in ("message_id", "digest", "expires_at")}
        upsert = insert.on_conflict_do_update(index_elements=[keys.queue, keys.idempotency_key], set_=fresh, where=keys.expires_at <= now)
        if len(connection.execute(upsert.returning(keys.idempotency_key), rows).all()) < len(rows):
            raise KeyRace

    def _sweep(self, connection: Connection, queue: str, now: int) -> None:
        """Remove idempotency keys that are over."""
        moment = self._clock.monotonic()
        if self._swept.get(queue, -SWEEP_EVERY) + SWEEP_EVERY > moment:
            return
        _remember(self._swept, queue, moment)
        over = sa.select(keys.idempotency_key).where(keys.queue == queue, keys.expires_at <= now).limit(SLICE).with_for_update(skip_locked=True)
        if found := connection.scalars(over).all():
            connection.execute(queue_keys.delete().where(keys.queue == queue, among(connection, keys.idempotency_key, found)))

    # — taking —

    def take(self, connection: Connection, queue: str, limit: int, visibility: float, limits: QueueLimits, ordered: bool) -> Handed:
        """See `QueueStore.take`."""
        now = find_now(connection, self._clock)
        self._sweep(connection, queue, now)
        limit = min(limit, KEYS_AT_ONCE) if ordered else limit
        candidates = Candidates(connection, queue, now, _expiry(limits) <= now, ordered=ordered)
        rows = candidates.find(limit)
        candidates.hold_back()
        if rows:
            values = {"due": now + to_ms(visibility), "line": Line.FIRST, "in_flight": True, "attempt": q.attempt + 1, "takes": q.takes + 1}
            connection.execute(queue_messages.update().where(among(connection, q.seq, [row.seq for row in rows])).values(values))
        expired = candidates.expired
        lines = {row.message_key for row in expired if row.message_key is not None}
        if lines:
            is_behind = among(connection, q.message_key, lines) & (q.line == Line.HELD)
            expired += self._find_expired(connection, queue, limits, now, is_behind)
        self._expire(connection, queue, expired)
        has_more = len(rows) == limit or candidates.is_cut_short or bool(lines)
        return Handed([_as_taken(row) for row in rows], 0.0 if has_more else self._find_rest(connection, queue, now))

    def _find_rest(self, connection: Connection, queue: str, now: int) -> float | None:
        following = connection.scalar(sa.select(sa.func.min(q.due)).where(q.queue == queue, q.due > now))
        return None if following is None else max(0.0, (following - now) / 1000)

    def has_due(self, connection: Connection, queue: str) -> bool:
        """Whether `take` may find something."""
        is_due = sa.select(q.seq).where(q.queue == queue, q.due <= find_now(connection, self._clock))
        return connection.scalar(sa.select(sa.exists(is_due))) is True

    # — afterwards —

    def settle(self, connection: Connection, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        """See `QueueStore.settle`."""
        now = find_now(connection, self._clock)
        current = _lock_current(connection, queue, [verdict.taken for verdict in verdicts])
        counted = [current.pop(verdict.taken.lease, None) is not None for verdict in verdicts]
        valid = [verdict for verdict, does_count in zip(verdicts, counted, strict=True) if does_count]
        gone = [verdict for verdict in valid if verdict.kind in ("done", "dead")]
        if gone:
            _delete(connection, [_seq_of(verdict.taken) for verdict in gone])
            free_followers(connection, queue, (verdict.taken.key for verdict in gone))
        if dead := [verdict for verdict in gone if verdict.kind == "dead"]:
            self._bury(connection, queue, dead, limits, now)
        self._put_back(connection, [verdict for verdict in valid if verdict.kind in ("retry", "release")], now)
        return counted

    def _put_back(self, connection: Connection, verdicts: list[Verdict], now: int) -> None:
        rows = [
            {"row": _seq_of(one.taken), "due": RELEASED, "less": 1}
            if one.kind == "release"
            else {"row": _seq_of(one.taken), "due": max(RELEASED + 1, now + to_ms(one.delay)), "less": 0}
            for one in verdicts
        ]
        if rows:
            values = {
                "due": sa.bindparam("due", type_=sa.BigInteger),
                "in_flight": False,
                "attempt": q.attempt - sa.bindparam("less", type_=sa.Integer),
            }
            connection.execute(queue_messages.update().where(q.seq == sa.bindparam("row", type_=sa.BigInteger)).values(values), rows)
            notify(connection)

    def _bury(self, connection: Connection, queue: str, verdicts: list[Verdict], limits: QueueLimits, now: int) -> None:
        rows = [
            {
                "queue": queue,
                "message_id": taken.id,
                "message_key": taken.key,
                "data": taken.data.decode(),
                "attempts": taken.attempt,
                "reason": reason,
                "enqueued_at": to_ms(taken.enqueued_at),
                "buried_at": now,
            }
            for taken, reason in ((verdict.taken, verdict.reason) for verdict in verdicts)
        ]
        connection.execute(queue_letters.insert().inline(), rows)
        oldest_kept = sa.select(letters.seq).where(letters.queue == queue).order_by(letters.seq.desc()).offset(limits.max_dead).limit(1)
        if (last := connection.scalar(oldest_kept)) is not None:
            dropped = connection.execute(queue_letters.delete().where(letters.queue == queue, letters.seq <= last)).rowcount
            self._count(connection, queue, dropped=dropped)

    def extend(self, connection: Connection, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        """See `QueueStore.extend`."""
        now = find_now(connection, self._clock)
        current = _lock_current(connection, queue, taken)
        if current:
            is_ours = among(connection, q.seq, list(current.values()))
            connection.execute(queue_messages.update().where(is_ours).values(due=now + to_ms(visibility)))
        return [one.lease in current for one in taken]

    # — inside —

    def _count(self, connection: Connection, queue: str, *, expired: int = 0, dropped: int = 0) -> None:
        insert = insert_into(connection, queue_counts).values(queue=queue, expired=expired, dropped=dropped)
        more = {"expired": counts.expired + expired, "dropped": counts.dropped + dropped}
        connection.execute(insert.on_conflict_do_update(index_elements=[counts.queue], set_=more))


def _remember(memory: dict[str, T], queue: str, value: T) -> None:
    if len(memory) >= MAX_NAMES:
        memory.clear()
    memory[queue] = value


def _expiry(limits: QueueLimits) -> sa.ColumnElement[int]:
    """When a message expires; NULL: never."""
    return q.expires_at if limits.ttl is None else sa.func.coalesce(q.expires_at, q.enqueued_at + to_ms(limits.ttl))


def _lock_current(connection: Connection, queue: str, taken: Iterable[Taken]) -> dict[str, int]:
    """By lease, the rows whose last handing out is one of these; nobody else changes them until the end of the transaction."""
    wanted = {one.lease for one in taken}
    seqs = [int(lease.partition(".")[0]) for lease in wanted]
    # Not asked for the queue: SQLite would go through all of it instead of looking each one up.
    query = sa.select(q.seq, q.takes, q.queue).where(among(connection, q.seq, seqs), q.in_flight).order_by(q.seq).with_for_update()
    found = {f"{row.seq}.{row.takes}": int(row.seq) for row in connection.execute(query) if row.queue == queue}
    return {lease: seq for lease, seq in found.items() if lease in wanted}


def _delete(connection: Connection, seqs: Sequence[int]) -> None:
    connection.execute(queue_messages.delete().where(among(connection, q.seq, seqs)))


def _as_taken(row: Any) -> Taken:
    return Taken(f"{row.seq}.{row.takes + 1}", row.attempt + 1, row.message_id, row.data.encode(), row.enqueued_at / 1000, row.message_key)


def _seq_of(taken: Taken) -> int:
    return int(taken.lease.partition(".")[0])


def _digest(draft: QueueDraft) -> str:
    return blake2b(json.dumps(draft.key).encode() + draft.data, digest_size=16).hexdigest()
