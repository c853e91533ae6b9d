"""The messages of `aibos.realtime.v1` as values: what a client says, what a server says, and what an event of a room is.

Field names here are those of the wire, in Python's spelling; `rename="camel"` makes the one mapping between the two. No I/O, no clock.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

VERSION = 1
SUBPROTOCOL = "aibos.realtime.v1"
SUBPROTOCOL_MSGPACK = "aibos.realtime.v1.msgpack"
BEARER = "bearer."
"""Prefix of the `Sec-WebSocket-Protocol` entry in which a browser carries its token."""

Ref = int | str
Offset = Annotated[int, Meta(ge=0, le=2**53)]
"""One that a server says. A client keeps it, counts on from it and repeats it to other servers."""

RESERVED = frozenset(
    {
        "authenticate",
        "join-room",
        "leave-room",
        "history",
        "presence",
        "ping",
        "pong",
        "ack",
        "error",
        "connected",
        "reconnect",
        "resync",
        "room-closed",
    }
    | {"authenticated", "joined-room", "left-room", "permission_denied", "token-expiring", "user.joined", "user.left", "disconnect", "connection"}
)
"""Event names with a meaning of their own: no application publishes under them."""


class Position(Struct, frozen=True):
    """A place in a room's log. Offsets count from 1, each +1, within an epoch; a new epoch means that continuity was lost."""

    epoch: str
    offset: int


class Receipt(Struct, frozen=True):
    """The acknowledgement of a publish. `duplicate`: this id had been published before, at this position.

    `position` is None for a volatile event, which has none. `room` is None where a client named none, and was in several by the time of the answer.
    """

    id: str
    room: str | None
    position: Position | None
    duplicate: bool = False


class ClientMessage(Struct, frozen=True, gc=False):
    """Client → server: `{"event": NAME, "data"?: any, "room"?: ROOM, "ref"?: REF, "id"?: ID}`. `data` stays undecoded."""

    event: str
    data: Raw | UnsetType = UNSET
    room: str | None = None
    ref: Ref | None = None
    id: str | None = None


class ServerMessage(Struct, frozen=True, rename="camel"):
    """Server → client, any of them: which members are there depends on the event."""

    event: str
    data: Any = None
    room: str | None = None
    ref: Ref | None = None
    id: str | None = None
    offset: Offset | None = None
    user_id: str | None = None
    timestamp: str | None = None


class Event(Struct, frozen=True):
    """An event of a room, as an application gets it (in the client's callbacks, in `history`)."""

    event: str
    room: str
    data: Any
    id: str
    offset: int | None
    epoch: str | None = None
    user_id: str | None = None
    timestamp: datetime | None = None

    @property
    def position(self) -> Position | None:
        """Where it stands in the room's log; None for a `volatile` event or a presence notice, which take no place."""
        return None if self.offset is None or self.epoch is None else Position(self.epoch, self.offset)


class JoinRoom(Struct, frozen=True, rename="camel"):
    """`data` of `join-room`; a bare string is the room id alone."""

    room_id: str
    recover: Position | None = None
    rewind: Annotated[int, Meta(ge=0)] | None = None
    """A number below 0 would be no limit at all to some databases."""
    presence: bool = False


class HistoryRequest(Struct, frozen=True, rename="camel"):
    """`data` of `history`. At most one of `before` and `after`."""

    room_id: str
    limit: int = 50
    before: Position | None = None
    after: Position | None = None


class RoomRequest(Struct, frozen=True, rename="camel"):
    """`data` of `leave-room` and `presence`; a bare string is the room id alone."""

    room_id: str


class TokenRequest(Struct, frozen=True):
    """`data` of `authenticate`; a bare string is the token alone."""

    token: str

    def __repr__(self) -> str:
        return "TokenRequest(…)"


class Member(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One user who is present in a room. `since`: RFC 3339."""

    user_id: str
    role: str | None = None
    since: str | None = None


def to_builtins(value: object) -> Any:
    """Plain dicts and lists of a message or a part of one, as they go on the wire."""
    return msgspec.to_builtins(value)
