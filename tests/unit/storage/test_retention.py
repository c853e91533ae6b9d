"""What retention removes, what it leaves, and that nobody waits for it; on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from aibos_realtime import MessagePersistence
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.meta import FRESH_EPOCH, read_meta, renew_epochs
from aibos_realtime.backends.sql.schema import dead_messages, messages, rooms
from aibos_realtime.storage import retention as retention_module
from aibos_realtime.storage.retention import SWEEP_EVERY, YOUNGEST, Retention, Swept
from aibos_realtime.testing.clock import ManualClock

HOUR = 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    async with Database(store_url) as database:
        yield database


class Shelf:
    """Rows of a given age, and what is left of them."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        self.count = 0

    async def put(self, room: str, age: float, number: int = 1, **given: Any) -> None:
        """Rows of an age in seconds, each one millisecond younger than the one before."""
        rows = []
        for step in range(number):
            self.count += 1
            basic = {"room_id": room, "message_id": f"m{self.count}", "user_id": "ann", "type": "note", "data": f"{self.count}"}
            rows.append(basic | {"timestamp": self.milliseconds(age) + step} | given)
        await self.database.write(lambda connection: connection.execute(insert(messages), rows))

    async def put_end(self, room: str, age: float) -> None:
        end = {"room_id": room, "epoch": "e1", "log_offset": 7, "touched": self.milliseconds(age)}
        await self.database.write(lambda connection: connection.execute(insert(rooms), end))

    def milliseconds(self, age: float) -> int:
        return int((self.clock.now() - age) * 1000)

    async def left(self) -> dict[str, int]:
        query = select(messages.c.room_id, func.count()).group_by(messages.c.room_id)
        return await self.database.read(lambda connection: {room: count for room, count in connection.execute(query)})

    async def data(self, room: str) -> list[int]:
        query = select(messages.c.data).where(messages.c.room_id == room).order_by(messages.c.timestamp, messages.c.seq)
        return await self.database.read(lambda connection: [int(one) for one in connection.scalars(query)])


@pytest.fixture
def shelf(database: Database, clock: ManualClock) -> Shelf:
    return Shelf(database, clock)


async def test_what_is_too_old_goes(shelf: Shelf, clock: ManualClock) -> None:
    await shelf.put("a", age=3 * HOUR, number=3)
    await shelf.put("a", age=HOUR, number=2)
    await shelf.put("b", age=HOUR)
    await shelf.put("c", age=3 * HOUR)
    retention = Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock)
    assert await retention.sweep() == Swept(messages=4)
    assert await shelf.left() == {"a": 2, "b": 1}
    assert await retention.sweep() == Swept()


async def test_in_each_room_the_newest_stay(shelf: Shelf, clock: ManualClock) -> None:
    await shelf.put("a", age=HOUR, number=12)
    await shelf.put("b", age=HOUR, number=5)
    retention = Retention(shelf.database, duration=None, max_messages=5, clock=clock)
    assert await retention.sweep() == Swept(messages=7)
    assert await shelf.data("a") == [8, 9, 10, 11, 12] and await shelf.data("b") == [13, 14, 15, 16, 17]
    await shelf.put("b", age=HOUR / 2)
    assert await retention.sweep() == Swept(messages=1), "a room that grew is looked at again"
    assert await shelf.data("b") == [14, 15, 16, 17, 18]


async def test_a_clock_that_was_set_back_leaves_no_hole_in_a_log(shelf: Shelf, clock: ManualClock) -> None:
    """What is first in the log goes first, whatever its timestamp; each epoch has its own offsets."""
    for offset in range(1, 41):
        age = HOUR if offset <= 20 else 3 * HOUR
        await shelf.put("a", age=age, epoch="e1", log_offset=offset)
    await shelf.put("a", age=4 * HOUR, number=3)  # beside the log
    await shelf.put("a", age=5 * HOUR, epoch="e0", log_offset=7)
    assert await Retention(shelf.database, duration=None, max_messages=25, clock=clock).sweep() == Swept(messages=19)

    async def places() -> list[tuple[str, int]]:
        query = select(messages.c.epoch, messages.c.log_offset).order_by(messages.c.epoch, messages.c.log_offset)
        return await shelf.database.read(lambda connection: [(row.epoch, row.log_offset) for row in connection.execute(query)])

    assert await places() == [("e1", offset) for offset in range(16, 41)]
    assert (await Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock).sweep()).messages == 20
    assert await places() == [("e1", offset) for offset in range(36, 41)]


async def test_nothing_goes_in_its_first_five_minutes(shelf: Shelf, clock: ManualClock) -> None:
    await shelf.put("a", age=HOUR)
    await shelf.put("a", age=YOUNGEST - 10, number=8)
    retention = Retention(shelf.database, duration=1, max_messages=5, clock=clock)
    assert await retention.sweep() == Swept(messages=1)
    await clock.advance(60)
    assert (await retention.sweep()).messages == 8, "all of them are older than a second now"


async def test_too_many_that_were_too_young_go_later_though_the_room_is_quiet(shelf: Shelf, clock: ManualClock) -> None:
    await shelf.put("a", age=0, number=8)
    retention = Retention(shelf.database, duration=None, max_messages=5, clock=clock)
    assert await retention.sweep() == Swept()
    await clock.advance(YOUNGEST + 1)
    assert await retention.sweep() == Swept(messages=3)
    assert await shelf.data("a") == [4, 5, 6, 7, 8]


async def test_many_go_in_small_steps_and_many_rooms_in_pages(shelf: Shelf, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(retention_module, "ROOMS_AT_ONCE", 2)
    for room in ("a", "b", "c", "d", "e"):
        await shelf.put(room, age=3 * HOUR, number=25)
        await shelf.put(room, age=HOUR, number=2)
    removed: list[int] = []
    write = shelf.database.write

    async def recording(work: Any, *arguments: Any) -> Any:
        removed.append(await write(work, *arguments))
        return removed[-1]

    monkeypatch.setattr(shelf.database, "write", recording)
    retention = Retention(shelf.database, duration=2 * HOUR, max_messages=1, clock=clock)
    assert await retention.sweep() == Swept(messages=130)
    assert max(removed) == 10
    assert await shelf.left() == {room: 1 for room in "abcde"}


async def test_writers_are_served_in_between(shelf: Shelf, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "ROWS_AT_ONCE", 10)
    await shelf.put("a", age=3 * HOUR, number=1000)
    sweeping = asyncio.ensure_future(Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock).sweep())
    stored = 0
    while not sweeping.done():
        await shelf.put("b", age=0)
        stored += 1
    assert stored > 10 and (await sweeping).messages == 1000


async def test_dead_messages_go_by_age(shelf: Shelf, clock: ManualClock) -> None:
    row = {"room_id": "a", "message_id": "m", "type": "note", "reason": "why", "timestamp": 0}
    rows = [row | {"buried": shelf.milliseconds(age)} for age in (3 * HOUR, 3 * HOUR, HOUR)]
    await shelf.database.write(lambda connection: connection.execute(insert(dead_messages), rows))
    retention = Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock)
    assert await retention.sweep() == Swept(dead_messages=2)


async def test_only_rooms_without_messages_and_long_untouched_are_offered_to_the_log(
    shelf: Shelf, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "ROOMS_AT_ONCE", 2)
    for room in ("empty1", "empty2", "empty3", "expired", "kept"):
        await shelf.put_end(room, age=3 * HOUR)
    await shelf.put_end("touched", age=HOUR)
    await shelf.put("expired", age=3 * HOUR, epoch="e1", log_offset=7)
    await shelf.put("kept", age=HOUR, epoch="e1", log_offset=7)
    offered: list[str] = []

    async def forget(rooms: Sequence[str]) -> None:
        offered.extend(rooms)

    await Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock).sweep()
    assert offered == [], "without a log to ask nothing is forgotten"
    retention = Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock, forget=forget)
    assert (await retention.sweep()).offered == 4
    assert offered == ["empty1", "empty2", "empty3", "expired"]


async def test_the_background_goes_on_after_an_outage(
    shelf: Shelf, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await shelf.put("a", age=3 * HOUR, number=3)
    retention = Retention(shelf.database, duration=2 * HOUR, max_messages=None, clock=clock)
    await shelf.database.close()
    await retention.start()
    await retention.start()
    async with asyncio.timeout(5):
        await clock.until_planned(SWEEP_EVERY)
    assert "retention waits" in caplog.text
    await shelf.database.open()
    await clock.advance(SWEEP_EVERY)
    async with asyncio.timeout(5):
        await clock.until_planned(SWEEP_EVERY)
    assert await shelf.left() == {} and "retention removed 3 messages" in caplog.text
    await retention.stop()
    await retention.stop()


async def test_persistence_runs_it(store_url: str, clock: ManualClock) -> None:
    async with MessagePersistence(database={"url": store_url}, retention={"duration": 2 * HOUR}, clock=clock) as persistence:
        async with asyncio.timeout(5):
            await clock.until_planned(SWEEP_EVERY)
        shelf = Shelf(persistence.database, clock)
        await shelf.put("a", age=3 * HOUR, number=3)
        await clock.advance(SWEEP_EVERY)
        async with asyncio.timeout(5):
            await clock.until_planned(SWEEP_EVERY)
        assert await persistence.count("a") == 0


async def test_new_epochs(shelf: Shelf) -> None:
    await shelf.put_end("a", age=0)
    before = await shelf.database.read(lambda connection: read_meta(connection, FRESH_EPOCH))
    assert await shelf.database.write(renew_epochs) == 1
    after = await shelf.database.read(lambda connection: read_meta(connection, FRESH_EPOCH))
    assert after not in (None, before)
    assert await shelf.database.write(renew_epochs) == 0
