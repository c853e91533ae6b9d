"""What is the memory broker's own: that it forgets. What every broker promises is in `tests/contracts/test_broker.py`."""

from __future__ import annotations

import pytest

from aibos_realtime.backends.base import Draft
from aibos_realtime.backends.memory import broker as broker_module
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.testing.clock import ManualClock


def draft(room: str, id: str, **more: object) -> Draft:
    return Draft(room, "note", b"1", id, **more)  # type: ignore[arg-type]


async def test_ids_are_forgotten_also_where_one_is_used_again_and_again() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    await broker.start()
    await broker.publish(draft("lobby", "again", keyed=True))
    for round in range(10):
        await clock.advance(301)
        await broker.publish(draft("lobby", "again", keyed=True))
        for number in range(10):
            await broker.publish(draft("lobby", f"{round}-{number}", keyed=True))
    await clock.advance(290)
    assert len(broker._logs["lobby"].receipts) <= 11 + 11
    await clock.advance(400)
    assert broker._logs["lobby"].receipts == {}
    await broker.stop()


async def test_events_and_rooms_are_forgotten_in_the_background() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    await broker.start()
    for number in range(5):
        await broker.publish(draft(f"room{number}", "x"))
    await clock.advance(331)
    assert not any(len(log.hot) for log in broker._logs.values()) and len(broker._logs) == 5
    await clock.advance(86_400)
    assert broker._logs == {}
    await broker.stop()
    assert clock.planned == []


async def test_only_so_many_rooms_without_events_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to rooms of any name published to a new one each time, and 2 KB of each were kept for a day."""
    monkeypatch.setattr(broker_module, "MOST_IDLE", 3)
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    await broker.start()
    for number in range(10):
        await broker.publish(draft(f"room{number}", "x"))
        await clock.advance(1)
    told = await broker.position("room0")
    await clock.advance(400)
    assert sorted(broker._logs) == ["room7", "room8", "room9"], "the oldest are forgotten"
    assert (await broker.position("room0")).epoch != told.epoch
    await broker.stop()


async def test_forgetting_a_room_renews_the_epoch_of_rooms_without_events() -> None:
    """Nothing is remembered of a forgotten room, so its epoch must never come again; a room that had no event has nothing to lose by it."""
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    await broker.start()
    old = await broker.publish(draft("old", "x"))
    await clock.advance(86_390)
    told = await broker.position("new")
    await clock.advance(60)
    assert (await broker.position("new")).epoch != told.epoch
    again = await broker.publish(draft("old", "x"))
    assert again.position is not None and old.position is not None
    assert (again.position.epoch, again.position.offset) != (old.position.epoch, old.position.offset)
    await broker.stop()
