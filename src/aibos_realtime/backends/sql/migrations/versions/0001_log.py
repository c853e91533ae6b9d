"""The log of events, the stored messages, and what was refused among them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "realtime_messages",
        sa.Column("seq", sequence, primary_key=True, autoincrement=True),
        sa.Column("room_id", name, nullable=False),
        sa.Column("epoch", name),
        sa.Column("log_offset", sa.BigInteger),
        sa.Column("message_id", name, nullable=False),
        sa.Column("user_id", name, nullable=False, server_default=""),
        sa.Column("type", name, nullable=False),
        sa.Column("data", sa.Text),
        sa.Column("audience", sa.Text),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("room_id", "user_id", "message_id", name="realtime_messages_id"),
        sa.UniqueConstraint("room_id", "epoch", "log_offset", name="realtime_messages_position"),
    )
    op.create_index("realtime_messages_time", "realtime_messages", ["room_id", "timestamp", "seq"])
    op.create_table(
        "realtime_rooms",
        sa.Column("room_id", name, primary_key=True),
        sa.Column("epoch", name, nullable=False),
        sa.Column("log_offset", sa.BigInteger, nullable=False),
        sa.Column("touched", sa.BigInteger, nullable=False),
    )
    op.create_table("realtime_meta", sa.Column("key", name, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "realtime_dead_messages",
        sa.Column("seq", sequence, primary_key=True, autoincrement=True),
        sa.Column("room_id", name, nullable=False),
        sa.Column("message_id", name, nullable=False),
        sa.Column("user_id", name, nullable=False, server_default=""),
        sa.Column("type", name, nullable=False),
        sa.Column("data", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("buried", sa.BigInteger, nullable=False),
    )
