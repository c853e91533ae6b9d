"""What is the memory broker's own: that it forgets. What every broker promises is in `tests/contracts/test_broker.py`."""

from __future__ import annotations

import pytest

from aibos_realtime.backends.base import Draft
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
    assert not any(log.events for log in broker._logs.values()) and len(broker._logs) == 5
    await clock.advance(86_400)
    assert broker._logs == {}
    await broker.stop()
    assert clock.planned == []


@pytest.mark.xfail(reason="forgetting any room gives every room without events a new epoch")
async def test_the_epoch_that_was_told_for_a_room_without_events_holds_for_its_first_event() -> None:
    """Also where another room was forgotten in between."""
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    await broker.start()
    await broker.publish(draft("old", "x"))
    await clock.advance(86_390)
    told = await broker.position("new")
    await clock.advance(60)
    receipt = await broker.publish(draft("new", "x"))
    assert receipt.position is not None and receipt.position.epoch == told.epoch
    await broker.stop()
