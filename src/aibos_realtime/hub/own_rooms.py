"""The rooms of a node that is alone: their limits, the timers of empty ones, and who left lately. Everything happens on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ..auth.user import User
from ..backends.directory import GUEST
from ..clock import Clock
from ..errors import GuestsNotAllowed, NotInRoom, RoomFull, RoomLimitExceeded, RoomNotFound
from ..protocol.limits import check_name, is_own_stream
from ..protocol.messages import Member
from .departed import Departed
from .keeper import NO_PLACE, LocalRooms, Place, Reason
from .openings import Proceed
from .room import Presence, Room, RoomInfo, RoomSettings


class OwnRooms:
    """See `keeper.Keeper`."""

    def __init__(self, local: LocalRooms, clock: Clock) -> None:
        self._local = local
        self._clock = clock
        self._unasked: set[Room] = set()
        """Rooms that came to be since somebody joined them, and to which nothing was published."""
        self._given_up: dict[Room, None] = {}
        """Those of them that are empty, the longest first: they make place where there are as many rooms as there may be."""
        self._departed = Departed(max([300.0, *(found.history_ttl for found in local.options.patterns.values())]))

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for room in self._local.by_id.values():
            room.stop_timer()

    def adopt(self, room: Room) -> None:
        self._local.by_id.setdefault(room.id, room)

    # — rooms —

    async def create(self, room_id: str, name: str | None, type: str, settings: Mapping[str, Any] | RoomSettings | None) -> Room:
        room = self._local.by_id.get(room_id)
        return room if room is not None else self._create(room_id, name, type, self._local.patterns.settings(room_id, settings))

    def opening(self, room_id: str) -> Callable[[Proceed], None] | None:
        room = self._open(room_id)
        self._unasked.discard(room)
        self._given_up.pop(room, None)
        return None

    async def destroy(self, room_id: str) -> None:
        room = self._find(room_id)
        for user_id in list(room.users):
            self._local.evict(room, user_id, "destroyed")
        self._destroy(room)

    async def info(self, room_id: str) -> RoomInfo:
        return self._find(room_id).info()

    async def page(self, prefix: str, limit: int, cursor: str | None) -> tuple[list[RoomInfo], str | None]:
        rooms = self._local.by_id
        names = sorted(name for name in rooms if name.startswith(prefix) and (cursor is None or name > cursor))
        page = names[:limit]
        return [rooms[name].info() for name in page], page[-1] if len(names) > len(page) else None

    # — users —

    async def bring(self, room_id: str, user_id: str) -> RoomInfo:
        sockets = self._local.pool.get_user_connections(user_id) if self._local.pool is not None else []
        for socket in sockets:
            self._check_guest(socket.user, room_id)
        room = self._open(room_id)
        self._local.hold(room, user_id, sockets[0].user if sockets else None)
        for socket in sockets:
            await self._local.bring_in(socket, room_id)
        return room.info()

    async def remove(self, room_id: str, user_id: str, reason: Reason) -> None:
        room = self._find(room_id)
        if user_id not in room.users:
            raise NotInRoom("The user is not in this room.")
        self._local.evict(room, user_id, reason)

    async def users(self, room_id: str) -> list[Member]:
        return _members(self._find(room_id))

    async def members(self, room_id: str) -> list[Member]:
        room = self._local.by_id.get(room_id)
        return _members(room) if room is not None else []

    async def within_reach(self, room_id: str) -> list[User]:
        room = self._local.by_id.get(room_id)
        users = room.users if room is not None else {}
        present = [presence.user or User(id=user_id) for user_id, presence in users.items()]
        gone = self._departed.users(room_id, self._clock.monotonic(), self._local.patterns.find(room_id).history_ttl)
        return present + [user for user in gone if user.id not in users]

    async def everybody_within_reach(self, window: float) -> list[User]:
        return self._local.pool.users_within_reach(window) if self._local.pool is not None else []

    def hear_notice(self, room_id: str, payload: bytes) -> None:
        """There is nobody else to tell anything."""

    async def admit(self, room_id: str, user: User) -> Place:
        return NO_PLACE

    def room_for(self, room_id: str, user: User) -> Room:
        self._check_guest(user, room_id)
        return self._open(room_id)

    def check_place(self, room: Room) -> None:
        limit = room.settings.max_users
        if limit is not None and len(room.users) >= limit:
            raise RoomFull(f"The room has as many users as it may have: {limit}.")

    def joined(self, room: Room, user_id: str, presence: Presence) -> None:
        room.stop_timer()
        self._given_up.pop(room, None)
        self._local.callbacks.notify("user.joined", room.id, user_id)
        self._local.tell_watchers(room, "user.joined", _member(user_id, presence))

    def renewed(self, room: Room, presence: Presence) -> None: ...

    def left(self, room: Room, user_id: str, presence: Presence) -> None:
        if presence.user is not None:
            self._departed.note(room.id, presence.user, self._clock.monotonic())
        self._local.callbacks.notify("user.left", room.id, user_id)
        self._local.tell_watchers(room, "user.left", _member(user_id, presence))
        if room.is_empty:
            self._expire_later(room)

    def counted(self, room: Room) -> None: ...

    # — inside —

    def _find(self, room_id: str) -> Room:
        room = self._local.by_id.get(room_id)
        if room is None:
            raise RoomNotFound()
        return room

    def _check_guest(self, user: User | None, room_id: str) -> None:
        room = self._local.by_id.get(room_id)
        allows_guests = room.settings.allow_guests if room is not None else self._local.patterns.find(room_id).allow_guests
        if user is not None and user.role == GUEST and not allows_guests:
            raise GuestsNotAllowed()

    def _open(self, room_id: str) -> Room:
        room = self._local.by_id.get(room_id)
        if room is None:
            if not self._local.options.create:
                raise RoomNotFound()
            room = self._create(room_id, None, "room", self._local.patterns.settings(room_id, None))
            self._unasked.add(room)
            self._given_up[room] = None
        return room

    def _create(self, room_id: str, name: str | None, type: str, settings: RoomSettings) -> Room:
        check_name("room", room_id)
        if is_own_stream(room_id):
            raise RoomNotFound()
        limit, rooms = self._local.options.max_rooms, self._local.by_id
        if limit is not None and len(rooms) >= limit and self._given_up:
            self._destroy(next(iter(self._given_up)))
        if limit is not None and len(rooms) >= limit:
            raise RoomLimitExceeded(f"All {limit} rooms are taken.")
        room = rooms[room_id] = Room(room_id, name or room_id, type, settings, self._clock.now())
        self._expire_later(room)
        self._local.callbacks.notify("room.created", room)
        return room

    def _expire_later(self, room: Room) -> None:
        timeout = self._local.options.room_timeout
        if room in self._unasked:
            self._given_up[room] = None
        if timeout is not None:
            room.empty_timer = self._clock.call_later(timeout, self._expire, room)

    def _expire(self, room: Room) -> None:
        room.empty_timer = None
        if room.is_empty and self._local.by_id.get(room.id) is room:
            self._destroy(room)

    def _destroy(self, room: Room) -> None:
        room.stop_timer()
        self._given_up.pop(room, None)
        self._unasked.discard(room)
        del self._local.by_id[room.id]
        self._local.callbacks.notify("room.destroyed", room.id)


def _members(room: Room) -> list[Member]:
    return [_member(user_id, presence) for user_id, presence in room.users.items()]


def _member(user_id: str, presence: Presence) -> Member:
    return Member(user_id, presence.user.role if presence.user else None, _text_of(presence.since))


@lru_cache(maxsize=1024)  # whoever joins a room is told of the same members again
def _text_of(since: float) -> str:
    return datetime.fromtimestamp(since, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
