"""What alembic runs: the upgrade happens on the connection, and in the transaction, of whoever called `versions.upgrade`."""

from alembic import context

from aibos_realtime.backends.sql.schema import metadata
from aibos_realtime.backends.sql.versions import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # SQLite can, when the driver does not commit by itself; alembic takes it for one that cannot
)
with context.begin_transaction():
    context.run_migrations()
