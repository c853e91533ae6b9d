"""What a program says of an event that it publishes, checked: its name, its id, its data, and whom to leave out.

Who publishes, and by which way, is not its business: the broadcaster and the outbox both ask here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ..errors import MessageTooLarge, ProtocolError, RealtimeError, ValidationError
from .codec import MALFORMED, decode_json, encode_json, encode_other
from .limits import BROADCAST_BYTES, ID_LENGTH, check_name, check_value, is_own_stream, is_suspect, user_stream
from .messages import RESERVED

_ID = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{ID_LENGTH}}}")


def check_room(room: str) -> None:
    """Raise `ProtocolError` for what is no room, `ValidationError` for what is no user's own stream."""
    if is_own_stream(room):
        check_id("room", room.removeprefix(user_stream("")))
    else:
        check_name("room", room)


def check_audience(conditions: object) -> None:
    """Raise `ValidationError` for conditions, or user ids, that cannot be kept beside an event."""
    try:
        encode_data(conditions, BROADCAST_BYTES)
    except RealtimeError:
        raise ValidationError("filter, exclude: plain JSON values and user ids are allowed, at most 256 KiB in all") from None


def check_event(event: str) -> None:
    """Raise `ProtocolError` for a name that no event may have, `ValidationError` for one that the protocol keeps for itself."""
    check_name("event", event)
    if event in RESERVED:
        raise ValidationError(f"The event name {event!r} is reserved for the protocol.")


def check_id(option: str, id: str) -> None:
    """Raise `ValidationError`, naming the option, for what is no id of an event."""
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        raise ValidationError(f"{option}: a text of 1–{ID_LENGTH} characters is allowed, without control characters and half surrogates")


def excluded(user_ids: Iterable[str]) -> frozenset[str]:
    """The user ids of an `exclude`. Raises `ValidationError` for what would exclude nobody."""
    if isinstance(user_ids, str):
        raise ValidationError("exclude: a list of user ids is expected, not one text")
    found = frozenset(user_ids)
    if not all(isinstance(user_id, str) for user_id in found):
        raise ValidationError("exclude: a list of user ids is expected, and ids are texts")
    return found


def encode_data(data: Any, max_bytes: int | None) -> bytes:
    """The JSON text of an event's data. Raises `ValidationError` for what JSON cannot express or a database cannot keep, `MessageTooLarge`."""
    try:
        text = encode_json(data)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(f"The data cannot be sent: {error}") from None
    if max_bytes is not None and len(text) > max_bytes:
        raise MessageTooLarge(f"The data has {len(text)} bytes; at most {max_bytes} are sent to a room.")
    try:
        if is_suspect(text):
            check_value(decode_json(text))
        if b"null" in text:
            # The encoder writes null for what is not a number, and whoever reads it would take it for nothing.
            check_value(msgspec.to_builtins(data, enc_hook=encode_other, str_keys=True))
    except (ProtocolError, *MALFORMED) as error:
        raise ValidationError(f"The data cannot be sent: {error}") from None
    return text
