"""The rooms of this node: creating, joining, leaving, and who is present. Not rights (`pipeline.authorization`), not delivery (`pipeline.fanout`).

State changes in plain functions (`enter`, `exit`), so that nothing can come between a check and its change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Never, TypeVar, overload

from pydantic import Field

from ..auth.user import User
from ..backends.base import Ack
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError, GuestsNotAllowed, NotInRoom, RoomFull, RoomLimitExceeded, RoomNotFound
from ..options import Count, Options, Seconds
from ..protocol.codec import Answer, RoomFrame
from ..protocol.limits import check_name, is_own_stream
from ..protocol.messages import Member
from .callbacks import Callbacks
from .connections import ConnectionPool
from .departed import Departed
from .room import Presence, Room, RoomInfo, RoomSettings
from .socket import Socket

F = TypeVar("F", bound=Callable[..., Any])

GUEST = "guest"


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


class RoomManager:
    """Rooms by id.

    `max_rooms`, `max_users_per_room`: limits, None = off; a user with several sockets is one user. `room_timeout`: seconds after which an empty
    room is destroyed, None = never. `patterns`: `{"tenant_*": {"history_size": 5000}}`. `create`: whether a permitted join or publish creates a
    missing room.

    Works alone, by user ids, and as a server's `rooms`, where sockets join it. Cancelling any call is safe: each either happened or not.
    """

    def __init__(
        self,
        *,
        max_rooms: int | None = 1000,
        max_users_per_room: int | None = 100,
        room_timeout: float | None = 300.0,
        patterns: Mapping[str, Any] | None = None,
        create: bool = True,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Never,
    ) -> None:
        given = dict(max_rooms=max_rooms, max_users_per_room=max_users_per_room, room_timeout=room_timeout, patterns=patterns or {}, create=create)
        self.options = RoomOptions.parse("rooms", given | unknown)
        self._clock = clock
        self._rooms: dict[str, Room] = {}
        self._departed = Departed(max([300.0, *(found.history_ttl for found in self.options.patterns.values())]))
        self._callbacks = Callbacks("rooms", ("room.created", "room.destroyed", "user.joined", "user.left"))
        self._pool: ConnectionPool | None = None
        self._flush: Callable[[str], None] = lambda room_id: None
        self._defaults = RoomPattern(max_users=self.options.max_users_per_room)
        self._patterns = [
            (pattern, found if "max_users" in found.model_fields_set else found.model_copy(update={"max_users": self.options.max_users_per_room}))
            for pattern, found in self.options.patterns.items()
        ]

    # — wiring —

    def attach(self, pool: ConnectionPool, flush: Callable[[str], None]) -> None:
        """Become a server's rooms. `flush(room_id)`: deliver what waits for a room, before who is in it changes."""
        self._pool = pool
        self._flush = flush

    def share(self, other: RoomManager) -> None:
        """Be one with another manager from here on: the same rooms, callbacks and options. The options are this one's, which were given last."""
        if self._rooms is other._rooms:
            return
        for room in self._rooms.values():
            other._rooms.setdefault(room.id, room)
        other._callbacks.take_over(self._callbacks)
        self._rooms, self._callbacks, self._pool, self._flush = other._rooms, other._callbacks, other._pool, other._flush
        other.options, other._defaults, other._patterns = self.options, self._defaults, self._patterns

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, callback: F) -> F: ...

    def on(self, event: str, callback: Callable[..., Any] | None = None) -> Any:
        """Hear of `room.created` (room), `room.destroyed` (room_id), `user.joined` and `user.left` (room_id, user_id). Usable as a decorator."""
        return self._callbacks.add(event) if callback is None else self._callbacks.add(event, callback)

    async def stop(self) -> None:
        """Forget all timers. Idempotent."""
        for room in self._rooms.values():
            if room.empty_timer is not None:
                room.empty_timer.cancel()
                room.empty_timer = None
        await self._callbacks.stop()

    # — the public API —

    async def create_room(
        self, room_id: str, *, name: str | None = None, type: str = "room", settings: Mapping[str, Any] | RoomSettings | None = None
    ) -> Room:
        """Create a room, or return it as it is when it exists already.

        `settings`: `max_users`, `allow_guests`. Raises `RoomLimitExceeded`, `ProtocolError` (name), `ConfigurationError` (settings).
        """
        if (room := self._rooms.get(room_id)) is not None:
            return room
        return self._create(room_id, name, type, self._settings(room_id, settings))

    async def join_room(self, room_id: str, user_id: str) -> RoomInfo:
        """Put a user into a room, with every socket he has on this node now; he stays present until `leave_room`.

        Creates the room where that is allowed. No rights are asked for: this is the server's own word. Raises `RoomFull`, `GuestsNotAllowed`,
        `RoomLimitExceeded`, `RoomNotFound`.
        """
        sockets = self._pool.get_user_connections(user_id) if self._pool is not None else []
        for socket in sockets:
            self._check_guest(socket.user, room_id)
        room = self.open(room_id)
        presence = self._present(room, user_id, sockets[0].user if sockets else None)
        presence.held = True
        for socket in sockets:
            if socket.memberships is None or room_id not in socket.memberships:
                self.enter(socket, room_id)
                room.go_live(socket)
        return room.info()

    async def leave_room(self, room_id: str, user_id: str) -> None:
        """Take a user out of a room, with every socket; they are told `room-closed`. Raises `RoomNotFound`, `NotInRoom`."""
        await self._remove_user(room_id, user_id, "left")

    async def kick(self, room_id: str, user_id: str) -> None:
        """Remove a user from a room: nothing of it reaches him after this returns. Raises `RoomNotFound`, `NotInRoom`."""
        await self._remove_user(room_id, user_id, "kicked")

    async def get_room_info(self, room_id: str) -> RoomInfo:
        """Raises `RoomNotFound`."""
        return self._find(room_id).info()

    async def get_room_users(self, room_id: str) -> list[Member]:
        """Who is present, longest first. Raises `RoomNotFound`."""
        return self.members(self._find(room_id))

    async def list_rooms(self, *, prefix: str = "", limit: int = 100, cursor: str | None = None) -> tuple[list[RoomInfo], str | None]:
        """Rooms by rising id, at most `limit`, after `cursor`; and the cursor of the next page, None at the end."""
        names = sorted(name for name in self._rooms if name.startswith(prefix) and (cursor is None or name > cursor))
        page = names[: max(1, limit)]
        return [self._rooms[name].info() for name in page], page[-1] if len(names) > len(page) else None

    async def destroy_room(self, room_id: str) -> None:
        """End a room: members are told `room-closed`. Its log, and so its positions, live on. Raises `RoomNotFound`."""
        room = self._find(room_id)
        for user_id in list(room.users):
            await self._remove_user(room_id, user_id, "destroyed")
        self._destroy(room)

    # — for the pipeline: plain and immediate —

    def get(self, room_id: str) -> Room | None:
        return self._rooms.get(room_id)

    def __len__(self) -> int:
        return len(self._rooms)

    def pattern(self, room_id: str) -> RoomPattern:
        """The settings of the first pattern that fits, or the defaults."""
        for pattern, found in self._patterns:
            if fnmatchcase(room_id, pattern):
                return found
        return self._defaults

    def open(self, room_id: str) -> Room:
        """The room, created where that is allowed. Raises `RoomNotFound`, `RoomLimitExceeded`."""
        room = self._rooms.get(room_id)
        if room is None:
            if not self.options.create:
                raise RoomNotFound()
            room = self._create(room_id, None, "room", self._settings(room_id, None))
        return room

    def enter(self, socket: Socket, room_id: str) -> Room:
        """Make a socket a member that is still on its way in: live events wait for it until `Room.go_live`.

        Raises `RoomFull`, `GuestsNotAllowed`, `RoomNotFound`, `RoomLimitExceeded`.
        """
        user = socket.user
        assert user is not None, "only an authenticated socket enters a room"
        self._check_guest(user, room_id)
        room = self.open(room_id)
        self._flush(room_id)
        presence = self._present(room, user.id, user)
        presence.sockets += 1
        room.joining[socket] = []
        if socket.memberships is None:
            socket.memberships = {}
        socket.memberships[room_id] = room
        return room

    def exit(self, socket: Socket, room_id: str) -> None:
        """End a socket's membership. Raises `NotInRoom`."""
        room: Room | None = socket.memberships.pop(room_id, None) if socket.memberships else None
        if room is None:
            raise NotInRoom()
        self._flush(room_id)
        room.drop(socket)
        if socket.user is not None and (presence := room.users.get(socket.user.id)) is not None:
            presence.sockets -= 1
            self._depart_if_gone(room, socket.user.id, presence)

    def exit_all(self, socket: Socket) -> None:
        """The socket is gone: end its memberships."""
        for room_id in list(socket.memberships or ()):
            self.exit(socket, room_id)

    def members(self, room: Room) -> list[Member]:
        return [_member(user_id, presence) for user_id, presence in room.users.items()]

    def users_within_reach(self, room_id: str) -> list[User]:
        """The users of a room who are present, or gone for less than the recovery window."""
        room = self._rooms.get(room_id)
        users = room.users if room is not None else {}
        present = [presence.user or User(id=user_id) for user_id, presence in users.items()]
        gone = self._departed.users(room_id, self._clock.monotonic(), self.pattern(room_id).history_ttl)
        return present + [user for user in gone if user.id not in users]

    # — inside —

    def _find(self, room_id: str) -> Room:
        room = self._rooms.get(room_id)
        if room is None:
            raise RoomNotFound()
        return room

    def _check_guest(self, user: User | None, room_id: str) -> None:
        room = self._rooms.get(room_id)
        allows_guests = room.settings.allow_guests if room is not None else self.pattern(room_id).allow_guests
        if user is not None and user.role == GUEST and not allows_guests:
            raise GuestsNotAllowed()

    def _settings(self, room_id: str, given: Mapping[str, Any] | RoomSettings | None) -> RoomSettings:
        if isinstance(given, RoomSettings):
            return given
        pattern = self.pattern(room_id)
        values: dict[str, Any] = {"max_users": pattern.max_users, "allow_guests": pattern.allow_guests} | dict(given or {})
        allowed = {"max_users", "allow_guests"}
        if unknown := values.keys() - allowed:
            raise ConfigurationError(f"settings.{min(unknown)}: there is no such option; allowed: allow_guests, max_users")
        found = RoomPattern.parse("settings", values)
        return RoomSettings(found.max_users, found.allow_guests)

    def _create(self, room_id: str, name: str | None, type: str, settings: RoomSettings) -> Room:
        check_name("room", room_id)
        if is_own_stream(room_id):
            raise RoomNotFound()
        if self.options.max_rooms is not None and len(self._rooms) >= self.options.max_rooms:
            raise RoomLimitExceeded(f"All {self.options.max_rooms} rooms of this server are taken.")
        room = self._rooms[room_id] = Room(room_id, name or room_id, type, settings, self._clock.now())
        self._expire_later(room)
        self._callbacks.notify("room.created", room)
        return room

    def _present(self, room: Room, user_id: str, user: User | None) -> Presence:
        presence = room.users.get(user_id)
        if presence is None:
            if room.settings.max_users is not None and len(room.users) >= room.settings.max_users:
                raise RoomFull(f"The room has as many users as it may have: {room.settings.max_users}.")
            presence = room.users[user_id] = Presence(user, self._clock.now())
            if room.empty_timer is not None:
                room.empty_timer.cancel()
                room.empty_timer = None
            self._callbacks.notify("user.joined", room.id, user_id)
            self._tell_watchers(room, "user.joined", _member(user_id, presence))
        elif user is not None:
            presence.user = user
        return presence

    def _depart_if_gone(self, room: Room, user_id: str, presence: Presence) -> None:
        if presence.sockets > 0 or presence.held:
            return
        del room.users[user_id]
        if presence.user is not None:
            self._departed.note(room.id, presence.user, self._clock.monotonic())
        self._callbacks.notify("user.left", room.id, user_id)
        self._tell_watchers(room, "user.left", _member(user_id, presence))
        if room.is_empty:
            self._expire_later(room)

    async def _remove_user(self, room_id: str, user_id: str, reason: str) -> None:
        room = self._find(room_id)
        presence = room.users.get(user_id)
        if presence is None:
            raise NotInRoom("The user is not in this room.")
        presence.held = False
        closed = Answer("room-closed", data={"roomId": room_id, "reason": reason})
        for socket in room.sockets:
            if socket.user is not None and socket.user.id == user_id:
                self.exit(socket, room_id)
                socket.write(socket.encoding.frame(closed))
        if room.users.get(user_id) is presence:
            self._depart_if_gone(room, user_id, presence)

    def _tell_watchers(self, room: Room, event: str, member: Member) -> None:
        for socket in room.watchers:
            if socket.user is not None and socket.user.id != member.user_id:
                socket.write(socket.encoding.frame(RoomFrame(event, room.id, data=member)))

    def _expire_later(self, room: Room) -> None:
        if self.options.room_timeout is not None:
            room.empty_timer = self._clock.call_later(self.options.room_timeout, self._expire, room)

    def _expire(self, room: Room) -> None:
        room.empty_timer = None
        if room.is_empty and self._rooms.get(room.id) is room:
            self._destroy(room)

    def _destroy(self, room: Room) -> None:
        if room.empty_timer is not None:
            room.empty_timer.cancel()
            room.empty_timer = None
        del self._rooms[room.id]
        self._callbacks.notify("room.destroyed", room.id)


def _member(user_id: str, presence: Presence) -> Member:
    since = datetime.fromtimestamp(presence.since, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Member(user_id, presence.user.role if presence.user else None, since)
