"""`Message`: what the store keeps and gives back, and its checks. How it is stored is `backends/sql`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import ProtocolError, ValidationError
from ..protocol.limits import BROADCAST_BYTES, NAME_LENGTH, check_name, is_name, is_own_stream
from ..protocol.messages import Position
from ..protocol.publishing import check_id, encode_data

SERVER = ""
"""The user id of a row that the server itself published."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Message(Struct, frozen=True, kw_only=True, rename="camel"):
    """A stored message.

    `id`: one message per room, user and id. `user_id`: who published it, None the server. `type`: the event name. `data`: what JSON can express, at
    most 256 KiB. `timestamp`: with a time zone; kept in milliseconds, UTC. `position`: its place in the room's log; None for one that was stored
    beside the log, and when storing. `msgspec.json.encode(message)` is its JSON, with names in camelCase.
    """

    id: str
    room_id: str
    type: str
    timestamp: datetime
    user_id: str | None = None
    data: Any = None
    position: Position | None = None


class DeadMessage(Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that the database refused. `data`: JSON text. `buried`: when that was. Characters that it cannot hold were replaced."""

    id: str
    room_id: str
    type: str
    timestamp: datetime
    user_id: str | None
    data: str | None
    reason: str
    buried: datetime


class Erased(Struct, frozen=True):
    """How much was erased."""

    messages: int
    dead_messages: int


def to_row(message: Message) -> dict[str, Any]:
    """The columns of a message, checked. Raises `ValidationError` naming the field, `MessageTooLarge`."""
    if not isinstance(message, Message):
        raise ValidationError(f"a Message is expected, not {type(message).__name__}")
    check_id("id", message.id)
    check_room("room_id", message.room_id)
    if message.user_id is not None:
        check_user("user_id", message.user_id)
    try:
        check_name("event", message.type)
    except (ProtocolError, TypeError) as error:
        raise ValidationError(f"type: {error}") from None
    return {
        "room_id": message.room_id,
        "message_id": message.id,
        "user_id": message.user_id or SERVER,
        "type": message.type,
        "data": encode_data(message.data, BROADCAST_BYTES).decode(),
        "timestamp": to_milliseconds("timestamp", message.timestamp),
    }


def to_message(row: Mapping[str, Any]) -> Message:
    """The message that a row holds."""
    return Message(
        id=row["message_id"],
        room_id=row["room_id"],
        type=row["type"],
        timestamp=to_datetime(row["timestamp"]),
        user_id=row["user_id"] or None,
        data=msgspec.json.decode(row["data"]),
        position=Position(row["epoch"], row["log_offset"]) if row["epoch"] is not None else None,
    )


def to_dead_message(row: Mapping[str, Any]) -> DeadMessage:
    """The dead message that a row holds."""
    return DeadMessage(
        id=row["message_id"],
        room_id=row["room_id"],
        type=row["type"],
        timestamp=to_datetime(row["timestamp"]),
        user_id=row["user_id"] or None,
        data=row["data"],
        reason=row["reason"],
        buried=to_datetime(row["buried"]),
    )


def check_room(path: str, room: str) -> None:
    """Raise `ValidationError` for what cannot be the id of a room."""
    is_one = isinstance(room, str) and (is_name(room) or (is_own_stream(room) and _is_printable(room.removeprefix("user:"))))
    if not is_one:
        raise ValidationError(f"{path}: 1–{NAME_LENGTH} of letters, digits and _ . : @ / - are allowed")


def check_user(path: str, user: str) -> None:
    """Raise `ValidationError` for what cannot be the id of a user."""
    if not isinstance(user, str) or not _is_printable(user):
        raise ValidationError(f"{path}: 1–{NAME_LENGTH} printable characters are allowed")


def _is_printable(text: str) -> bool:
    return 0 < len(text) <= NAME_LENGTH and text.isprintable()


def to_milliseconds(path: str, moment: datetime) -> int:
    """Milliseconds since 1970. Raises `ValidationError` for a time without a time zone."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValidationError(f"{path}: a datetime with a time zone is expected, such as datetime.now(UTC)")
    return (moment - _EPOCH) // _MILLISECOND


def to_datetime(milliseconds: int) -> datetime:
    """A time in UTC of milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)
