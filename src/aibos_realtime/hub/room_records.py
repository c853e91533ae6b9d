"""Rooms and users as this package knows them, and as the directory of all nodes does: from the one to the other."""

from __future__ import annotations

from ..auth.user import NO_CLAIMS, User
from ..backends.directory import PresentUser, RoomDraft, RoomRecord
from .room import Room, RoomInfo, RoomSettings


def draft_of(room_id: str, name: str, type: str, settings: RoomSettings) -> RoomDraft:
    """A room that is to be made."""
    return RoomDraft(room_id, name, type, settings.max_users, settings.allow_guests)


def settings_of(record: RoomRecord) -> RoomSettings:
    """What a room allows."""
    return RoomSettings(record.max_users, record.allow_guests)


def room_of(record: RoomRecord) -> Room:
    """A room without anybody of this node in it."""
    room = Room(record.id, record.name, record.type, settings_of(record), record.created_at)
    room.birth = record.birth
    return room


def info_of(record: RoomRecord) -> RoomInfo:
    """A room at one moment, on all nodes together."""
    return RoomInfo(record.id, record.name, record.type, settings_of(record), record.created_at, record.user_count, record.connection_count)


def present_of(user: User) -> PresentUser:
    """A user, for the other nodes."""
    return PresentUser(user.id, user.role, user.tenant_id, user.claims)


def user_of(present: PresentUser) -> User:
    """A user, from what a node told of him."""
    return User(present.id, present.role or "user", present.tenant_id, present.claims or NO_CLAIMS)
