"""What the parts of a server's messages mean to a client: plain functions from decoded data to values, for data that may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..errors import LONGEST_WAIT, RealtimeError, from_wire
from .client_notices import Parting
from .messages import Event, Member, Offset, Position, ServerMessage

LONGEST_DELAY = LONGEST_WAIT
"""Seconds. Nobody is sent away for longer, whatever a server says."""


Epoch = Annotated[str, Meta(pattern=r"^[!-~]{1,128}$")]
"""Whatever it is, it is sent back: what no server would take must not be kept."""


class JoinedRoom(Struct, frozen=True, rename="camel"):
    """`data` of `joined-room`. `recovered` is None where nothing was asked for."""

    room_id: str
    epoch: Epoch
    offset: Offset
    recovered: bool | None = None
    members: list[Member] | None = None

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)


class _Place(Struct, frozen=True):
    epoch: Epoch
    offset: Offset

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)


class RoomPlace(Struct, frozen=True, rename="camel"):
    """`data` of `resync`."""

    room_id: str
    epoch: Epoch
    offset: Offset

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)


def read_positions(streams: object) -> dict[str, Position]:
    """`streams` of `connected` and `authenticated`. Raises `msgspec.ValidationError`."""
    return {name: place.position for name, place in msgspec.convert(streams, dict[str, _Place]).items()} if isinstance(streams, Mapping) else {}


def read_user(user: object) -> dict[str, Any] | None:
    return user if isinstance(user, dict) else None


def read_error(message: ServerMessage) -> RealtimeError:
    """The error of an `error` or `permission_denied` message."""
    data = message.data if isinstance(message.data, dict) else {}
    return from_wire(data | {"code": "permission_denied"} if message.event == "permission_denied" else data)


def read_parting(data: object) -> Parting:
    """`data` of `reconnect`."""
    values = data if isinstance(data, dict) else {}
    low, high = read_delay(values.get("delayMin")), read_delay(values.get("delayMax"))
    url = values.get("url")
    return Parting(min(low, high), max(low, high), read_text(values.get("reason")), url if isinstance(url, str) else None)


def read_text(value: object, default: str = "") -> str:
    """A text of the wire; the default for what is none, or empty."""
    return value if isinstance(value, str) and value else default


def read_delay(value: object) -> float:
    """A duration of the wire, made safe: 0 … `LONGEST_DELAY` seconds, and 0 for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 0.0
    return float(min(max(value, 0), LONGEST_DELAY))


def to_event(message: ServerMessage, epoch: str | None, room: str = "") -> Event:
    """The application's view of an event. A timestamp that is none becomes None."""
    timestamp = None
    if message.timestamp is not None:
        try:
            timestamp = datetime.fromisoformat(message.timestamp)
        except ValueError:
            pass
    return Event(
        event=message.event,
        room=message.room or room,
        data=message.data,
        id=message.id or "",
        offset=message.offset,
        epoch=None if message.offset is None else epoch,
        user_id=message.user_id,
        timestamp=timestamp,
    )


def to_frame(event: str, data: Raw | UnsetType, **members: Any) -> dict[str, Any]:
    """A message of the client, without its `ref`. `data` is encoded already; UNSET leaves it out."""
    return {"event": event, **({} if data is UNSET else {"data": data}), **members}
