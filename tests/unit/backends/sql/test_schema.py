"""The tables that the migrations make are those that the code knows; and the indexes that speed needs are used."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, inspect, text

from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.messages import read_page
from aibos_realtime.backends.sql.schema import metadata
from aibos_realtime.backends.sql.versions import VERSION_TABLE


async def test_the_migrations_make_the_tables_that_the_code_knows(store_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def compare(connection: Connection) -> list[object]:
        # Alembic takes the default '' of SQLite for another one than ''.
        opts = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": connection.dialect.name == "postgresql"}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, metadata))

    async with Database(store_url) as database:
        assert await database.read(compare) == []
        names = await database.read(lambda connection: inspect(connection).get_table_names())
        assert set(names) == {*metadata.tables, VERSION_TABLE} and all(name.startswith("realtime_") for name in names)


async def test_names_are_compared_bytewise(store_url: str) -> None:
    async with Database(store_url) as database:

        def work(connection: Connection) -> list[str]:
            for room in ("b", "B", "a", "_"):
                connection.execute(text("INSERT INTO realtime_rooms VALUES (:room, 'e', 1, 1)"), {"room": room})
            return list(connection.scalars(text("SELECT room_id FROM realtime_rooms ORDER BY room_id")))

        assert await database.write(work) == ["B", "_", "a", "b"]


@pytest.mark.parametrize("after", [None, (1, 1)])
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_pages_are_read_from_the_index(after: tuple[int, int] | None, oldest_first: bool) -> None:
    asked: list[str] = []

    def work(connection: Connection) -> list[str]:
        connection.connection.dbapi_connection.set_trace_callback(asked.append)  # type: ignore[union-attr]
        read_page(connection, "lobby", limit=50, after=after, oldest_first=oldest_first)
        connection.connection.dbapi_connection.set_trace_callback(None)  # type: ignore[union-attr]
        query = next(one for one in asked if one.startswith("SELECT"))
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]

    async with Database("memory://") as database:
        plan = await database.write(work)
    assert len(plan) == 1 and "USING INDEX realtime_messages_time (room_id=?" in plan[0], plan
