"""The queues: unfinished messages, dead letters, idempotency keys, counters."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "realtime_queue",
        sa.Column("seq", sequence, sa.Identity(), primary_key=True),
        sa.Column("queue", name, nullable=False),
        sa.Column("message_id", name, nullable=False),
        sa.Column("message_key", name),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("enqueued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("due", sa.BigInteger),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("in_flight", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("takes", sa.Integer, nullable=False, server_default="0"),
        # A place that was free again could be taken by another message while somebody still holds the first one's lease.
        sqlite_autoincrement=True,
    )
    has_key = sa.text("message_key IS NOT NULL")
    op.create_index("realtime_queue_due", "realtime_queue", ["queue", "due", "seq"])
    op.create_index("realtime_queue_line", "realtime_queue", ["queue", "message_key", "line", "seq"], sqlite_where=has_key, postgresql_where=has_key)
    op.create_table(
        "realtime_queue_letters",
        sa.Column("seq", sequence, sa.Identity(), primary_key=True),
        sa.Column("queue", name, nullable=False),
        sa.Column("message_id", name, nullable=False),
        sa.Column("message_key", name),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("enqueued_at", sa.BigInteger, nullable=False),
        sa.Column("buried_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("realtime_queue_letters_order", "realtime_queue_letters", ["queue", "seq"])
    op.create_index("realtime_queue_letters_id", "realtime_queue_letters", ["queue", "message_id"])
    op.create_table(
        "realtime_queue_keys",
        sa.Column("queue", name, primary_key=True),
        sa.Column("idempotency_key", name, primary_key=True),
        sa.Column("message_id", name, nullable=False),
        sa.Column("digest", name, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("realtime_queue_keys_age", "realtime_queue_keys", ["queue", "expires_at"])
    op.create_table(
        "realtime_queue_counts",
        sa.Column("queue", name, primary_key=True),
        sa.Column("expired", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("dropped", sa.BigInteger, nullable=False, server_default="0"),
    )
