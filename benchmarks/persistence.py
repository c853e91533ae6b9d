"""How fast the store takes messages and gives them back, with a million of them in it.

    python benchmarks/persistence.py [--messages 1000000] [--rooms 20] [--database-url URL] [--json]

Without `--database-url`: an SQLite file in the working directory, removed at the end. A PostgreSQL database must be empty but for the schema
(`aibos-realtime database upgrade`); its rows are removed at the end. The table is filled past the API; what is measured goes through it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

from sqlalchemy import Connection, delete, insert, text

from aibos_realtime import Message, MessagePersistence
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.schema import messages

START = datetime(2026, 1, 1, tzinfo=UTC)
DATA = {"invoiceId": "inv_001", "amount": 1000, "currency": "EUR", "lines": [{"text": "one line of an invoice", "amount": 1000}]}
ROWS_AT_ONCE = 10_000
TIMES = 300
STORED = 10_000


async def fill(database: Database, count: int, rooms: int) -> None:
    """`count` messages, one after the other in each of `rooms` rooms, a second apart."""
    start, data = int(START.timestamp() * 1000), json.dumps(DATA)

    def put(connection: Connection, first: int) -> None:
        rows = [
            {
                "room_id": f"tenant_{number % rooms}",
                "message_id": f"m{number}",
                "user_id": f"user_{number % 97}",
                "type": "invoice.created",
                "data": data,
                "timestamp": start + number * 1000,
                "epoch": "e1",
                "log_offset": number // rooms + 1,
            }
            for number in range(first, min(first + ROWS_AT_ONCE, count))
        ]
        connection.execute(insert(messages), rows)

    for first in range(0, count, ROWS_AT_ONCE):
        await database.write(lambda connection: put(connection, first))  # noqa: B023
    if database.dialect == "postgresql":
        await database.write(lambda connection: connection.execute(text("ANALYZE realtime_messages")))


async def measure(act: Callable[[], Awaitable[Any]], times: int = TIMES) -> float:
    """Milliseconds of the median call."""
    taken = []
    for _ in range(times):
        begin = perf_counter()
        await act()
        taken.append((perf_counter() - begin) * 1000)
    return round(median(taken), 3)


async def run(url: str, count: int, rooms: int) -> dict[str, float]:
    """The figures: milliseconds, and rows per second."""
    random = Random(1)
    async with MessagePersistence(database={"url": url, "statement_timeout": 60}, retention={"duration": None, "max_messages": None}) as persistence:
        begin = perf_counter()
        await fill(persistence.database, count, rooms)
        found = {"rows": count, "filled_seconds": round(perf_counter() - begin, 1)}

        def room() -> str:
            return f"tenant_{random.randrange(rooms)}"

        def moment() -> datetime:
            return START + timedelta(seconds=random.randrange(count))

        found["newest_50_ms"] = await measure(lambda: persistence.get_messages(room(), limit=50))
        found["before_50_ms"] = await measure(lambda: persistence.get_messages(room(), limit=50, before=moment()))
        found["after_50_oldest_first_ms"] = await measure(lambda: persistence.get_messages(room(), limit=50, after=moment(), oldest_first=True))
        found["offset_1000_ms"] = await measure(lambda: persistence.get_messages(room(), limit=50, offset=1000), 50)
        given = [
            Message(id=f"b{number}", room_id=f"tenant_{number % rooms}", user_id="user_1", type="invoice.created", data=DATA, timestamp=START)
            for number in range(STORED)
        ]
        begin = perf_counter()
        await persistence.store_messages(given)
        found["stored_in_batches_per_second"] = round(STORED / (perf_counter() - begin))
        single = iter(
            Message(id=f"s{number}", room_id="tenant_0", user_id="user_1", type="invoice.created", data=DATA, timestamp=START)
            for number in range(10_000)
        )
        found["store_one_ms"] = await measure(lambda: persistence.store_message(next(single)), 100)
        begin = perf_counter()
        await asyncio.gather(*(persistence.store_message(message) for message in list(single)[:5000]))
        found["stored_at_one_moment_per_second"] = round(5000 / (perf_counter() - begin))
        await persistence.database.write(lambda connection: connection.execute(delete(messages)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rooms", type=int, default=20)
    parser.add_argument("--database-url")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="."))
        found = asyncio.run(run(given.database_url or f"sqlite:///{folder}/benchmark.db", given.messages, given.rooms))
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:34} {value:>12,}")


if __name__ == "__main__":
    main()
