"""The messages as they stand in WebSocket frames, from the client's side: JSON in text frames, MessagePack in binary ones."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..errors import ProtocolError, ValidationError
from ..protocol.codec import MALFORMED, JsonCodec, MsgpackCodec, encode_other, read_float
from ..protocol.limits import check_value, is_suspect
from ..protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK, ServerMessage

LARGE = 4096
"""Bytes of a message from which it matters that some numbers take msgspec long to read: see `codec.decode_json`."""


class Wire(Protocol):
    """One way to write the messages down."""

    subprotocol: str
    is_text: bool

    def pack(self, data: Any) -> Raw | UnsetType:
        """The encoded form of an application's data; None is left out. Raises `ValidationError` for what cannot be encoded."""

    def encode(self, frame: dict[str, Any]) -> bytes:
        """A message of the client."""

    def decode(self, payload: str | bytes) -> ServerMessage:
        """A message of the server. Raises `ProtocolError`."""

    def unpack(self, data: Raw) -> Any:
        """What `pack` packed."""


class JsonWire:
    """`aibos.realtime.v1`."""

    subprotocol = SUBPROTOCOL
    is_text = True

    def __init__(self) -> None:
        self._codec = JsonCodec()
        self._decoder = msgspec.json.Decoder(ServerMessage)
        self._careful_decoder = msgspec.json.Decoder(ServerMessage, float_hook=read_float)

    def pack(self, data: Any) -> Raw | UnsetType:
        return _pack(self._codec, data)

    def encode(self, frame: dict[str, Any]) -> bytes:
        return msgspec.json.encode(frame)

    def decode(self, payload: str | bytes) -> ServerMessage:
        if not isinstance(payload, str):
            raise ProtocolError("The server sent a binary message where text was agreed.")
        try:
            if len(payload) > LARGE and is_suspect(payload.encode()):
                return self._careful_decoder.decode(payload)
            return self._decoder.decode(payload)
        except MALFORMED:
            raise ProtocolError("The server sent a message that is not of the protocol.") from None

    def unpack(self, data: Raw) -> Any:
        return msgspec.json.decode(data)


class MsgpackWire:
    """`aibos.realtime.v1.msgpack`."""

    subprotocol = SUBPROTOCOL_MSGPACK
    is_text = False

    def __init__(self) -> None:
        self._codec = MsgpackCodec()
        self._decoder = msgspec.msgpack.Decoder(ServerMessage)

    def pack(self, data: Any) -> Raw | UnsetType:
        return _pack(self._codec, data)

    def encode(self, frame: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode(frame)

    def decode(self, payload: str | bytes) -> ServerMessage:
        if isinstance(payload, str):
            raise ProtocolError("The server sent a text message where binary was agreed.")
        try:
            return self._decoder.decode(payload)
        except MALFORMED:
            raise ProtocolError("The server sent a message that is not of the protocol.") from None

    def unpack(self, data: Raw) -> Any:
        return msgspec.msgpack.decode(data)


def _pack(codec: JsonCodec | MsgpackCodec, data: Any) -> Raw | UnsetType:
    if data is None:
        return UNSET
    try:
        packed = codec.encode(data)
        if b"null" in packed:  # what the encoder writes for what is not a number
            check_value(msgspec.to_builtins(data, enc_hook=encode_other, str_keys=True))
        return Raw(packed)
    except ProtocolError as error:
        raise ValidationError(f"This data cannot be sent: {error}", errors=[{"path": "$", "message": "cannot be encoded"}]) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # The text of the error may quote the data; its type does not.
        message = f"This data cannot be sent ({type(error).__name__}): give plain values, dataclasses, msgspec structs or pydantic models."
        raise ValidationError(message, errors=[{"path": "$", "message": "cannot be encoded"}]) from error


def make_wire(codec: Literal["json", "msgpack"]) -> Wire:
    """The wire of a `codec` option."""
    return MsgpackWire() if codec == "msgpack" else JsonWire()


def repack(frame: dict[str, Any], packed: Wire, wanted: Wire) -> dict[str, Any]:
    """A frame whose data was packed for one wire, for another: the server did not take the one that was preferred."""
    data = frame.get("data")
    return frame | {"data": packed.unpack(data)} if isinstance(data, Raw) and packed.subprotocol != wanted.subprotocol else frame
