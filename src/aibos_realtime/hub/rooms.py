"""Rooms: creating, joining, leaving, and who is present. Not rights (`pipeline.authorization`), not delivery (`pipeline.fanout`).

Here is which sockets of this node are in which room; a keeper decides who may come and which rooms there are: this node alone (`own_rooms`), or all
nodes together (`shared_rooms`). State changes in plain functions (`enter`, `exit`), so that nothing can come between a check and its change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Never, TypeVar, overload

from ..audit import Audit, actor
from ..auth.user import User
from ..backends.bus import Bus
from ..backends.directory import Directory
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import AuthenticationError, NotInRoom
from ..metrics import Metrics
from ..protocol.codec import Answer, Encoding, RoomFrame
from ..protocol.messages import Member
from .callbacks import Callbacks
from .connections import ConnectionPool
from .keeper import NO_PLACE, Keeper, Place
from .openings import Proceed
from .own_rooms import OwnRooms
from .room import Presence, Room, RoomInfo, RoomSettings
from .room_options import Patterns
from .room_options import RoomOptions as RoomOptions
from .room_options import RoomPattern as RoomPattern
from .shared_rooms import SharedRooms
from .socket import Socket

F = TypeVar("F", bound=Callable[..., Any])


class RoomManager:
    """Rooms by id.

    `max_rooms`, `max_users_per_room`: limits, None = off; a user with several sockets is one user. `room_timeout`: seconds after which an empty
    room is destroyed, None = never. `patterns`: `{"tenant_*": {"history_size": 5000}}`. `create`: whether a permitted join or publish creates a
    missing room.

    Works alone, by user ids, and as a server's `rooms`, where sockets join it. Of several nodes: rooms, limits and presence are those of all of them
    together; calls raise `BrokerUnavailable` where the others cannot be reached. Cancelling any call is safe: each either happened or not.
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
        self.patterns = Patterns(self.options)
        self.by_id: dict[str, Room] = {}
        self.callbacks = Callbacks("rooms", ("room.created", "room.destroyed", "user.joined", "user.left"))
        self.pool: ConnectionPool | None = None
        self.audit: Audit | None = None
        """Where it is noted who was kicked; a server has one."""
        self._clock = clock
        self._flush: Callable[[str], None] = lambda room_id: None
        self._follow: Callable[[str], Awaitable[object]] | None = None
        self._keeper: Keeper = OwnRooms(self, clock)

    # — wiring —

    def attach(self, pool: ConnectionPool, flush: Callable[[str], None]) -> None:
        """Become a server's rooms. `flush(room_id)`: deliver what waits for a room, before who is in it changes."""
        self.pool = pool
        self._flush = flush

    def join_nodes(
        self, *, directory: Directory, bus: Bus, follow: Callable[[str], Awaitable[object]] | None = None, metrics: Metrics | None = None
    ) -> None:
        """Be the rooms of several nodes from `start` on. `follow(room_id)`: hear what is published to a room, as asking for its position does."""
        self._keeper = SharedRooms(self, directory=directory, bus=bus, metrics=metrics if metrics is not None else Metrics(), clock=self._clock)
        self._follow = follow

    def share(self, other: RoomManager) -> None:
        """Be one with another manager from here on: the same rooms, callbacks and options. The options are this one's, which were given last."""
        if self.by_id is other.by_id:
            return
        for room in self.by_id.values():
            other._keeper.adopt(room)
        other.callbacks.take_over(self.callbacks)
        self.by_id, self.callbacks, self.pool, self._flush = other.by_id, other.callbacks, other.pool, other._flush
        self.audit = other.audit
        self._follow, self._keeper = other._follow, other._keeper
        other.options, other.patterns = self.options, self.patterns

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, callback: F) -> F: ...

    def on(self, event: str, callback: Callable[..., Any] | None = None) -> Any:
        """Hear of `room.created` (room), `room.destroyed` (room_id), `user.joined` and `user.left` (room_id, user_id). Usable as a decorator.

        Of several nodes: one hears of each change, that on which it happened; of what a dead node leaves, the one that cleans up.
        """
        return self.callbacks.add(event) if callback is None else self.callbacks.add(event, callback)

    async def start(self) -> None:
        """Take part among the nodes, if there are several. Idempotent."""
        await self._keeper.start()

    async def stop(self) -> None:
        """Forget all timers; of several nodes: tell them that nobody is here any more. Idempotent."""
        await self._keeper.stop()
        await self.callbacks.stop()

    # — the public API —

    async def create_room(
        self, room_id: str, *, name: str | None = None, type: str = "room", settings: Mapping[str, Any] | RoomSettings | None = None
    ) -> Room:
        """Create a room, or return it as it is when it exists already.

        `settings`: `max_users`, `allow_guests`. Raises `RoomLimitExceeded`, `ProtocolError` (name), `ConfigurationError` (settings).
        """
        return await self._keeper.create(room_id, name, type, settings)

    async def join_room(self, room_id: str, user_id: str) -> RoomInfo:
        """Put a user into a room, with every socket he has now; he stays present until `leave_room`.

        Creates the room where that is allowed. No rights are asked for: this is the server's own word. Raises `RoomFull`, `GuestsNotAllowed`,
        `RoomLimitExceeded`, `RoomNotFound`.
        """
        return await self._keeper.bring(room_id, user_id)

    async def leave_room(self, room_id: str, user_id: str) -> None:
        """Take a user out of a room, with every socket; they are told `room-closed`. Raises `RoomNotFound`, `NotInRoom`."""
        await self._keeper.remove(room_id, user_id, "left")

    async def kick(self, room_id: str, user_id: str) -> None:
        """Remove a user from a room: nothing of it reaches him after this returns. Raises `RoomNotFound`, `NotInRoom`."""
        await self._keeper.remove(room_id, user_id, "kicked")
        if self.audit is not None:
            self.audit.note("kick", room_id=room_id, user_id=user_id, by=actor())

    async def get_room_info(self, room_id: str) -> RoomInfo:
        """Raises `RoomNotFound`."""
        return await self._keeper.info(room_id)

    async def get_room_users(self, room_id: str) -> list[Member]:
        """Who is present, longest first. Raises `RoomNotFound`."""
        return await self._keeper.users(room_id)

    async def list_rooms(self, *, prefix: str = "", limit: int = 100, cursor: str | None = None) -> tuple[list[RoomInfo], str | None]:
        """Rooms by rising id, at most `limit`, after `cursor`; and the cursor of the next page, None at the end."""
        return await self._keeper.page(prefix, max(1, limit), cursor)

    async def destroy_room(self, room_id: str) -> None:
        """End a room: members are told `room-closed`. Its log, and so its positions, live on. Raises `RoomNotFound`."""
        await self._keeper.destroy(room_id)

    # — for the pipeline —

    def get(self, room_id: str) -> Room | None:
        """A room in which somebody of this node is; of a manager alone, any room."""
        return self.by_id.get(room_id)

    def __len__(self) -> int:
        return len(self.by_id)

    def pattern(self, room_id: str) -> RoomPattern:
        """The settings of the first pattern that fits, or the defaults."""
        return self.patterns.find(room_id)

    def opening(self, room_id: str) -> Callable[[Proceed], None] | None:
        """See that there is a room to publish to, and create it where that is allowed: None, if it is there; else how to wait (`Openings.wait`).

        Raises `RoomNotFound`, `RoomLimitExceeded`.
        """
        return self._keeper.opening(room_id)

    async def admit(self, socket: Socket, room_id: str, recheck: Callable[[], Awaitable[None]] | None = None) -> Place:
        """See that a socket's user may come to a room; in the place that this gives (`with`), `enter` or `Room.hold` follow at once.

        `recheck`: called where the user's role changed while this waited. Raises `RoomFull`, `GuestsNotAllowed`, `RoomNotFound`, `RoomLimitExceeded`,
        `AuthenticationError` (it is no longer that user's), `BrokerUnavailable`. A manager alone sees to it in `enter`.
        """
        user = socket.user
        assert user is not None, "only an authenticated socket enters a room"
        place = await self._keeper.admit(room_id, user)
        if place is NO_PLACE:
            return place
        try:
            if recheck is not None and socket.user is not user:
                await recheck()
            if socket.closing or socket.user is None or socket.user.id != user.id:
                raise AuthenticationError("The connection ended, or changed its user.")
        except BaseException:
            place.give_back()
            raise
        return place

    async def bring_in(self, socket: Socket, room_id: str, recheck: Callable[[], Awaitable[None]] | None = None) -> None:
        """Have a socket join, from now on. Raises as `admit` and `enter` do."""
        if room_id in (socket.memberships or ()):
            return
        with await self.admit(socket, room_id, recheck):
            if room_id in (socket.memberships or ()):
                return
            room = self.enter(socket, room_id)
        if self._follow is not None:
            try:
                await self._follow(room_id)
            except BaseException:
                if is_member(socket, room):
                    self.exit(socket, room_id)
                raise
        if is_member(socket, room):
            room.go_live(socket)

    def enter(self, socket: Socket, room_id: str) -> Room:
        """Make a socket a member that is still on its way in: live events wait for it until `Room.go_live`.

        Raises `RoomFull`, `GuestsNotAllowed`, `RoomNotFound`, `RoomLimitExceeded`.
        """
        user = socket.user
        assert user is not None, "only an authenticated socket enters a room"
        room = self._keeper.room_for(room_id, user)
        self._flush(room_id)
        presence = self._present(room, user.id, user)
        presence.sockets += 1
        room.joining[socket] = []
        _add(socket, room)
        self._keeper.counted(room)
        return room

    def exit(self, socket: Socket, room_id: str) -> None:
        """End a socket's membership. Raises `NotInRoom`."""
        room: Room | None = socket.memberships.get(room_id) if socket.memberships else None
        if room is None:
            raise NotInRoom()
        _remove(socket, room)
        self._flush(room_id)
        room.drop(socket)
        self._keeper.counted(room)
        if socket.user is not None and (presence := room.users.get(socket.user.id)) is not None:
            presence.sockets -= 1
            self._depart_if_gone(room, socket.user.id, presence)

    def exit_all(self, socket: Socket) -> None:
        """The socket is gone: end its memberships."""
        for room_id in list(socket.memberships or ()):
            self.exit(socket, room_id)

    def renew(self, socket: Socket) -> None:
        """The socket's user has another role, perhaps: what is known of him in his rooms follows."""
        for room in (socket.memberships or {}).values():
            room.refile(socket)
            if socket.user is not None and (presence := room.users.get(socket.user.id)) is not None:
                presence.user = socket.user
                self._keeper.renewed(room, presence)

    async def find_members(self, room_id: str) -> list[Member]:
        """Who is present, longest first; nobody where there is no room."""
        return await self._keeper.members(room_id)

    async def users_within_reach(self, room_id: str) -> list[User]:
        """The users of a room who are present, or gone for less than the recovery window."""
        return await self._keeper.within_reach(room_id)

    async def everybody_within_reach(self, window: float) -> list[User]:
        """Who is connected, or was less than `window` seconds ago."""
        return await self._keeper.everybody_within_reach(window)

    def hear_notice(self, room_id: str, payload: bytes) -> None:
        """What the nodes of a room were told: somebody came, or went."""
        self._keeper.hear_notice(room_id, payload)

    # — for the keeper —

    def hold(self, room: Room, user_id: str, user: User | None) -> None:
        """The application itself says that a user is in a room. Raises `RoomFull`."""
        self._present(room, user_id, user).held = True

    def evict(self, room: Room, user_id: str, reason: str) -> None:
        """Take a user out of a room on this node, with every socket; they are told `room-closed`."""
        presence = room.users[user_id]
        presence.held = False
        closed = Answer("room-closed", data={"roomId": room.id, "reason": reason})
        for socket in room.sockets:
            if socket.user is not None and socket.user.id == user_id:
                self.exit(socket, room.id)
                socket.write(socket.encoding.frame(closed))
        if room.users.get(user_id) is presence:
            self._depart_if_gone(room, user_id, presence)

    def tell_watchers(self, room: Room, event: str, member: Member) -> None:
        """Tell the sockets that asked for it that somebody came, or went."""
        frame = RoomFrame(event, room.id, data=member)
        encoded: dict[Encoding, bytes] = {}
        for socket in room.watchers:
            if socket.user is not None and socket.user.id != member.user_id:
                data = encoded.get(socket.encoding)
                if data is None:
                    data = encoded[socket.encoding] = socket.encoding.frame(frame)
                socket.write(data)

    # — inside —

    def _present(self, room: Room, user_id: str, user: User | None) -> Presence:
        presence = room.users.get(user_id)
        if presence is None:
            self._keeper.check_place(room)
            presence = room.users[user_id] = Presence(user, self._clock.now())
            self._keeper.joined(room, user_id, presence)
        elif user is not None:
            presence.user = user
            self._keeper.renewed(room, presence)
        presence.birth = room.birth
        return presence

    def _depart_if_gone(self, room: Room, user_id: str, presence: Presence) -> None:
        if presence.sockets == 0 and not presence.held:
            del room.users[user_id]
            self._keeper.left(room, user_id, presence)


_NOWHERE: dict[str, Room] = {}


def _add(socket: Socket, room: Room) -> None:
    """A membership more. Of a socket in one room they are the room's, and shared; only of several they are its own."""
    memberships = socket.memberships
    if not memberships:
        socket.memberships = room.alone
    elif len(memberships) == 1:
        socket.memberships = {**memberships, room.id: room}
    else:
        memberships[room.id] = room


def _remove(socket: Socket, room: Room) -> None:
    memberships = socket.memberships or {}
    if len(memberships) < 2:
        socket.memberships = _NOWHERE
        return
    del memberships[room.id]
    if len(memberships) == 1:
        [left] = memberships.values()
        socket.memberships = left.alone


def is_member(socket: Socket, room: Room) -> bool:
    """Whether a socket is in a room still: what waited for something has to ask."""
    return (socket.memberships or {}).get(room.id) is room
