"""The outbox: events that callers leave there in transactions of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")

NOTIFY = """
CREATE FUNCTION realtime_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('realtime_outbox', ''); RETURN NULL; END $$
"""
# Once a statement, and PostgreSQL sends equal notices of one transaction once, when it commits.
TRIGGER = """
CREATE TRIGGER realtime_outbox_notify AFTER INSERT ON realtime_outbox
FOR EACH STATEMENT EXECUTE FUNCTION realtime_outbox_notify()
"""


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    current = "(pg_current_xact_id()::text::bigint)" if is_postgresql else "0"
    op.create_table(
        "realtime_outbox",
        # An identity asks no right to a sequence of whoever may insert.
        sa.Column("seq", sequence, sa.Identity(), primary_key=True),
        sa.Column("transaction_id", sa.BigInteger, nullable=False, server_default=sa.text(current)),
        sa.Column("room_id", name, nullable=False),
        sa.Column("message_id", name, nullable=False),
        sa.Column("type", name, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("audience", sa.Text),
        sa.Column("persist", sa.Boolean, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("realtime_outbox_order", "realtime_outbox", ["transaction_id", "seq"])
    if is_postgresql:
        op.execute(NOTIFY)
        op.execute(TRIGGER)
