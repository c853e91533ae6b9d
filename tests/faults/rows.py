"""The store as it is, read by the database's own means and not by the server's code."""

from __future__ import annotations

import asyncio
import sqlite3

import asyncpg  # type: ignore[import-untyped]

from tests.faults.checker import Entry

QUERY = "SELECT room_id, epoch, log_offset, message_id FROM realtime_messages WHERE log_offset IS NOT NULL ORDER BY seq"


async def read_rows(url: str) -> list[Entry] | None:
    """Every event that has a place in a log, in the order in which they were written; None for a store in memory."""
    if url in ("memory://", "sqlite://"):
        return None
    if url.startswith("sqlite:///"):
        return await asyncio.to_thread(_read_sqlite, url.removeprefix("sqlite:///"))
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [Entry(*row) for row in await connection.fetch(QUERY, timeout=30)]
    finally:
        await connection.close(timeout=10)


def _read_sqlite(file: str) -> list[Entry]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        return [Entry(*row) for row in connection.execute(QUERY)]
    finally:
        connection.close()
