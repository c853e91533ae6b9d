"""The limits of the wire: what a name, an id and a payload may be. Sizes of frames are the frame reader's; rates are the throttle's."""

from __future__ import annotations

import re

from ..errors import ProtocolError

NAME_LENGTH = 128
REF_LENGTH = 64
ID_LENGTH = 128
DEPTH = 32
"""Levels of arrays and objects in `data`."""
INTEGER = 2**53
"""Integers are within ±this: beyond, JavaScript rounds them."""
BROADCAST_BYTES = 256 * 1024
"""Largest `data` of an event that a server sends to a room."""

_NAME = re.compile(r"[A-Za-z0-9_.:@/-]{1,128}")
_OWN_STREAM = "user:"
ALL = "all"

known_names: set[str] = set()
"""Names that `check_name` has let pass: some of them, so that it need not be called for every message."""


def check_name(kind: str, name: str) -> None:
    """Raise `ProtocolError` unless `name` is 1–128 of `[A-Za-z0-9_.:@/-]`. `kind` is "event" or "room"."""
    if name in known_names:
        return
    if _NAME.fullmatch(name) is None:
        raise ProtocolError(f"The {kind} name is not valid: 1–{NAME_LENGTH} of letters, digits and _ . : @ / - are allowed.")
    if len(known_names) < 10_000:
        known_names.add(name)


def is_name(name: str) -> bool:
    """Whether `name` may be that of an event or a room."""
    return name in known_names or _NAME.fullmatch(name) is not None


def user_stream(user_id: str) -> str:
    """The room that is a user's own stream. It accepts any user id, also one that `check_name` would refuse."""
    return _OWN_STREAM + user_id


def is_own_stream(room_id: str) -> bool:
    """Whether a room is `all` or a user's own stream: readable by its owner, written by the server alone, counted in no limit."""
    return room_id == ALL or room_id.startswith(_OWN_STREAM)


_DIGITS = b"0123456789"
_UNTELLING = bytes(set(range(256)) - set(_DIGITS) - set(b"[{"))
_SHAPE = bytes.maketrans(_DIGITS + b"eE+[{", b"0" * 10 + b"eee[[")
"""To a text in which every digit is 0, and what a number's exponent begins with is e or ee."""
_LONG_NUMBER = b"0" * 16


def is_suspect(data: bytes) -> bool:
    """Whether JSON text may hold what `check_value` refuses: a look without decoding, which is right whenever it says no.

    Half surrogates are not looked for: the JSON decoder refuses them by itself.
    """
    if 92 in data and b"\\u0000" in data:  # 92: a backslash, which is found faster as a number
        return True
    telling = len(data.translate(None, _UNTELLING))
    if telling < 4:
        return False
    shape = data.translate(_SHAPE)
    if b"e000" in shape and (b"0e000" in shape or b"0ee000" in shape):
        return True
    return (telling >= 16 and _LONG_NUMBER in shape) or (telling > DEPTH and shape.count(b"[") > DEPTH)


def check_value(value: object, depth: int = 0) -> None:
    """Raise `ProtocolError` where decoded data is too deep, holds an integer beyond ±2^53, or text with NUL or a lone surrogate.

    NUL and lone surrogates are legal JSON that databases refuse, a whole batch at a time: they stop here, at the edge.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise ProtocolError("The data holds a NUL character.")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ProtocolError("The data holds half of a surrogate pair.") from None
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -INTEGER <= value <= INTEGER:
            raise ProtocolError("The data holds an integer beyond ±2^53.")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ProtocolError("The data holds a number that JSON cannot express.")
    elif isinstance(value, (dict, list)):
        if depth >= DEPTH:
            raise ProtocolError(f"The data is nested deeper than {DEPTH} levels.")
        for part in value:
            if isinstance(value, dict) and not isinstance(part, str):
                raise ProtocolError("The data holds a map whose keys are not text.")
            check_value(part, depth + 1)
        if isinstance(value, dict):
            for part in value.values():
                check_value(part, depth + 1)
    else:
        raise ProtocolError(f"The data holds a {type(value).__name__}, which JSON cannot express.")
