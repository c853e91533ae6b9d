"""Taking messages into the store: what comes at one moment is one commit, and a row that the database refuses costs exactly itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..backends.sql.database import Database
from ..backends.sql.failures import refusal
from ..backends.sql.messages import Outcome, bury, insert_messages
from ..clock import Clock
from ..logs import get_logger
from .batch import MAX_BATCH, MAX_BATCH_BYTES, Batches

logger = get_logger("aibos_realtime.persistence")

ROW_BYTES = 200
"""What a row weighs besides its data, about."""

Row = dict[str, Any]


class Intake:
    """Stores rows of `messages.to_row`; for each it says what became of it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._batches: Batches[Row, Outcome] = Batches(self.store, weigh=_weigh, name="persistence-intake")

    async def add(self, row: Row) -> Outcome:
        """Store one row, in one commit with those that others add meanwhile."""
        return await self._batches.add(row)

    async def add_all(self, rows: Sequence[Row]) -> list[Outcome]:
        """Store rows, in several commits where they are many. `StoreUnavailable`: the first of them may be stored, none is doubled by repeating."""
        return [outcome for batch in _cut(rows) for outcome in await self.store(batch)]

    async def drain(self) -> None:
        """Wait until nothing is on its way."""
        await self._batches.drain()

    async def store(self, rows: list[Row]) -> list[Outcome]:
        """Store rows in one commit. Where the database refuses them, each half by itself, down to the row that it means."""
        try:
            return await self._database.write(insert_messages, rows)
        except Exception as error:
            if (reason := refusal(error)) is None:
                raise
        if len(rows) > 1:
            half = len(rows) // 2
            return await self.store(rows[:half]) + await self.store(rows[half:])
        logger.warning("the database refused a message, which is now among the dead ones: %s", reason)
        await self._database.write(bury, rows[0], reason, int(self._clock.now() * 1000))
        return ["dead"]


def _weigh(row: Row) -> int:
    return len(row["data"]) + ROW_BYTES


def _cut(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Stretches of a bounded number and a bounded weight."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        size += _weigh(row)
        if batch and (len(batch) == MAX_BATCH or size > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], _weigh(row)
        batch.append(row)
    if batch:
        yield batch
