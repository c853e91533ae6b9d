"""Who left lately is remembered for as long as he may recover, and no longer."""

from __future__ import annotations

import pytest

from aibos_realtime.auth.user import User
from aibos_realtime.hub import departed
from aibos_realtime.hub.departed import Departed

ANN, BOB = User("ann"), User("bob", role="admin")


def names(users: list[User]) -> list[str]:
    return [user.id for user in users]


def test_users_are_found_by_place_and_for_so_long() -> None:
    gone = Departed(300.0)
    gone.note("lobby", ANN, 0.0)
    gone.note("lobby", BOB, 200.0)
    gone.note("hall", ANN, 200.0)
    assert names(gone.users("lobby", 250.0, within=300.0)) == ["ann", "bob"]
    assert names(gone.users("lobby", 250.0, within=100.0)) == ["bob"]
    assert names(gone.users("hall", 250.0, within=300.0)) == ["ann"]
    assert gone.users("nowhere", 250.0, within=300.0) == []


def test_what_nobody_can_recover_any_more_is_forgotten() -> None:
    gone = Departed(300.0)
    gone.note("lobby", ANN, 0.0)
    gone.note("lobby", BOB, 200.0)
    assert names(gone.users("lobby", 300.0, within=1000.0)) == ["bob"] and len(gone) == 1
    assert gone.users("lobby", 500.0, within=1000.0) == [] and len(gone) == 0


def test_who_leaves_twice_counts_from_the_last_time() -> None:
    gone = Departed(300.0)
    gone.note("lobby", ANN, 0.0)
    gone.note("lobby", ANN, 200.0)
    assert names(gone.users("lobby", 400.0, within=300.0)) == ["ann"]
    assert gone.users("lobby", 500.0, within=300.0) == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departed, "CAPACITY", 3)
    gone = Departed(300.0)
    for number in range(10):
        gone.note("lobby", User(f"user_{number}"), float(number))
    assert names(gone.users("lobby", 10.0, within=300.0)) == ["user_7", "user_8", "user_9"] and len(gone) == 3
