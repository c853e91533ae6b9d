"""Bytes ⇄ messages, in JSON and in MessagePack: the same messages, the same checks, one class each.

`data` of a client's message stays undecoded until somebody needs it: a publish that is only passed on is checked, and passed on as it came.
Inside the server the data of an event is JSON text; a MessagePack member costs one conversion per event, not per member.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ..errors import ProtocolError
from . import deflate, frames
from .limits import ID_LENGTH, INTEGER, REF_LENGTH, check_name, check_value, is_suspect, known_names
from .messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK, ClientMessage, Ref

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""What decoding raises for input that is not valid."""


class Answer(Struct, frozen=True, omit_defaults=True, gc=False):
    """Server → one client: an answer (with the client's `ref`), a call (with the server's), or an event to this socket alone."""

    event: str
    ref: Ref | UnsetType = UNSET
    data: Any = UNSET


class RoomFrame(Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """Server → members of a room: an event with its place, the same bytes for each of them. A notice has no offset and no id."""

    event: str
    room: str
    offset: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    data: Any = UNSET
    user_id: str | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET


class Codec(Protocol):
    """One way to write the messages down."""

    subprotocol: str
    opcode: int

    def decode(self, payload: bytes) -> ClientMessage:
        """A client's message, envelope checked, `data` not. Raises `ProtocolError`."""

    def ref_of(self, payload: bytes) -> Ref | None:
        """The `ref` of a message that `decode` refuses, where it has a valid one: so that its sender learns which it was."""

    def encode(self, message: Struct) -> bytes: ...

    def value(self, data: Raw | UnsetType) -> Any:
        """`data` as plain Python values, checked by `limits.check_value`. Raises `ProtocolError`."""

    def to_json(self, data: Raw | UnsetType) -> bytes:
        """`data` as checked JSON text. Raises `ProtocolError`."""

    def from_json(self, data: bytes) -> Any:
        """JSON text of an event's data, as what `encode` takes for a `data` member."""


_REF = re.compile(rf"[^\x00-\x1f\x7f]{{1,{REF_LENGTH}}}")
_ID = re.compile(rf"[^\x00-\x1f\x7f]{{1,{ID_LENGTH}}}")


def _check_envelope(message: ClientMessage) -> ClientMessage:
    if message.event not in known_names:
        check_name("event", message.event)
    if message.room is not None and message.room not in known_names:
        check_name("room", message.room)
    if message.ref is not None and not _is_ref(message.ref):
        raise ProtocolError(f"The ref is not valid: an integer within ±2^53, or a text of 1–{REF_LENGTH} characters, is allowed.")
    if message.id is not None and _ID.fullmatch(message.id) is None:
        raise ProtocolError(f"The id is not valid: a text of 1–{ID_LENGTH} characters is allowed.")
    return message


def _is_ref(ref: object) -> bool:
    if type(ref) is int:
        return -INTEGER <= ref <= INTEGER
    if isinstance(ref, str):
        return _REF.fullmatch(ref) is not None
    return False


class _RefAlone(Struct):
    """Of a message that is not of the protocol: nothing else of it is looked at, so that it costs no more than one that is."""

    ref: Raw = Raw(b"")


_LONGEST_REF = 12 * REF_LENGTH + 2
"""Bytes of a ref in which every letter is a pair of escapes."""


def _ref_of(find: Callable[[bytes], _RefAlone], decode: Callable[[Raw], Any], payload: bytes) -> Ref | None:
    try:
        raw = find(payload).ref
        ref = decode(raw) if 0 < len(bytes(raw)) <= _LONGEST_REF else None
    except MALFORMED:
        return None
    return ref if _is_ref(ref) else None


def read_float(number: str) -> float:
    """A number of JSON. Raises ValueError for one beyond what a float holds."""
    value = float(number)
    if value - value:  # an infinity
        raise ValueError("beyond what a float holds")
    return value


_read: Callable[[bytes | Raw], Any] = msgspec.json.Decoder().decode
_read_slowly: Callable[[bytes | Raw], Any] = msgspec.json.Decoder(float_hook=read_float).decode


def decode_json(text: bytes) -> Any:
    """JSON text as plain values. Raises what `MALFORMED` names.

    Numbers such as `1e308` are read by Python: of these msgspec takes 9 µs for each, which is 95 ms for 64 KiB of them.
    """
    return _read_slowly(text) if is_suspect(text) else _read(text)


class JsonCodec:
    """Subprotocol `aibos.realtime.v1`, text frames."""

    subprotocol = SUBPROTOCOL
    opcode = frames.TEXT

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(ClientMessage).decode
        self._find_ref = msgspec.json.Decoder(_RefAlone).decode
        self.encode = msgspec.json.Encoder(enc_hook=encode_other).encode

    def decode(self, payload: bytes) -> ClientMessage:
        try:
            message = self._decode(payload)
        except MALFORMED:
            raise ProtocolError(
                'The message is not one of the protocol: an object like {"event": "invoice.created", "data": …} is expected.'
            ) from None
        ref = message.ref
        if type(ref) is int and -INTEGER <= ref <= INTEGER and message.event in known_names and message.room is None and message.id is None:
            return message  # as most requests are, and spared the call
        return _check_envelope(message)

    def ref_of(self, payload: bytes) -> Ref | None:
        return _ref_of(self._find_ref, msgspec.json.decode, payload)

    def value(self, data: Raw | UnsetType) -> Any:
        if data is UNSET:
            return None
        text = bytes(data)
        is_text = text.startswith(b'"')
        has_doubt = not is_text and is_suspect(text)
        try:
            value = _read_slowly(text) if has_doubt else _read(text)
        except MALFORMED:
            raise ProtocolError("The data is not valid JSON, or nested too deep.") from None
        if has_doubt or (is_text and "\0" in value):
            check_value(value)
        return value

    def to_json(self, data: Raw | UnsetType) -> bytes:
        if data is UNSET:
            return b"null"
        text = bytes(data)
        if is_suspect(text):
            self.value(data)
        return text

    def from_json(self, data: bytes) -> Any:
        return Raw(data)


class MsgpackCodec:
    """Subprotocol `aibos.realtime.v1.msgpack`, binary frames. What JSON cannot express (binary, extensions) is refused in `data`."""

    subprotocol = SUBPROTOCOL_MSGPACK
    opcode = frames.BINARY

    def __init__(self) -> None:
        self._decoder = msgspec.msgpack.Decoder(ClientMessage)
        self._find_ref = msgspec.msgpack.Decoder(_RefAlone).decode
        self._encoder = msgspec.msgpack.Encoder(enc_hook=encode_other)
        self.encode = self._encoder.encode

    def decode(self, payload: bytes) -> ClientMessage:
        try:
            message = self._decoder.decode(payload)
        except MALFORMED:
            raise ProtocolError("The message is not one of the protocol: a map with the member `event` is expected.") from None
        return _check_envelope(message)

    def ref_of(self, payload: bytes) -> Ref | None:
        return _ref_of(self._find_ref, msgspec.msgpack.decode, payload)

    def value(self, data: Raw | UnsetType) -> Any:
        if data is UNSET:
            return None
        try:
            value = msgspec.msgpack.decode(data)
        except MALFORMED:
            raise ProtocolError("The data is not valid MessagePack, or nested too deep.") from None
        check_value(value)
        return value

    def to_json(self, data: Raw | UnsetType) -> bytes:
        value = self.value(data)
        try:
            return encode_json(value)
        except (TypeError, ValueError):
            raise ProtocolError("The data holds a map whose keys are not text.") from None

    def from_json(self, data: bytes) -> Any:
        return decode_json(data)


def encode_other(value: Any) -> Any:
    """What msgspec does not know by itself: pydantic models, by their own rules."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} cannot be sent: give plain values, dataclasses, msgspec structs or pydantic models")
    return dump(mode="json", by_alias=True)


encode_json = msgspec.json.Encoder(enc_hook=encode_other).encode
"""JSON text of what the server's own code sends: plain values, datetimes, Decimals (as text), UUIDs, dataclasses, structs, pydantic models."""


class Encoding:
    """How a socket wants its frames: a codec, and permessage-deflate or not. Few exist; sockets share them, and frames are built once for each."""

    __slots__ = ("_encode", "_first", "codec", "deflate_threshold", "window_bits")

    def __init__(self, codec: Codec, window_bits: int | None = None, deflate_threshold: int = 1024) -> None:
        self.codec = codec
        self._encode = codec.encode
        self._first = frames.FIN | codec.opcode
        self.window_bits = window_bits
        self.deflate_threshold = deflate_threshold

    def frame(self, message: Struct) -> bytes:
        """The whole frame of a message, as a server sends it."""
        payload = self._encode(message)
        if self.window_bits is None or len(payload) < self.deflate_threshold:
            return frames.encode_message(self._first, payload)
        return frames.encode_frame(self.codec.opcode, deflate.compress(payload, self.window_bits), rsv1=True)
