"""What is set for a room: by the first pattern that fits, by default, and by whoever creates it."""

from __future__ import annotations

import pytest

from aibos_realtime import ConfigurationError
from aibos_realtime.hub.room_options import REMEMBERED, Patterns, RoomOptions, RoomPattern
from aibos_realtime.types import RoomSettings

PATTERNS = {"bench:*": {"ephemeral": True, "max_users": 100_000}, "tenant_*": {"history_size": 5000, "allow_guests": True}, "*": {"max_users": None}}


def test_the_first_pattern_that_fits_alone_applies() -> None:
    patterns = Patterns(RoomOptions.parse("rooms", {"max_users_per_room": 7, "patterns": PATTERNS}))
    assert patterns.find("bench:1") == RoomPattern(ephemeral=True, max_users=100_000)
    found = patterns.find("tenant_1")
    assert (found.history_size, found.max_users, found.ephemeral) == (5000, 7, False), "what a pattern does not say is the default"
    assert patterns.find("other").max_users is None
    assert Patterns(RoomOptions(max_users_per_room=7)).find("x").max_users == 7


def test_rooms_are_remembered_up_to_a_number() -> None:
    patterns = Patterns(RoomOptions.parse("rooms", {"patterns": PATTERNS}))
    for number in range(REMEMBERED + 10):
        assert patterns.find(f"bench:{number}").ephemeral
        assert len(patterns._found) <= REMEMBERED
    assert patterns.find("bench:1") is patterns.find("bench:1") and not patterns.find("tenant_1").ephemeral


def test_the_settings_of_a_room_that_is_made() -> None:
    patterns = Patterns(RoomOptions.parse("rooms", {"max_users_per_room": 7, "patterns": PATTERNS}))
    assert patterns.settings("tenant_1", None) == RoomSettings(7, True)
    assert patterns.settings("tenant_1", {"max_users": 3}) == RoomSettings(3, True)
    assert patterns.settings("tenant_1", RoomSettings(1, False)) == RoomSettings(1, False)
    for wrong, said in (
        ({"maxUsers": 5}, "settings.maxUsers"),
        ({"max_users": 0}, "settings.max_users"),
        ({"ephemeral": True}, "settings.ephemeral"),
    ):
        with pytest.raises(ConfigurationError, match="^" + said):
            patterns.settings("tenant_1", wrong)
