"""Rooms and users on their way to the other nodes and back."""

from __future__ import annotations

from aibos_realtime.auth.user import NO_CLAIMS
from aibos_realtime.backends.directory import PresentUser, RoomDraft, RoomRecord
from aibos_realtime.hub.room_records import draft_of, info_of, present_of, room_of, user_of
from aibos_realtime.types import RoomInfo, RoomSettings, User

RECORD = RoomRecord("a", "The room", "tenant", 5, True, 1000.5, "birth", 3, 4)


def test_rooms() -> None:
    assert draft_of("a", "The room", "tenant", RoomSettings(None, True)) == RoomDraft("a", "The room", "tenant", None, True)
    assert info_of(RECORD) == RoomInfo("a", "The room", "tenant", RoomSettings(5, True), 1000.5, 3, 4)
    room = room_of(RECORD)
    assert (room.id, room.name, room.type, room.settings, room.created_at, room.birth) == (
        "a", "The room", "tenant", RoomSettings(5, True), 1000.5, "birth"
    )  # fmt: skip


def test_users() -> None:
    user = User("ann", "admin", "t1", {"plan": "gold"})
    assert user_of(present_of(user)) == user
    plain = user_of(PresentUser("ann"))
    assert plain == User("ann") and plain.claims is NO_CLAIMS
