"""A room of this node as a value: who is in it, by socket and by user. No limits, no rights, no network: those are `rooms` and the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Any

from msgspec import Struct

from ..auth.user import User
from ..clock import Timer
from ..protocol.codec import Encoding
from .socket import Socket


class RoomSettings(Struct, frozen=True):
    """What one room allows. `max_users`: distinct users, None = no limit."""

    max_users: int | None = 100
    allow_guests: bool = False


class RoomInfo(Struct, frozen=True):
    """A room at one moment. `created_at`: Unix time. `user_count` counts users, `connection_count` sockets."""

    id: str
    name: str
    type: str
    settings: RoomSettings
    created_at: float
    user_count: int
    connection_count: int


class Presence:
    """A user in a room: with how many sockets, and whether the application itself put him there. `birth`: of the life of the room that he is in."""

    __slots__ = ("birth", "held", "since", "sockets", "user")

    def __init__(self, user: User | None, since: float) -> None:
        self.birth = ""
        self.user = user
        self.since = since
        self.sockets = 0
        self.held = False


Kind = tuple[Encoding, Any]
"""What the members of one group have in common: the encoding of their frames, and what an index is by."""


class MemberIndex:
    """Sockets by encoding, and by what their users have under some names, as `("role",)` or `("role", "tenant_id")`."""

    __slots__ = ("_value", "groups", "names")

    def __init__(self, names: tuple[str, ...], sockets: Iterable[Socket]) -> None:
        self.names = names
        self._value = attrgetter(*names)
        self.groups: dict[Kind, dict[Socket, None]] = {}
        for socket in sockets:
            self.add(socket)

    def kind(self, socket: Socket) -> Kind:
        """The group that a socket belongs to."""
        value: Any = self._value(socket.user)
        try:
            hash(value)
        except TypeError:  # an application's own token check may give anything for a tenant
            value = repr(value)
        return socket.encoding, value

    def has(self, socket: Socket) -> bool:
        """Whether a socket stands where it belongs."""
        return socket in self.groups.get(self.kind(socket), ())

    def add(self, socket: Socket) -> None:
        self.groups.setdefault(self.kind(socket), {})[socket] = None

    def remove(self, socket: Socket) -> None:
        kind = self.kind(socket)
        group = self.groups.get(kind)
        if group is not None:
            group.pop(socket, None)
            if not group:
                del self.groups[kind]


class Room:
    """Members are sockets, grouped by the encoding of their frames: one frame is built per group."""

    __slots__ = (
        "_alone",
        "birth",
        "created_at",
        "empty_timer",
        "groups",
        "id",
        "indexes",
        "joining",
        "name",
        "settings",
        "type",
        "users",
        "watchers",
    )

    def __init__(self, room_id: str, name: str, type: str, settings: RoomSettings, created_at: float) -> None:
        self.birth = ""
        """Of several nodes: which life of the room this is."""
        self.id = room_id
        self._alone: dict[str, Room] | None = None
        self.name = name
        self.type = type
        self.settings = settings
        self.created_at = created_at
        self.groups: dict[Encoding, dict[Socket, None]] = {}
        self.indexes: tuple[MemberIndex, ...] = ()
        """Of the live members, those that were asked for."""
        self.joining: dict[Socket, list[Any] | None] = {}
        """Sockets on their way in: live events wait here for them (None: they read the log, nothing needs to wait)."""
        self.users: dict[str, Presence] = {}
        self.watchers: dict[Socket, None] = {}
        self.empty_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Room {self.id} users={len(self.users)}>"

    @property
    def alone(self) -> dict[str, Room]:
        """The memberships of each socket that is in this room and no other: one value for all of them, which nobody changes."""
        if self._alone is None:
            self._alone = {self.id: self}
        return self._alone

    @property
    def sockets(self) -> list[Socket]:
        return [socket for group in self.groups.values() for socket in group] + list(self.joining)

    @property
    def socket_count(self) -> int:
        return sum(map(len, self.groups.values())) + len(self.joining)

    @property
    def is_empty(self) -> bool:
        return not self.users

    def index(self, names: tuple[str, ...]) -> MemberIndex:
        """The live members by what their users have under these names. Made when it is first asked for, and kept up from then on."""
        for index in self.indexes:
            if index.names == names:
                return index
        index = MemberIndex(names, chain.from_iterable(self.groups.values()))
        self.indexes += (index,)
        return index

    def stop_timer(self) -> None:
        """The room is not to go for being empty."""
        if self.empty_timer is not None:
            self.empty_timer.cancel()
            self.empty_timer = None

    def go_live(self, socket: Socket) -> None:
        """From now on the room's events go to this socket as they come."""
        self.joining.pop(socket, None)
        self.groups.setdefault(socket.encoding, {})[socket] = None
        for index in self.indexes:
            index.add(socket)

    def refile(self, socket: Socket) -> None:
        """A member's user has another role or tenant, perhaps: an index in which he stands elsewhere is made anew when it is asked for again."""
        if self.indexes and socket not in self.joining:
            self.indexes = tuple(index for index in self.indexes if index.has(socket))

    def hold(self, socket: Socket) -> None:
        """Have live events wait for a member, as for one on its way in."""
        watches = socket in self.watchers
        self.drop(socket)
        self.joining[socket] = []
        if watches:
            self.watchers[socket] = None

    def drop(self, socket: Socket) -> None:
        """Take a socket out of every index."""
        self.joining.pop(socket, None)
        self.watchers.pop(socket, None)
        group = self.groups.get(socket.encoding)
        if group is not None:
            group.pop(socket, None)
            if not group:
                del self.groups[socket.encoding]
            for index in self.indexes:
                index.remove(socket)
        if not self.groups and not self.joining:
            self._alone = None  # a room that is forgotten is to go at once, and not when cycles are looked for

    def info(self) -> RoomInfo:
        return RoomInfo(self.id, self.name, self.type, self.settings, self.created_at, len(self.users), self.socket_count)
