from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime.client.room import HistoryPage, Receipt, RoomEvents, is_receipt, read_history, read_presence, read_receipt
from aibos_realtime.errors import ConnectionError, ProtocolError, UnrecoverablePosition
from aibos_realtime.protocol.messages import Event, Member, Position

START = Position("e1", 0)


def event(offset: int | None, epoch: str = "e1") -> Event:
    return Event("tick", "r", {"n": offset}, f"id-{offset}", offset, None if offset is None else epoch)


class Log:
    """A room's history, in pages of two, that may grow while it is read."""

    def __init__(self, *offsets: int) -> None:
        self.offsets = list(offsets)
        self.asked: list[int] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def read_after(self, position: Position) -> HistoryPage:
        self.asked.append(position.offset)
        after = [offset for offset in self.offsets if offset > position.offset]
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return HistoryPage("r", "e1", [event(offset) for offset in after[:2]], len(after) > 2)


def iterate(log: Log, size: int = 3, position: Position | None = START) -> RoomEvents:
    return RoomEvents("r", position=position, size=size, read_after=log.read_after)


async def take(events: RoomEvents, count: int) -> list[int | None]:
    return [(await anext(events)).offset for _ in range(count)]


async def test_events_come_in_order_and_end_after_the_last() -> None:
    events = iterate(Log())
    for n in (1, 2):
        events.push(event(n))
    events.end(None)
    events.push(event(3))
    assert [one.offset async for one in events] == [1, 2]
    assert [one.offset async for one in events] == []


async def test_a_consumer_waits_for_what_comes() -> None:
    events = iterate(Log())
    waiting = asyncio.create_task(take(events, 1))
    await asyncio.sleep(0)
    events.push(event(7))
    assert await waiting == [7]


async def test_an_event_is_done_when_the_next_is_asked_for() -> None:
    events = iterate(Log())
    for n in (1, 2):
        events.push(event(n))
    await anext(events)
    assert events.position == Position("e1", 0)
    await anext(events)
    assert events.position == Position("e1", 1)


async def test_a_client_that_gave_up_says_so_after_the_last_event() -> None:
    events = iterate(Log())
    events.push(event(1))
    events.end(ConnectionError("spent"))
    assert await take(events, 1) == [1]
    with pytest.raises(ConnectionError, match="spent"):
        await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_a_slow_consumer_reads_the_rest_from_the_history() -> None:
    log = Log(*range(1, 11))
    events = iterate(log)
    for n in range(1, 11):
        events.push(event(n))
    assert await take(events, 10) == list(range(1, 11))
    assert log.asked == [3, 5, 7, 9]
    events.push(event(11))
    assert await take(events, 1) == [11]


async def test_what_comes_while_the_last_page_is_read_is_neither_lost_nor_doubled() -> None:
    log = Log(1, 2, 3, 4)
    events = iterate(log)
    for n in range(1, 5):
        events.push(event(n))
    assert await take(events, 3) == [1, 2, 3]
    log.gate = asyncio.Event()
    waiting = asyncio.create_task(take(events, 3))
    await asyncio.sleep(0)
    for n in (4, 5, 6):
        events.push(event(n))
    log.gate.set()
    assert await waiting == [4, 5, 6]


async def test_it_may_fall_behind_again_while_it_catches_up() -> None:
    log = Log(1, 2, 3, 4)
    events = iterate(log)
    for n in range(1, 5):
        events.push(event(n))
    await take(events, 3)
    log.gate = asyncio.Event()
    waiting = asyncio.create_task(take(events, 6))
    await asyncio.sleep(0)
    for n in range(5, 10):
        log.offsets.append(n)
        events.push(event(n))
    log.gate.set()
    assert await waiting == [4, 5, 6, 7, 8, 9]


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    log = Log(1, 2, 3, 4)
    events = iterate(log)
    for n in range(1, 5):
        events.push(event(n))
    await take(events, 3)
    log.gate = asyncio.Event()
    waiting = asyncio.create_task(take(events, 1))
    await asyncio.sleep(0)
    events.push(event(4))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    log.gate = None
    assert await take(events, 1) == [4]
    waiting = asyncio.create_task(take(events, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    events.push(event(5))
    assert await take(events, 1) == [5]


async def test_what_the_history_cannot_close_is_an_error() -> None:
    log = Log()
    log.error = UnrecoverablePosition()
    events = iterate(log, size=1)
    events.push(event(1))
    events.push(event(2))
    assert await take(events, 1) == [1]
    with pytest.raises(UnrecoverablePosition):
        await anext(events)


async def test_volatile_events_wait_for_nobody() -> None:
    log = Log()
    events = iterate(log, size=1, position=None)
    events.push(event(None))
    events.push(event(None))
    assert await take(events, 1) == [None]
    events.push(event(1))
    assert await take(events, 1) == [1]
    assert log.asked == []


async def test_closing() -> None:
    events = iterate(Log())
    events.push(event(1))
    events.close()
    assert [one async for one in events] == []


def test_answers() -> None:
    page = read_history(
        {
            "roomId": "r",
            "epoch": "e1",
            "more": True,
            "events": [{"event": "tick", "room": "r", "offset": 3, "id": "i", "data": 1, "userId": "u"}],
        }
    )
    assert (page.more, page.events[0].position, page.events[0].user_id) == (True, Position("e1", 3), "u")
    members = read_presence({"roomId": "r", "count": 1, "members": [{"userId": "u", "role": "admin", "since": "2025-09-17T12:00:00Z"}]})
    assert members == [Member("u", "admin", "2025-09-17T12:00:00Z")]
    assert read_receipt({"id": "i", "offset": 4, "epoch": "e1", "duplicate": True}, "r") == Receipt("i", "r", Position("e1", 4), True)


@pytest.mark.parametrize("read", [read_history, read_presence, lambda data: read_receipt(data, "r")])
@pytest.mark.parametrize("data", [None, {}, {"roomId": "r"}, []])
def test_answers_that_are_none(read: Any, data: Any) -> None:
    with pytest.raises(ProtocolError):
        read(data)


def test_the_shape_of_a_receipt() -> None:
    assert is_receipt({"id": "i", "offset": 4, "epoch": "e1", "duplicate": False})
    assert not is_receipt({"id": "i"})
    assert not is_receipt({"id": "i", "offset": 4, "epoch": "e1", "duplicate": False, "more": 1})
    assert not is_receipt("ack")
