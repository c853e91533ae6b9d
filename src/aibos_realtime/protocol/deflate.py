"""Permessage-deflate (RFC 7692), the server's side: what was agreed on, and messages in and out of DEFLATE.

Every message is compressed for itself, in both directions: no connection owns a window, and the bytes of one event serve all its receivers.
When to compress is not decided here.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from aibos_realtime.errors import MessageTooLarge, ProtocolError

EXTENSION = "permessage-deflate"

_TAIL = b"\x00\x00\xff\xff"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BITS = frozenset(str(bits) for bits in range(8, 16))
_MAX_STREAMS = 16
_LARGE = 32 * 1024
_MARGIN = 262
"""zlib looks back over its window but for so many bytes."""
_AGREED = f"{EXTENSION}; server_no_context_takeover; client_no_context_takeover"

Offer = tuple[str, list[tuple[str, str | None]]]


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What was agreed on: the value of the answer's Sec-WebSocket-Extensions, the window for `compress`, `max_message` as given."""

    response: str
    window_bits: int
    max_message: int | None


def negotiate(header: str | None, *, max_message: int | None) -> Negotiated | None:
    """Accept the first offer of permessage-deflate that can be kept (RFC 7692, section 5); None: go on without.

    header: all Sec-WebSocket-Extensions fields joined by commas. max_message: bytes in one message after inflating; None = no limit.
    Raises ProtocolError if the header breaks its grammar (RFC 6455, section 9.1): the handshake answers 400.
    """
    if header is None:
        return None
    for name, parameters in parse_offers(header):
        if name.lower() == EXTENSION and (bits := _accept(parameters)) is not None:
            response = f"{_AGREED}; server_max_window_bits={bits}" if any(key == "server_max_window_bits" for key, _ in parameters) else _AGREED
            return Negotiated(response, bits, max_message)
    return None


def _accept(parameters: list[tuple[str, str | None]]) -> int | None:
    """The window for what we send under this offer; None declines it (RFC 7692, section 7.1: unknown, repeated or invalid parameters)."""
    bits = 15
    if len({key for key, _ in parameters}) < len(parameters):
        return None
    for key, value in parameters:
        if key in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif key == "server_max_window_bits":
            # zlib cannot make a raw stream of 8 bits: declining is the honest answer.
            if value is None or value not in _BITS or value == "8":
                return None
            bits = int(value)
        elif key == "client_max_window_bits":
            # No answer needed: we inflate with 15 bits, which reads a stream of any window.
            if value is not None and value not in _BITS:
                return None
        else:
            return None
    return bits


def parse_offers(header: str) -> list[Offer]:
    """Sec-WebSocket-Extensions as `(name, [(parameter, value or None)])`. Linear in the length. Raises ProtocolError.

    A quoted value must hold a token (RFC 6455, section 9.1), so a comma or semicolon always separates.
    """
    offers: list[Offer] = []
    for element in header.split(","):
        if element.strip(" \t"):
            name, *rest = element.split(";")
            offers.append((_token(name), [_parameter(text) for text in rest]))
    return offers


def _parameter(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not equals:
        return _token(key), None
    value = value.strip(" \t")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
        if value != value.strip(" \t"):
            value = ""
    return _token(key), _token(value)


def _token(text: str) -> str:
    text = text.strip(" \t")
    if _TOKEN.fullmatch(text) is None:
        raise ProtocolError("The Sec-WebSocket-Extensions header is malformed.")
    return text


def compress(payload: bytes, window_bits: int = 15) -> bytes:
    """A message as raw DEFLATE without the tail 00 00 ff ff (RFC 7692, section 7.2.1), for a frame with rsv1. window_bits: 9 to 15.

    The compressor is made as large as the message: at zlib's defaults, making one is most of the work for a message of a few KiB. Large messages are
    compressed fast: in less than half the time, to a sixth more bytes, since nobody else is served meanwhile.
    """
    needed = (len(payload) + _MARGIN).bit_length()
    level = zlib.Z_BEST_SPEED if len(payload) >= _LARGE else zlib.Z_DEFAULT_COMPRESSION
    deflater = zlib.compressobj(level, wbits=-min(window_bits, max(9, needed)), memLevel=max(1, min(8, needed - 7)))
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Inflater:
    """Inflates messages, each with a window of its own (client_no_context_takeover); so it has no state, and one may serve many readers."""

    __slots__ = ()

    def inflate(self, payload: bytes, max_length: int | None) -> bytes:
        """The message that `payload` was (RFC 7692, section 7.2.2).

        max_length: bytes that may come out, None = no limit. Never inflates more than one byte past it.
        Raises MessageTooLarge (close 1009), or ProtocolError if it is not DEFLATE (close 1007).
        """
        bound = 0 if max_length is None else max_length + 1
        data, message = payload + _TAIL, b""
        try:
            # A block with BFINAL ends zlib's stream, not the message (section 7.2.3.4).
            # Each stream costs a new object: more than a few is an attack.
            for _ in range(_MAX_STREAMS):
                stream = zlib.decompressobj(wbits=-15)
                message += stream.decompress(data, bound and bound - len(message))
                if max_length is not None and len(message) > max_length:
                    raise MessageTooLarge
                if not stream.eof:
                    return message
                data = stream.unused_data
                if not data:
                    break
        except zlib.error:
            pass
        raise ProtocolError("The compressed data is invalid.")
