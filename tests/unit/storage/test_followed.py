"""What a followed room makes of what it hears: the part that waits for nothing."""

from __future__ import annotations

import asyncio

import pytest

from aibos_realtime import BrokerUnavailable, Position
from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.storage import followed as module
from aibos_realtime.storage.followed import Followed
from aibos_realtime.testing.clock import ManualClock, settle


def event(offset: int, id: str = "", epoch: str = "e1") -> LoggedEvent:
    return LoggedEvent("lobby", "note", b"1", id or f"id{offset}", epoch, offset, 0)


def room_at(offset: int, delivered: int = 0) -> Followed:
    """A room that stands at an offset, the last ones of which were delivered."""
    followed = Followed("lobby", 0)
    followed.enter(Position("e1", offset - delivered))
    for number in range(offset - delivered + 1, offset + 1):
        followed.advance(event(number))
    return followed


def held(*events: LoggedEvent, at: int = 5) -> list[int] | None:
    """What is taken of what was held, as offsets."""
    followed = room_at(at, 3)
    for one in events:
        followed.hold(one)
    taken = followed.take_held()
    return None if taken is None else [one.offset for one in taken]


def test_what_is_held_is_taken_where_it_comes_right_after() -> None:
    assert held() == []
    assert held(event(6), event(7)) == [6, 7]
    assert held(event(4), event(5), event(6), event(6), event(5), event(7)) == [6, 7], "what was there already is passed over"


def test_where_something_is_missing_nothing_is_taken() -> None:
    assert held(event(7)) is None
    assert held(event(6), event(8)) is None
    assert held(event(6), event(1, epoch="e2")) is None


def test_another_event_at_a_place_that_was_delivered_breaks_the_room() -> None:
    followed = room_at(5, 3)
    followed.hold(event(4, "other"))
    assert (followed.take_held(), followed.is_broken) == (None, True)
    followed.stand_at(Position("e2", 0))
    assert (followed.take_held(), followed.is_broken) == ([], False)


@pytest.mark.parametrize(("offset", "is_other"), [(5, True), (3, True), (2, False), (1, False)])
def test_only_places_whose_ids_are_known_can_be_told_apart(offset: int, is_other: bool) -> None:
    followed = room_at(5, 3)
    assert not followed.is_other(event(offset)) and followed.is_other(event(offset, "other")) is is_other


def test_the_log_must_have_what_was_delivered() -> None:
    followed = room_at(5, 3)
    assert followed.stands_on("id5") and followed.stands_on(None) and not followed.stands_on("other")
    followed.recent.clear()
    assert followed.stands_on("other"), "nothing is known of it"


def test_ids_are_remembered_of_the_last_events_only() -> None:
    followed = room_at(1000, 900)
    assert len(followed.recent) == module.RECENT
    assert followed.is_other(event(1000 - module.RECENT + 1, "other")) and not followed.is_other(event(1000 - module.RECENT, "other"))


def test_past_a_thousand_that_are_held_they_are_read_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 3)
    assert held(event(6), event(7), event(8)) == [6, 7, 8]
    assert held(event(6), event(7), event(8), event(9)) is None


def test_hearing_again_means_to_read_again_but_not_the_first_time() -> None:
    followed = room_at(5)
    followed.hear_again()
    assert followed.take_held() == []
    followed.hear_again()
    assert followed.take_held() is None
    followed.begin_reading()
    assert followed.take_held() == []


async def test_who_waits_is_woken_by_the_entry_and_by_going_live() -> None:
    followed, clock = Followed("lobby", 0), ManualClock()
    entering = asyncio.ensure_future(followed.wait(clock))
    await settle()
    followed.enter(Position("e1", 0))
    await entering
    going_live = asyncio.ensure_future(followed.wait(clock, 2.0))
    await settle()
    assert not going_live.done()
    followed.go_live()
    await going_live
    assert clock.planned == []


async def test_who_waits_is_told_that_it_failed_or_takes_too_long() -> None:
    followed, clock = Followed("lobby", 0), ManualClock()
    waiting = [asyncio.ensure_future(followed.wait(clock, 2.0)) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    followed.fail(BrokerUnavailable("gone"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError) and str(results[1]) == str(results[2]) == "gone" and results[1] is not results[2]
    late = asyncio.ensure_future(followed.wait(clock, 2.0))
    await clock.advance(2.0)
    with pytest.raises(BrokerUnavailable):
        await late
    assert followed._waiting == []
