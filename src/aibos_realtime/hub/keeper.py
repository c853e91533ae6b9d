"""The ports between the rooms of a node and who decides about them: the node alone (`own_rooms`), or all nodes together (`shared_rooms`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from ..auth.user import User
from ..protocol.messages import Member
from .callbacks import Callbacks
from .connections import ConnectionPool
from .openings import Proceed
from .room import Presence, Room, RoomInfo, RoomSettings
from .room_options import Patterns, RoomOptions
from .socket import Socket

Reason = Literal["left", "kicked"]


class LocalRooms(Protocol):
    """What there is on this node, and what can be done to it (`RoomManager`)."""

    options: RoomOptions
    patterns: Patterns
    callbacks: Callbacks
    by_id: dict[str, Room]
    pool: ConnectionPool | None

    async def bring_in(self, socket: Socket, room_id: str) -> None: ...

    def hold(self, room: Room, user_id: str, user: User | None) -> None: ...

    def evict(self, room: Room, user_id: str, reason: str) -> None: ...

    def tell_watchers(self, room: Room, event: str, member: Member) -> None: ...


class Place:
    """A place in a room for somebody on his way in, until it is given back: `with` it he enters.

    `user_count`, `members`: of the room on all nodes, as far as they came with it; None: not known.
    """

    __slots__ = ("_release", "members", "room", "user_count")

    def __init__(
        self,
        release: Callable[[], None] | None = None,
        *,
        room: Room | None = None,
        user_count: int | None = None,
        members: list[Member] | None = None,
    ) -> None:
        self._release = release
        self.room = room
        self.user_count = user_count
        self.members = members

    def give_back(self) -> None:
        """It is not needed: who entered has one of his own. Idempotent."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()


NO_PLACE = Place()
"""Of a node alone: nothing comes between the decision and the entering."""


class Keeper(Protocol):
    """Which rooms there are, who may come, and who is told. The calls of `RoomManager` say more."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def adopt(self, room: Room) -> None:
        """Take over a room that was another keeper's."""

    # — rooms —

    async def create(self, room_id: str, name: str | None, type: str, settings: Mapping[str, Any] | RoomSettings | None) -> Room: ...

    def opening(self, room_id: str) -> Callable[[Proceed], None] | None: ...

    async def destroy(self, room_id: str) -> None: ...

    async def info(self, room_id: str) -> RoomInfo: ...

    async def page(self, prefix: str, limit: int, cursor: str | None) -> tuple[list[RoomInfo], str | None]: ...

    # — users, whichever node they are on —

    async def bring(self, room_id: str, user_id: str) -> RoomInfo: ...

    async def remove(self, room_id: str, user_id: str, reason: Reason) -> None: ...

    async def users(self, room_id: str) -> list[Member]: ...

    async def members(self, room_id: str) -> list[Member]: ...

    async def within_reach(self, room_id: str) -> list[User]: ...

    async def everybody_within_reach(self, window: float) -> list[User]: ...

    def hear_notice(self, room_id: str, payload: bytes) -> None: ...

    # — users of this node —

    async def admit(self, room_id: str, user: User) -> Place:
        """See that a user may come."""

    def room_for(self, room_id: str, user: User) -> Room:
        """The room that a user enters now."""

    def check_place(self, room: Room) -> None:
        """Raises `RoomFull` where one more user on this node would be too many."""

    def joined(self, room: Room, user_id: str, presence: Presence) -> None:
        """A user is in a room on this node, with or without a socket."""

    def renewed(self, room: Room, presence: Presence) -> None:
        """What he is may have changed."""

    def left(self, room: Room, user_id: str, presence: Presence) -> None:
        """He is no longer in it on this node."""

    def counted(self, room: Room) -> None:
        """There are more or fewer sockets of this node in a room."""
