"""The limits of the wire: what a name, an id and a payload may be. Sizes of frames are the frame reader's; rates are the throttle's."""

from __future__ import annotations

import re
from itertools import chain
from math import isfinite
from typing import Any

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
    if b"0e-000" in shape:  # no number is too small, but some take long to be read: see `codec.decode_json`
        return True
    return (telling >= 16 and _LONG_NUMBER in shape) or (telling > DEPTH and shape.count(b"[") > DEPTH)


def check_value(value: object, depth: int = 0) -> None:
    """Raise `ProtocolError` where decoded data is too deep, holds an integer beyond ±2^53, or text with NUL or a lone surrogate.

    NUL and lone surrogates are legal JSON that databases refuse, a whole batch at a time: they stop here, at the edge. Looked at is one level after
    the other, and all values of a kind at once: one by one, 64 KiB of empty lists would hold up the loop for 15 ms.
    """
    level: list[Any] = [value]
    while level:
        kinds = set(map(type, level))
        if not kinds <= _KINDS:
            level = [_plain(one) for one in level]
            kinds = set(map(type, level))
        if str in kinds:
            _check_text("".join([one for one in level if type(one) is str]))
        if int in kinds:
            numbers = [one for one in level if type(one) is int]
            if max(numbers) > INTEGER or min(numbers) < -INTEGER:
                raise ProtocolError("The data holds an integer beyond ±2^53.")
        if float in kinds and not all(map(isfinite, [one for one in level if type(one) is float])):
            raise ProtocolError("The data holds a number that JSON cannot express.")
        if not (list in kinds or dict in kinds):
            return
        if depth >= DEPTH:
            raise ProtocolError(f"The data is nested deeper than {DEPTH} levels.")
        depth += 1
        lists = level if len(kinds) == 1 and list in kinds else [one for one in level if type(one) is list]
        below = list(chain.from_iterable(lists))
        for one in [one for one in level if type(one) is dict] if dict in kinds else ():
            names = list(one)
            if set(map(type, names)) - {str} and not all(isinstance(name, str) for name in names):
                raise ProtocolError("The data holds a map whose keys are not text.")
            below += names
            below += one.values()
        level = below


_KINDS = frozenset({str, int, float, bool, type(None), list, dict})


def _plain(value: Any) -> Any:
    """A value of a type that stands for one of JSON's, such as an enumeration's, as that."""
    kinds: tuple[Any, ...] = (str, bool, int, float, list, dict)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise ProtocolError(f"The data holds a {type(value).__name__}, which JSON cannot express.")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ProtocolError("The data holds a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ProtocolError("The data holds half of a surrogate pair.") from None
