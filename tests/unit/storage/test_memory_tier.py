from __future__ import annotations

from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.storage.memory_tier import ROOMS_AT_ONCE, MemoryTier
from aibos_realtime.testing.clock import ManualClock


def event(offset: int, room: str = "lobby", data: bytes = b"12345", user: str | None = None) -> LoggedEvent:
    return LoggedEvent(room, "note", data, f"id{offset}", "e", offset, 0, user)


async def test_rooms_are_bounded_by_number_and_age_and_their_bytes_are_counted() -> None:
    clock = ManualClock()
    tier = MemoryTier(1000, clock)
    for offset in range(1, 5):
        tier.append(event(offset), size=3, ttl=10.0)
        await clock.advance(1)
    hot = tier.get("lobby")
    assert hot is not None and (hot.first_offset, len(hot), tier.bytes) == (2, 3, 15)
    await clock.advance(8)
    hot = tier.get("lobby")
    assert hot is not None and (hot.first_offset, tier.bytes) == (4, 5)
    await clock.advance(2)
    assert tier.get("lobby") is None and tier.bytes == 0


def test_all_rooms_together_are_bounded_by_bytes_and_the_oldest_go() -> None:
    tier = MemoryTier(100, ManualClock())
    for number in range(30):
        tier.append(event(1, f"room{number}"), size=10, ttl=10.0)
        assert tier.bytes <= 100
    assert tier.get("room0") is None and tier.get("room29") is not None
    tier.append(event(1, "large", b"x" * 500), size=10, ttl=10.0)
    assert tier.bytes == 0, "what alone is too much is not kept"


def test_what_is_erased_no_longer_counts() -> None:
    tier = MemoryTier(100, ManualClock())
    tier.append(event(1, user="ann"), size=10, ttl=10.0)
    tier.append(event(2, user="bob"), size=10, ttl=10.0)
    tier.erase(lambda one: one.user_id == "ann")
    hot = tier.get("lobby")
    assert hot is not None and [(one.data, one.user_id) for one in hot.after(0, 10)] == [(b"", None), (b"12345", "bob")] and tier.bytes == 5
    tier.drop("lobby")
    assert tier.bytes == 0


def test_rows_without_a_payload_are_filled_from_memory() -> None:
    tier = MemoryTier(100, ManualClock())
    rows = [event(1, data=b""), event(2), event(3, data=b"")]
    assert tier.fill("lobby", rows) == rows
    tier.append(event(2), size=10, ttl=10.0)
    tier.append(event(3), size=10, ttl=10.0)
    assert [one.data for one in tier.fill("lobby", rows)] == [b"", b"12345", b"12345"]


async def test_sweeping_goes_through_all_rooms_some_at_a_time() -> None:
    clock = ManualClock()
    tier = MemoryTier(10**9, clock)
    for number in range(2 * ROOMS_AT_ONCE + 1):
        tier.append(event(1, f"room{number}"), size=10, ttl=10.0)
    await clock.advance(11)
    assert [tier.sweep() for _ in range(4)] == [True, True, False, False]
    assert tier.bytes == 0 and tier._rooms == {}
