"""Events as they stand in Redis, and messages as they go over its channels. What comes from there is checked like what comes from a client."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ...errors import ProtocolError
from ...protocol.codec import decode_json
from ...protocol.limits import BROADCAST_BYTES, ID_LENGTH, INTEGER, check_value, is_name, is_suspect
from ...protocol.messages import Position
from ..base import Audience, Draft, LoggedEvent

EVENT, VOLATILE, NOTICE = b"e", b"v", b"p"
"""The first byte of a message: what follows it."""

MAX_BYTES = 4 * BROADCAST_BYTES
"""Of one record: no event is larger, with its audience."""
LATEST = 253_402_300_799_999
"""The last millisecond that RFC 3339 has a name for."""

_ID = re.compile(rf"[^\x00-\x1f\x7f]{{1,{ID_LENGTH}}}")


class Record(Struct, omit_defaults=True):
    """What an event is besides its room, position and time. `d`: its data; `u`: who published it."""

    e: str
    d: Raw
    i: str
    u: str | None = None
    a: Audience | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(event: Draft | LoggedEvent) -> bytes:
    """The record of an event."""
    return _encoder.encode(Record(event.event, Raw(event.data), event.id, event.user_id, event.audience))


def encode_or_none(event: Draft | LoggedEvent) -> bytes | None:
    """The same; None where it would be too large, or the event holds what is no text."""
    try:
        record = encode(event)
    except (ValueError, TypeError):
        return None
    return record if len(record) <= MAX_BYTES else None


def decode(record: bytes, room: str, epoch: str, offset: int, timestamp: int) -> LoggedEvent | None:
    """The event that a record tells of; None for what is no record, or what no server would have taken from anybody."""
    if len(record) > MAX_BYTES or offset > INTEGER or timestamp > LATEST:
        return None
    try:
        record.decode()
        found = _decoder.decode(record)
        data = bytes(found.d)
        if is_suspect(data):
            check_value(decode_json(data))
        if found.a is not None and is_suspect(record):
            check_value(decode_json(msgspec.json.encode(found.a)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ProtocolError):
        return None
    user_id = found.u
    if not is_name(found.e) or _ID.fullmatch(found.i) is None or (user_id is not None and (not user_id or "\0" in user_id)):
        return None
    return LoggedEvent(room, found.e, data, found.i, epoch, offset, timestamp, user_id, found.a)


def encode_volatile(event: LoggedEvent, node: str) -> bytes | None:
    """The message of a volatile event, or None as above. `node`: who sends it, and has delivered it already."""
    record = encode_or_none(event)
    return b"%s%s %d %s" % (VOLATILE, node.encode(), event.timestamp, record) if record is not None else None


def decode_event(message: bytes, room: str) -> LoggedEvent | None:
    """The event of a message of the kind `EVENT`; None for what is none."""
    parts = message[1:].split(b" ", 3)
    if len(parts) != 4:
        return None
    epoch, offset, timestamp, record = parts
    return _decode(record, room, epoch, offset, timestamp)


def decode_volatile(message: bytes, room: str) -> tuple[str, LoggedEvent] | None:
    """(who sent it, the event) of a message of the kind `VOLATILE`; None for what is none."""
    parts = message[1:].split(b" ", 2)
    if len(parts) != 3:
        return None
    node, timestamp, record = parts
    event = _decode(record, room, b"", b"0", timestamp)
    return None if event is None else (node.decode("latin-1"), event)


def decode_entry(fields: Any, room: str, head: Position, id: bytes) -> LoggedEvent | None:
    """The event of an entry of a room's log; None for what is none, or stands beyond its end. A newer node may have more fields after the first."""
    offset, _, rest = id.partition(b"-")
    if len(fields) < 4 or fields[0] != b"r" or fields[2] != b"t" or rest != b"0":
        return None
    event = _decode(fields[1], room, head.epoch.encode(), offset, fields[3])
    return event if event is not None and event.offset <= head.offset else None


def _decode(record: bytes, room: str, epoch: bytes, offset: bytes, timestamp: bytes) -> LoggedEvent | None:
    if not (offset.isdigit() and timestamp.isdigit() and len(offset) <= 16 and len(timestamp) <= 16 and len(epoch) <= 64 and epoch.isascii()):
        return None
    text = epoch.decode()
    return decode(record, room, text, int(offset), int(timestamp)) if text.isprintable() else None
