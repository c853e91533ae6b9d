"""What a `ClientSession` tells the one who does its I/O. Values only: who hears of them, and when, is not decided here.

`size`: bytes that the notice holds of the session's inbox, until `ClientSession.handled` gives them back.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ..errors import RealtimeError
from .messages import Event, Position, Ref


class Answered(Struct, frozen=True):
    """A request has its answer. `value` depends on the request; for a join it is a `JoinedRoom`."""

    ref: int
    value: Any


class Refused(Struct, frozen=True):
    """A request has failed, here or at the server."""

    ref: int
    error: RealtimeError


class Arrived(Struct, frozen=True):
    """An event of a room, in order and not seen before."""

    event: Event
    size: int


class Received(Struct, frozen=True):
    """An event to this socket alone. With `ref` the server awaits an answer, on connection number `connection` and no other."""

    event: str
    data: Any
    size: int = 0
    ref: Ref | None = None
    connection: int = 0


class Resynced(Struct, frozen=True):
    """Continuity of a room is lost: what is held of it is stale. It comes before the first later event.

    `position`: where the room goes on, None if that is unknown; `last`: the last place that was reached before.
    """

    room: str
    position: Position | None
    last: Position | None


class Departed(Struct, frozen=True):
    """No longer in a room. `reason`: the server's word for it, or None after a `leave_room` of our own."""

    room: str
    reason: str | None = None


class Parting(Struct, frozen=True):
    """The server will close soon, and says when to come back (seconds from then) and, perhaps, where."""

    delay_min: float
    delay_max: float
    reason: str
    url: str | None = None


class Expiring(Struct, frozen=True):
    """The token ends soon. `data` as on the wire: `{"expiresAt"}`."""

    data: Any


class Faulted(Struct, frozen=True):
    """An error that answers no request."""

    error: RealtimeError


Notice = Answered | Refused | Arrived | Received | Resynced | Departed | Parting | Expiring | Faulted
