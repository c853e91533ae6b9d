"""The relay's own conduct: windows, back-off, dead letters, stopping. On a real SQLite file, with a log that answers as told.

Which rows come in which order: tests/contracts/test_outbox.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aibos_realtime import IdempotencyConflict, Overloaded, StoreUnavailable, ValidationError
from aibos_realtime.backends.base import Draft, Receipt
from aibos_realtime.backends.sql import outbox as outbox_rows
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.schema import dead_messages
from aibos_realtime.backends.sql.schema import outbox as table
from aibos_realtime.protocol.messages import RESERVED
from aibos_realtime.storage import relay as relay_module
from aibos_realtime.storage.relay import FIRST_DELAY, LONGEST_DELAY, Relay
from aibos_realtime.testing.clock import ManualClock
from tests.contracts.outbox_rig import PATIENCE, WritingLog


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(f"sqlite:///{tmp_path}/realtime.db") as database:
        yield database


async def add(database: Database, *events: str, **values: Any) -> None:
    """Rows as a caller leaves them, each event's name being its id too."""
    base = {"room_id": "lobby", "data": "null", "audience": None, "persist": True, "timestamp": 0}
    rows = [base | {"type": event, "message_id": event} | values for event in events]
    await database.write(lambda connection: connection.execute(table.insert(), rows))


async def left(database: Database) -> list[str]:
    """The events that are still in the outbox."""
    return await database.read(lambda connection: list(connection.scalars(sa.select(table.c.type).order_by(table.c.seq))))


async def buried(database: Database) -> list[dict[str, Any]]:
    return await database.read(lambda connection: [dict(row._mapping) for row in connection.execute(sa.select(dead_messages))])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (threads of the database are at work, of which no event tells)
            await asyncio.sleep(0)


class HoldingLog:
    """Answers nobody until it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Draft, asyncio.Future[Receipt]]] = []

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.calls.append((draft, receipt))
        return receipt

    @property
    def events(self) -> list[str]:
        return [draft.event for draft, _ in self.calls]

    def answer(self, *, fail: BaseException | None = None) -> None:
        for draft, receipt in self.calls:
            if not receipt.done():
                receipt.set_exception(fail) if fail else receipt.set_result(Receipt(draft.id, draft.room, None))


async def test_a_window_is_on_its_way_at_once_and_the_next_one_after_it(database: Database) -> None:
    log = HoldingLog()
    await add(database, *"abcde")
    async with Relay(database, log.publish, window=3) as relay:
        await until(lambda: len(log.calls) == 3)
        await add(database, "f")
        assert log.events == list("abc") and await left(database) == list("abcdef")
        log.answer()
        await until(lambda: len(log.calls) == 6)
        assert await left(database) == list("def") and relay.relayed == 3
        log.answer()
        await until(lambda: relay.relayed == 6)
    assert log.events == list("abcdef") and await left(database) == []


async def test_a_coroutine_as_publish_will_do(database: Database) -> None:
    log = WritingLog()

    async def publish(draft: Draft) -> Receipt:
        return await log.publish(draft)

    await add(database, *"ab")
    async with Relay(database, publish):
        assert await log.until("b") == ["a", "b"]


@pytest.mark.parametrize("error", [StoreUnavailable("down"), Overloaded(), ZeroDivisionError()], ids=lambda error: type(error).__name__)
async def test_what_may_pass_is_tried_again_later_and_later_and_nothing_overtakes(error: Exception, database: Database) -> None:
    """Also an error that is no `RealtimeError`: a fault of this program must lose nothing."""
    clock = ManualClock()
    tries: list[str] = []
    is_down = True

    def answer(draft: Draft) -> BaseException | None:
        tries.append(draft.event)
        return error if is_down and draft.event == "b" else None

    log = WritingLog(answer)
    await add(database, *"abc")
    async with Relay(database, log.publish, clock=clock) as relay:
        for number, delay in enumerate((0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0), 1):
            async with asyncio.timeout(PATIENCE):
                await clock.until_planned(delay)
            assert relay.failures == number and await left(database) == ["b", "c"]
            is_down = number < 9
            await clock.advance(delay)
        assert tries[:3] == ["a", "b", "b"], "nothing after what is refused on the spot"
        assert await log.until("c") == ["a", "b", "c"]
    assert await buried(database) == []


async def test_a_window_that_fails_together_is_repeated_in_its_order(database: Database) -> None:
    clock, log = ManualClock(), HoldingLog()
    await add(database, *"abc")
    async with Relay(database, log.publish, clock=clock) as relay:
        await until(lambda: len(log.calls) == 3)
        log.answer(fail=StoreUnavailable())
        await until(lambda: relay.failures == 1)
        await clock.advance(FIRST_DELAY)
        await until(lambda: len(log.calls) == 6)
        assert log.events == list("abcabc") and await left(database) == list("abc")
        log.answer()
        await until(lambda: relay.relayed == 3)


async def test_a_wait_is_told_once_and_its_text_holds_no_data(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = WritingLog(lambda draft: StoreUnavailable("The store is away."))
    await add(database, "a", data='"a secret"')
    async with Relay(database, log.publish, clock=clock) as relay:
        for number in range(1, 5):
            await until(lambda: relay.failures >= number)  # noqa: B023
            await clock.advance(LONGEST_DELAY)
    assert caplog.text.count("the outbox waits: The store is away.") == 1 and "secret" not in caplog.text


async def test_what_will_never_be_taken_goes_to_the_dead_and_the_rest_goes_on(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    errors = {"b": IdempotencyConflict(), "d": ValidationError("Not this one.")}
    log = WritingLog(lambda draft: errors.get(draft.event))
    await add(database, "a", "b", "c", data='"a secret"', timestamp=5)
    await add(database, "d", "e", data='"a secret"', persist=False)
    clock = ManualClock()
    async with Relay(database, log.publish, clock=clock) as relay:
        assert await log.until("e") == ["a", "c", "e"]
        await until(lambda: relay.relayed == 3)
        assert relay.dead == 2 and relay.failures == 0
    assert await left(database) == []
    first, second = await buried(database)
    assert (first["room_id"], first["message_id"], first["type"], first["data"], first["user_id"]) == ("lobby", "b", "b", '"a secret"', "")
    assert first["reason"] == f"idempotency_conflict: {IdempotencyConflict()}" and first["timestamp"] == 5
    assert first["buried"] == int(clock.now() * 1000)
    assert (second["data"], second["reason"]) == (None, "validation_failed: Not this one.")
    assert caplog.text.count("left the outbox for the dead messages") == 2 and "secret" not in caplog.text


BAD_ROWS: list[dict[str, Any]] = [
    {"room_id": "a b"},
    {"type": "a b"},
    {"type": sorted(RESERVED)[0]},
    {"message_id": ""},
    {"data": "{"},
    {"data": ""},
    {"data": '"\\u0000"'},
    {"data": "[" * 40 + "]" * 40},
    {"data": '"' + "x" * 256 * 1024 + '"'},
    {"audience": "[]"},
    {"audience": '{"where": 5}'},
]


@pytest.mark.parametrize("values", BAD_ROWS, ids=range(len(BAD_ROWS)))
async def test_a_row_that_somebody_else_wrote_costs_itself(values: dict[str, Any], database: Database) -> None:
    log = WritingLog()
    await add(database, "bad", **values)
    await add(database, "good")
    async with Relay(database, log.publish) as relay:
        assert await log.until("good") == ["good"]
        await until(lambda: relay.relayed == 1)
    assert len(await buried(database)) == relay.dead == 1


async def test_a_database_that_is_away_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, log = ManualClock(), WritingLog()
    database = Database(f"sqlite:///{tmp_path}/realtime.db")
    async with Relay(database, log.publish, clock=clock) as relay:
        for number in range(1, 5):
            await until(lambda: relay.failures >= number)  # noqa: B023
            await clock.advance(LONGEST_DELAY)
        await database.open()
        await add(database, "a")
        await clock.advance(LONGEST_DELAY)
        await log.until("a")
    assert caplog.text.count("no notices of new events") == caplog.text.count("the outbox waits") == 1
    await database.close()


async def test_what_the_log_has_taken_is_not_published_again_when_the_database_was_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application's events were told twice to the members: the database went away after they were published and before their rows were taken out
    of the outbox, and came back when the log knew their ids no longer, which it does for five minutes."""
    clock, log = ManualClock(), WritingLog()
    clear = outbox_rows.clear

    def refuse(*_: Any) -> None:
        raise StoreUnavailable("The database is away.")

    monkeypatch.setattr(outbox_rows, "clear", refuse)
    await add(database, *"abc")
    async with Relay(database, log.publish, clock=clock) as relay:
        for number, delay in enumerate((0.05, 0.1, 0.2, 0.4), 1):
            async with asyncio.timeout(PATIENCE):
                await clock.until_planned(delay)
            assert relay.failures == number and log.events == list("abcd"[: max(3, number)])
            if number == 3:
                await add(database, "d")
            if number == 4:
                monkeypatch.setattr(outbox_rows, "clear", clear)
            await clock.advance(delay)
        await until(lambda: relay.relayed == 4)
    assert log.events == list("abcd") and await left(database) == []


async def test_an_outbox_that_was_empty_is_looked_at_again(database: Database) -> None:
    clock, log = ManualClock(), WritingLog()
    async with Relay(database, log.publish, clock=clock, poll=7.0):
        async with asyncio.timeout(PATIENCE):
            await clock.until_planned(7.0)
        await add(database, "a")
        await clock.advance(6.9)
        assert log.events == []
        await clock.advance(0.1)
        await log.until("a")
        async with asyncio.timeout(PATIENCE):
            await clock.until_planned(7.0)
        for _ in range(100):
            await asyncio.sleep(0)
            assert clock.planned == [7.0], "it rests until then"


async def test_stopping_lets_arrive_what_is_on_its_way(database: Database) -> None:
    log = HoldingLog()
    await add(database, *"ab")
    relay = Relay(database, log.publish, window=1)
    await relay.start()
    await relay.start()
    await until(lambda: len(log.calls) == 1)
    stopping = asyncio.create_task(relay.stop())
    await asyncio.sleep(0)
    log.answer()
    await stopping
    await relay.stop()
    assert await left(database) == ["b"] and log.events == ["a"]
    async with relay:
        await until(lambda: len(log.calls) == 2)
        log.answer()


async def test_stopping_does_not_wait_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(relay_module, "STOP_TIMEOUT", 0.01)
    log = HoldingLog()
    await add(database, "a")
    async with Relay(database, log.publish):
        await until(lambda: len(log.calls) == 1)
    assert "will be sent again under the same ids" in caplog.text and await left(database) == ["a"]
    log.answer(fail=StoreUnavailable())  # nobody complains of what nobody waits for


async def test_a_log_that_never_answers_is_asked_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "PUBLISH_TIMEOUT", 0.01)
    clock, log = ManualClock(), HoldingLog()
    await add(database, "a")
    async with Relay(database, log.publish, clock=clock) as relay:
        await until(lambda: relay.failures == 1)
        await clock.advance(FIRST_DELAY)
        await until(lambda: len(log.calls) == 2)
        log.answer()
        await until(lambda: relay.relayed == 1)


async def test_a_log_that_is_closed_meanwhile_is_asked_again(database: Database) -> None:
    clock, log = ManualClock(), HoldingLog()
    await add(database, "a")
    async with Relay(database, log.publish, clock=clock) as relay:
        await until(lambda: len(log.calls) == 1)
        log.calls[0][1].cancel()
        await until(lambda: relay.failures == 1)
    assert await left(database) == ["a"]


async def test_the_backlog(database: Database) -> None:
    clock = ManualClock(now=1000.0)
    relay = Relay(database, WritingLog().publish, clock=clock)
    assert await relay.backlog() == (0, 0.0)
    await add(database, "a", "b", timestamp=990_000)
    await add(database, "c", timestamp=999_000)
    assert await relay.backlog() == (3, 10.0)
    clock.jump(-100)
    assert (await relay.backlog()).oldest_age == 0.0


async def test_a_recovery_from_failure_begins_the_delays_anew(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    is_down = True
    log = WritingLog(lambda draft: StoreUnavailable() if is_down else None)
    await add(database, "a")
    async with asyncio.timeout(PATIENCE), Relay(database, log.publish, clock=clock, poll=7.0) as relay:
        for delay in (FIRST_DELAY, 2 * FIRST_DELAY):
            await clock.until_planned(delay)
            await clock.advance(delay)
        await clock.until_planned(4 * FIRST_DELAY)
        is_down = False
        await clock.advance(4 * FIRST_DELAY)
        await clock.until_planned(7.0)
        assert relay.relayed == 1
        is_down = True
        await add(database, "b")
        await clock.advance(7.0)
        await clock.until_planned(FIRST_DELAY)
    assert caplog.text.count("the outbox waits") == 2


def test_it_starts_again_in_another_loop(tmp_path: Path) -> None:
    """As a server does that several tests share."""

    async def run(event: str) -> None:
        log = WritingLog()
        relay._publish = log.publish
        async with database, relay:
            await add(database, event)
            await log.until(event)

    database = Database(f"sqlite:///{tmp_path}/realtime.db")
    relay = Relay(database, WritingLog().publish)
    for event in ("one", "two"):
        asyncio.run(run(event))
