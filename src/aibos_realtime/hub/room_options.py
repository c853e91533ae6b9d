"""What is set for rooms: the options of a `RoomManager`, the patterns among them, and the settings of one room that follow from both."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field

from ..backends.base import Ack
from ..errors import ConfigurationError
from ..options import Count, Options, Seconds
from .room import RoomSettings


class RoomPattern(Options):
    """Settings for the rooms whose id fits a pattern (`bench:*`). The first fitting pattern alone applies."""

    ephemeral: bool = False
    """Position in memory only and nothing kept: no recovery, no history."""
    max_users: Count | None = None
    allow_guests: bool = False
    history_size: Count = 1000
    """Events that can be recovered."""
    history_ttl: Seconds = 300.0
    """Seconds for which they can."""
    ack: Ack | None = None
    """When a publish is acknowledged; None: as `persistence.ack` says."""


class RoomOptions(Options):
    """See `RoomManager`."""

    max_rooms: Count | None = 1000
    max_users_per_room: Count | None = 100
    room_timeout: Seconds | None = 300.0
    patterns: dict[str, RoomPattern] = Field(default_factory=dict)
    create: bool = True


REMEMBERED = 10_000
"""Rooms of which the pattern is remembered."""


class Patterns:
    """Finds what is set for a room."""

    def __init__(self, options: RoomOptions) -> None:
        self._defaults = RoomPattern(max_users=options.max_users_per_room)
        self._patterns = [
            (pattern, found if "max_users" in found.model_fields_set else found.model_copy(update={"max_users": options.max_users_per_room}))
            for pattern, found in options.patterns.items()
        ]
        self._found: dict[str, RoomPattern] = {}

    def find(self, room_id: str) -> RoomPattern:
        """The first pattern that fits, or the defaults."""
        known = self._found.get(room_id)
        if known is None:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            known = self._found[room_id] = self._find(room_id)
        return known

    def _find(self, room_id: str) -> RoomPattern:
        for pattern, found in self._patterns:
            if fnmatchcase(room_id, pattern):
                return found
        return self._defaults

    def settings(self, room_id: str, given: Mapping[str, Any] | RoomSettings | None) -> RoomSettings:
        """The settings of a new room: those given, and for the rest what is set for it. Raises `ConfigurationError`."""
        if isinstance(given, RoomSettings):
            return given
        pattern = self.find(room_id)
        values: dict[str, Any] = {"max_users": pattern.max_users, "allow_guests": pattern.allow_guests} | dict(given or {})
        allowed = {"max_users", "allow_guests"}
        if unknown := values.keys() - allowed:
            raise ConfigurationError(f"settings.{min(unknown)}: there is no such option; allowed: allow_guests, max_users")
        found = RoomPattern.parse("settings", values)
        return RoomSettings(found.max_users, found.allow_guests)
