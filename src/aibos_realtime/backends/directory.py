"""The port to the directory: which rooms there are on all nodes, and which users are in them. Sockets, rights and events are none of its business.

Users travel as plain values. What a node has told is kept for it until it takes it back, or dies.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from ..protocol.messages import Member

GUEST = "guest"
"""The role of a user whom only rooms take that say so."""


class RoomDraft(Struct, frozen=True):
    """A room as it is to be made where there is none. `max_users`: distinct users on all nodes together, None = no limit."""

    id: str
    name: str
    type: str
    max_users: int | None
    allow_guests: bool


class RoomRecord(Struct, frozen=True):
    """A room of all nodes together. `birth`: of this life of the room; one made again under its name has another. `created_at`: Unix seconds."""

    id: str
    name: str
    type: str
    max_users: int | None
    allow_guests: bool
    created_at: float
    birth: str
    user_count: int = 0
    connection_count: int = 0


class PresentUser(Struct, frozen=True):
    """A user as the nodes tell one another of him. `role` is None for one of whom nothing but the id is known."""

    id: str
    role: str | None = None
    tenant_id: str | None = None
    claims: dict[str, Any] = {}


class Entered(Struct, frozen=True):
    """The outcome of entering. `members`: who is in the room, longest first; None where they are more than 100."""

    room: RoomRecord
    members: list[Member] | None


class Listener(Protocol):
    """Who is told what came of this node's own acts, and of its cleaning up after others: of each change exactly one node."""

    @property
    def room_timeout(self) -> float | None:
        """Seconds after which an empty room goes; None: never."""

    def reach(self, room_id: str) -> float:
        """Seconds for which a user who left a room can still be reached by what is published there."""

    def room_created(self, room: RoomRecord) -> None: ...

    def room_destroyed(self, room_id: str) -> None: ...

    def user_joined(self, room_id: str, user_id: str) -> None:
        """A user who was on no node before."""

    def user_left(self, room_id: str, user_id: str) -> None:
        """A user who is on no node any more."""

    def user_is_in(self, room_id: str, user_id: str, birth: str) -> bool:
        """A user of this node, of whom the directory was told anew, is in this life of the room. False: it is over, and he is told anew once more."""


class Directory(Protocol):
    """Coroutines raise `BrokerUnavailable` where the directory cannot be reached; then the outcome is unknown."""

    def attach(self, listener: Listener) -> None:
        """Called once, before `start`."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Take back what this node has told, if that takes no longer than a moment. Idempotent."""

    # — who is here: told in the order of the calls; what cannot be told now is told later —

    async def enter(self, draft: RoomDraft, user: PresentUser, *, create: bool, max_rooms: int | None) -> Entered:
        """Have a user in a room on this node: he counts from then on. Again for one who is there: tells anew what he is.

        Raises `RoomNotFound` (none, and it is not to be made), `RoomLimitExceeded`, `GuestsNotAllowed`, `RoomFull`, `ValidationError` (an id that
        cannot be kept). Where it raises, nothing has changed in the end. After cancelling that is unknown: `leave` settles it.
        """

    def leave(self, room_id: str, user_id: str) -> None:
        """The user is no longer in the room on this node."""

    def renew(self, room_id: str, user: PresentUser) -> None:
        """What a user who is in the room on this node is has changed, perhaps."""

    def count(self, room_id: str, sockets: int) -> None:
        """How many sockets of this node are in the room."""

    async def told(self, room_id: str) -> None:
        """Wait until what there was to tell of a room has been told, or could not be."""

    # — rooms —

    async def create(self, draft: RoomDraft, *, max_rooms: int | None) -> RoomRecord:
        """The room, made where there was none. Raises `RoomLimitExceeded`, `ValidationError` (a name or type that cannot be kept)."""

    async def destroy(self, room_id: str) -> str:
        """End a room and everybody's being in it; returns its birth. Raises `RoomNotFound`."""

    async def find(self, room_id: str) -> RoomRecord | None: ...

    async def page(self, prefix: str, limit: int, after: str | None) -> tuple[list[RoomRecord], str | None]:
        """Rooms by rising id, after one, at most `limit`; and after which to go on, None at the end."""

    async def members(self, room_id: str) -> list[Member]:
        """Who is in a room, longest first."""

    async def has(self, room_id: str, user_id: str) -> bool:
        """Whether a user is in a room, on whichever node."""

    async def reachable(self, room_id: str, within: float) -> list[PresentUser]:
        """Who is in a room, or left it less than `within` seconds ago."""

    # — other nodes —

    async def clean_up(self, node: str) -> None:
        """Take back what a node has told that is no more. May be done again, and by several."""

    def tell_again(self) -> None:
        """See whether everything that this node has told is still there, and tell again what is not."""
