"""The tables, as SQLAlchemy Core knows them. How a database comes to have them is the business of `migrations/`.

Text that is compared or ordered has the collation "C" on PostgreSQL: bytewise, as SQLite does, so that ranges of names mean the same on both.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Identity, Index, Integer, MetaData, Table, Text, UniqueConstraint, false, text

metadata = MetaData()

Name = Text().with_variant(Text(collation="C"), "postgresql")
"""An id or a name."""

Sequence = BigInteger().with_variant(Integer, "sqlite")
"""A key that counts up by itself: SQLite does that for the type INTEGER alone, which has 64 bits there."""

SERVER = ""
"""`user_id` of what the server itself published."""

messages = Table(
    "realtime_messages",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("room_id", Name, nullable=False),
    Column("epoch", Name),
    Column("log_offset", BigInteger),
    Column("message_id", Name, nullable=False),
    Column("user_id", Name, nullable=False, server_default=SERVER),
    Column("type", Name, nullable=False),
    Column("data", Text),
    Column("audience", Text),
    Column("timestamp", BigInteger, nullable=False),
    UniqueConstraint("room_id", "user_id", "message_id", name="realtime_messages_id"),
    UniqueConstraint("room_id", "epoch", "log_offset", name="realtime_messages_position"),
    Index("realtime_messages_time", "room_id", "timestamp", "seq"),
)
"""Every message. `epoch` and `log_offset`: its place in the room's log; both NULL for one that was stored beside the log.

`data`: JSON as it was published; NULL where the payload is not kept. `audience`: JSON of `backends.base.Audience`. `timestamp`: ms since 1970, UTC.
"""

rooms = Table(
    "realtime_rooms",
    metadata,
    Column("room_id", Name, primary_key=True),
    Column("epoch", Name, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
    Column("touched", BigInteger, nullable=False),
)
"""Where each room's log ends. A room that is not here has the epoch `realtime_meta.fresh_epoch` and the offset 0."""

meta = Table("realtime_meta", metadata, Column("key", Name, primary_key=True), Column("value", Text, nullable=False))
"""Single values: see `meta.py`."""

dead_messages = Table(
    "realtime_dead_messages",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("room_id", Name, nullable=False),
    Column("message_id", Name, nullable=False),
    Column("user_id", Name, nullable=False, server_default=SERVER),
    Column("type", Name, nullable=False),
    Column("data", Text),
    Column("reason", Text, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("buried", BigInteger, nullable=False),
)
"""Messages that the database refused, with the reason."""

outbox = Table(
    "realtime_outbox",
    metadata,
    Column("seq", Sequence, Identity(), primary_key=True),
    Column("transaction_id", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("room_id", Name, nullable=False),
    Column("message_id", Name, nullable=False),
    Column("type", Name, nullable=False),
    Column("data", Text, nullable=False),
    Column("audience", Text),
    Column("persist", Boolean, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Index("realtime_outbox_order", "transaction_id", "seq"),
    sqlite_autoincrement=True,
)
"""Events that callers left here in their own transactions, until the log has them. `transaction_id`: of PostgreSQL; 0 on SQLite."""

_HAS_KEY = text("message_key IS NOT NULL")

queue_messages = Table(
    "realtime_queue",
    metadata,
    Column("seq", Sequence, Identity(), primary_key=True),
    Column("queue", Name, nullable=False),
    Column("message_id", Name, nullable=False),
    Column("message_key", Name),
    Column("data", Text, nullable=False),
    Column("enqueued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("due", BigInteger),
    Column("line", Integer, nullable=False),
    Column("in_flight", Boolean, nullable=False, server_default=false()),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("takes", Integer, nullable=False, server_default="0"),
    Index("realtime_queue_due", "queue", "due", "seq"),
    Index("realtime_queue_line", "queue", "message_key", "line", "seq", sqlite_where=_HAS_KEY, postgresql_where=_HAS_KEY),
    sqlite_autoincrement=True,
)
"""The unfinished messages of all queues; times in ms since 1970. `due`: from when on it may be taken; 0: in the order of sending, 1: given back, and
taken before those, NULL: held back behind an earlier one of its key. `line`: see `queue_order.Line`. `attempt`: what the worker is told; `takes`: how
often it was handed out."""

queue_letters = Table(
    "realtime_queue_letters",
    metadata,
    Column("seq", Sequence, Identity(), primary_key=True),
    Column("queue", Name, nullable=False),
    Column("message_id", Name, nullable=False),
    Column("message_key", Name),
    Column("data", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("enqueued_at", BigInteger, nullable=False),
    Column("buried_at", BigInteger, nullable=False),
    Index("realtime_queue_letters_order", "queue", "seq"),
    Index("realtime_queue_letters_id", "queue", "message_id"),
    sqlite_autoincrement=True,
)
"""The dead letters of all queues."""

queue_keys = Table(
    "realtime_queue_keys",
    metadata,
    Column("queue", Name, primary_key=True),
    Column("idempotency_key", Name, primary_key=True),
    Column("message_id", Name, nullable=False),
    Column("digest", Name, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("realtime_queue_keys_age", "queue", "expires_at"),
)
"""Which message an idempotency key stands for until `expires_at`, and a digest of that one's data and key."""

queue_counts = Table(
    "realtime_queue_counts",
    metadata,
    Column("queue", Name, primary_key=True),
    Column("expired", BigInteger, nullable=False, server_default="0"),
    Column("dropped", BigInteger, nullable=False, server_default="0"),
)
"""What was counted since the last purge. Its row is also what a sender to a queue of bounded size locks."""
