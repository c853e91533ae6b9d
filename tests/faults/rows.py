"""The store as it is, read and held by the database's own means and not by the server's code."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def held_store(url: str) -> AsyncIterator[None]:
    """A transaction of somebody else lets nobody write events."""
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()
        return
    holder = await asyncpg.connect(url, timeout=10)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE realtime_messages IN EXCLUSIVE MODE", timeout=10)
            yield
    finally:
        await holder.close(timeout=10)


def _read_sqlite(file: str) -> list[Entry]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        return [Entry(*row) for row in connection.execute(QUERY)]
    finally:
        connection.close()
