"""Stretches that several nodes go through at once. What they are for is tested with `storage/retention` and `storage/subjects`."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, insert

from aibos_realtime import Position
from aibos_realtime.backends.sql import stretches
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.schema import messages
from tests.servers.postgres import PostgresServer


class Interrupted:
    """A connection: before its statement of a number, somebody else does something."""

    def __init__(self, connection: Connection, server: PostgresServer, database: str, number: int, statement: str) -> None:
        self._connection = connection
        self._server = server
        self._words = statement, database
        self._left = number

    def _count(self) -> None:
        if self._left == 0:
            self._server.execute(*self._words)
        self._left -= 1

    def execute(self, statement: Any) -> Any:
        self._count()
        return self._connection.execute(statement)

    def scalars(self, statement: Any) -> Any:
        self._count()
        return self._connection.scalars(statement)


def fill(connection: Connection) -> None:
    basic: dict[str, Any] = {"room_id": "lobby", "type": "note", "data": "1"}
    rows = [
        basic | {"epoch": epoch, "log_offset": offset, "message_id": f"{epoch}-{offset}", "timestamp": offset}
        for epoch in ("e1", "e2")
        for offset in range(1, 101)
    ]
    connection.execute(insert(messages), rows)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("removed", [5, 100])
async def test_another_node_removes_what_was_counted(postgres: PostgresServer, postgres_url: str, number: int, removed: int) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    statement = f"DELETE FROM realtime_messages WHERE log_offset <= {removed}"
    async with Database(postgres_url) as database:
        await database.write(fill)

        def find(connection: Connection) -> list[Position]:
            between: Any = Interrupted(connection, postgres, name, number, statement)
            return stretches.find_ends(between, "lobby", (10, 2**62))

        found = await database.read(find)
        # Before the first statement, or after the last one, it is the business of one node.
        expected = [] if number in (1, 2, 3) or (number == 0 and removed == 100) else [Position("e1", 10), Position("e2", 10)]
        assert found == expected
