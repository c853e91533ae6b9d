"""WebSocket frames (RFC 6455, section 5): bytes in, messages out, and back.

One `FrameReader` per connection checks, unmasks, inflates and joins what a peer sends; `encode_frame` builds what we send.
No socket, no clock, no policy: a violation becomes a close payload, and sending it is the transport's part.
Permessage-deflate (RFC 7692) is in `deflate`.
"""

from __future__ import annotations

import struct
import sys
from codecs import utf_8_decode
from collections.abc import Iterable
from itertools import repeat

from aibos_realtime.errors import MessageTooLarge, ProtocolError
from aibos_realtime.protocol.deflate import Inflater
from aibos_realtime.protocol.masking import apply_mask

CONTINUATION = 0
TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10
FAILED = -1
"""Not an opcode of the wire: the peer broke the protocol, and the payload is that of the close frame to send."""

FIN = 0x80
_RSV = 0x70
_RSV1 = 0x40
_FIN_TEXT = FIN | TEXT
_FIN_BINARY = FIN | BINARY
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_MAX_CONTROL = 125
_MAX_REASON = 123
_UNLIMITED = sys.maxsize
_ALL = repeat(None)
LARGE = 4096
"""Bytes from which what a peer sends waits for its turn in any case: in one round many may send, and 64 KiB of JSON take milliseconds to read."""
TURN = range(256)
"""For `FrameReader.feed`: the frames that one peer may have looked at, before it is the turn of others."""
TURN_BYTES = 256 * 1024
"""Of messages that were inflated, likewise: a few of the largest."""

_from_bytes = int.from_bytes
_short_head = struct.Struct(">BB4s").unpack_from
_long_head = struct.Struct(">BBH4s").unpack_from
_pack_long_head = struct.Struct(">BBH").pack


class _Violation(Exception):
    """The peer broke a rule: `payload` is the close payload that says so."""

    def __init__(self, code: int, reason: str) -> None:
        self.payload = close_payload(code, reason)


class _Assembly:
    """A fragmented message between its first and its last fragment."""

    __slots__ = ("opcode", "compressed", "data", "fragments", "rest")

    def __init__(self, opcode: int, compressed: bool) -> None:
        self.opcode = opcode
        self.compressed = compressed
        self.data = bytearray()
        self.fragments = 0
        self.rest = b""  # the first bytes of a character that the next fragment completes

    def add(self, payload: bytes, final: bool) -> None:
        """Raise UnicodeDecodeError as soon as the text cannot become UTF-8 any more."""
        self.fragments += 1
        self.data += payload
        if self.opcode == TEXT and not self.compressed and (self.rest or not payload.isascii()):
            text = self.rest + payload
            self.rest = text[utf_8_decode(text, "strict", final)[1] :]
            if b"\xed\xa0" <= self.rest < b"\xee":  # half a surrogate, which the decoder would let pass until its third byte
                self.rest.decode()


class FrameReader:
    """What one peer sends, cut into messages.

    masked: True reads a client's frames, which must be masked; False a server's, which must not be (section 5.1).
    max_message: bytes in one message, counted on the wire and again after inflating; None = no limit.
    max_fragments: frames that one message may come in, empty ones included; None = no limit.
    inflater: present if permessage-deflate was negotiated; without it a compressed frame is a violation.
    """

    __slots__ = (
        "_assembly", "_ended", "_inflated", "_inflater", "_masked", "_max_fragments", "_max_message", "_max_whole", "_need", "_quick", "_skipping",
        "_tail",
    )  # fmt: skip

    def __init__(
        self, *, masked: bool = True, max_message: int | None = 65536, max_fragments: int | None = 256, inflater: Inflater | None = None
    ) -> None:
        self._masked = masked
        self._max_message = _UNLIMITED if max_message is None else max_message
        self._max_fragments = _UNLIMITED if max_fragments is None else max_fragments
        self._inflater = inflater
        self._tail: bytearray | None = None  # an unfinished frame from its first byte on
        self._need = 0  # the length of `_tail` from which it is worth looking at again
        self._assembly: _Assembly | None = None
        self._ended = False
        self._inflated = 0  # bytes, in this turn
        self._skipping = False
        self._quick = masked  # a whole message in one frame can be taken by the short way in `feed`
        self._max_whole = min(self._max_message, LARGE) if masked else -1  # bytes `take_whole` looks at; -1 where there is what only `feed` knows of

    @property
    def incomplete(self) -> bool:
        """A frame or a fragmented message has begun and not ended: somebody should be counting the seconds."""
        return self._assembly is not None or (self._tail is not None and self._need != 0)

    @property
    def has_more(self) -> bool:
        """A turn ended before the bytes did: call `feed(b"", TURN)` for the rest, after others have had theirs."""
        return self._tail is not None and self._need == 0

    def skip_data(self) -> None:
        """From here on only control frames count: data frames are checked and passed over, neither unmasked nor inflated nor kept."""
        self._skipping = True
        self._quick = False
        self._max_whole = -1

    def take_whole(self, data: bytes) -> bytes | None:
        """The payload of what was received, where that is what it mostly is: one frame with one whole message, and nothing besides.

        Its opcode is in the low half of `data[0]`. None: it is anything else, of which nothing has been taken, and which is for `feed`.
        """
        size = len(data)
        if size > self._max_whole or size < 6:
            return None
        if size < 132:
            first, second, mask = _short_head(data)
            if second != size + 122:  # masked, and as long as that
                return None
            payload = apply_mask(data[6:], mask)
        else:
            first, second, length, mask = _long_head(data)
            if second != 254 or length != size - 8 or size < 134:
                return None
            payload = apply_mask(data[8:], mask)
        if first == _FIN_TEXT:
            if not payload.isascii():
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    return None
        elif first != _FIN_BINARY:
            return None
        return payload

    def feed(self, data: bytes | memoryview, turn: Iterable[object] = _ALL) -> list[tuple[int, bytes]]:
        """Take what was received; return the messages and control frames that it completes, in order, as `(opcode, payload)`.

        TEXT is proven to be UTF-8, BINARY and TEXT are whole and inflated. Nothing of `data` is kept by reference.
        A violation ends the list with `(FAILED, close payload)`: 1002 (protocol), 1007 (content) or 1009 (size).
        After that, and after CLOSE (section 5.5.1), everything is discarded. Nothing is raised, whatever the bytes.
        turn: `TURN` ends it early, for a kilobyte inflates to a megabyte, and holds 170 frames that each cost as much as any; see `has_more`.
        """
        chunk: bytes | bytearray
        if self._tail is None:
            chunk = bytes(data)
        else:
            chunk = self._tail
            chunk += data
            if len(chunk) < self._need:
                return []
            self._tail = None
        at, size, longest = 0, len(chunk), self._max_message
        messages: list[tuple[int, bytes]] = []
        try:
            for _ in turn:
                if at >= size:
                    break
                if self._quick and at + 8 <= size:
                    first = chunk[at]
                    length = chunk[at + 1] - 128
                    begin = at + 6
                    if length > 125:
                        begin = at + 8
                        length = chunk[at + 2] << 8 | chunk[at + 3] if length == 126 else 0
                        if length < 126:
                            length = -1
                    end = begin + length
                    if 0 <= length <= longest and end <= size and (first == _FIN_TEXT or first == _FIN_BINARY):
                        payload = apply_mask(chunk[begin:end], chunk[begin - 4 : begin])
                        if first == _FIN_TEXT and not payload.isascii():
                            payload.decode()
                        messages.append((first & 15, payload))
                        at = end
                        continue
                at = self._take(chunk, at, messages)
                if self._inflated > TURN_BYTES and turn is TURN:
                    break
            if at < size:
                self._wait(chunk, at, 0)
                self._inflated = 0
        except _Violation as violation:
            messages.append((FAILED, violation.payload))
            self._end()
        except UnicodeDecodeError:
            messages.append((FAILED, close_payload(1007, "text is not UTF-8")))
            self._end()
        self._max_whole = min(self._max_message, LARGE) if self._quick and self._tail is None else -1
        return messages

    def _take(self, chunk: bytes | bytearray, at: int, messages: list[tuple[int, bytes]]) -> int:
        """Take the frame at `at`, of any kind: return where the next one begins; the end of the chunk if there is nothing more to take."""
        size = len(chunk)
        if self._ended:
            return size
        if size - at < 2:
            return self._wait(chunk, at, 2)
        first, second = chunk[at], chunk[at + 1]
        self._check_head(first, second)
        length, begin = second & 127, at + 2
        if length > 125:
            wide = 2 if length == 126 else 8
            begin += wide
            if size < begin:
                return self._wait(chunk, at, begin - at)
            length = _from_bytes(chunk[at + 2 : begin], "big")
            if length < (126 if wide == 2 else 65536) or length >> 63:
                raise _Violation(1002, "invalid length")
        if not first & 8:
            self._check_room_for(length)
        begin += 4 if self._masked else 0
        end = begin + length
        if size < end:
            return self._wait(chunk, at, end - at)
        if self._skipping and not first & 8:
            self._assembly = None if first & FIN else self._assembly or _Assembly(first & 15, False)
            return end
        payload = bytes(chunk[begin:end]) if not self._masked else apply_mask(memoryview(chunk)[begin:end], chunk[begin - 4 : begin])
        if first & 8:
            self._take_control(first & 15, payload, messages)
        else:
            self._take_data(first, payload, messages)
        return end

    def _wait(self, chunk: bytes | bytearray, at: int, need: int) -> int:
        """Keep the chunk from `at` on until there are `need` bytes."""
        self._tail = bytearray(memoryview(chunk)[at:])
        self._need = need
        return len(chunk)

    def _check_head(self, first: int, second: int) -> None:
        """What the first two bytes of a frame can do wrong (sections 5.2, 5.4, 5.5)."""
        opcode, reserved = first & 15, first & _RSV
        # RFC 7692, section 6: RSV1 is on the first frame of a message only, and never on a control frame.
        if reserved and not (reserved == _RSV1 and self._inflater is not None and opcode in (TEXT, BINARY)):
            raise _Violation(1002, "reserved bit")
        if opcode not in _OPCODES:
            raise _Violation(1002, "reserved opcode")
        if opcode >= CLOSE:
            if not first & FIN:
                raise _Violation(1002, "fragmented control frame")
            if second & 127 > _MAX_CONTROL:
                raise _Violation(1002, "control frame too long")
        elif opcode == CONTINUATION:
            if self._assembly is None:
                raise _Violation(1002, "nothing to continue")
        elif self._assembly is not None:
            raise _Violation(1002, "message inside a message")
        if (second & 0x80 != 0) is not self._masked:
            raise _Violation(1002, "frame not masked" if self._masked else "frame masked")

    def _check_room_for(self, length: int) -> None:
        """Refuse an announced length, or one fragment more, before a byte of it is kept."""
        assembly = self._assembly
        if assembly is not None:
            length += len(assembly.data)
            if assembly.fragments >= self._max_fragments:
                raise _Violation(1009, "too many fragments")
        if length > self._max_message:
            raise _Violation(1009, "message too large")

    def _take_control(self, opcode: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        if opcode == CLOSE:
            if payload and not is_close_code(_from_bytes(payload[:2], "big")):  # one byte alone is no valid code either
                raise _Violation(1002, "invalid close code")
            payload[2:].decode()
            self._end()
        messages.append((opcode, payload))

    def _take_data(self, first: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        final, opcode, compressed = first & FIN != 0, first & 15, first & _RSV1 != 0
        if not final or opcode == CONTINUATION:
            assembly = self._assembly
            if assembly is None:
                assembly = self._assembly = _Assembly(opcode, compressed)
                self._quick = False
            assembly.add(payload, final)
            if not final:
                return
            opcode, compressed, payload = assembly.opcode, assembly.compressed, bytes(assembly.data)
            self._assembly = None
            self._quick = self._masked
            proven = not compressed
        else:
            proven = False
        if compressed:
            payload = self._inflate(payload)
        if opcode == TEXT and not proven and not payload.isascii():
            payload.decode()
        messages.append((opcode, payload))

    def _inflate(self, payload: bytes) -> bytes:
        assert self._inflater is not None
        try:
            message = self._inflater.inflate(payload, None if self._max_message == _UNLIMITED else self._max_message)
            self._inflated += len(message)
            return message
        except MessageTooLarge:
            raise _Violation(1009, "message too large") from None
        except ProtocolError:
            raise _Violation(1007, "invalid compressed data") from None

    def _end(self) -> None:
        self._ended = True
        self._quick = False
        self._tail = self._assembly = None


def encode_message(first: int, payload: bytes) -> bytes:
    """The frame of a server's whole message, which is neither masked nor compressed. `first`: its first byte, `FIN | TEXT` or `FIN | BINARY`."""
    size = len(payload)
    if 126 <= size < 65536:
        return _pack_long_head(first, 126, size) + payload
    return _encode_head(first, size, 0) + payload


def encode_frame(opcode: int, payload: bytes, *, mask: bytes | None = None, rsv1: bool = False, fin: bool = True) -> bytes:
    """One frame. A server sends no mask; a client four unpredictable bytes (section 5.3). rsv1: the payload begins a compressed message."""
    size = len(payload)
    first = opcode | FIN if fin else opcode
    if rsv1:
        first |= _RSV1
    if mask is not None:
        return _encode_head(first, size, 0x80) + mask + apply_mask(payload, mask)
    return _encode_head(first, size, 0) + payload


def _encode_head(first: int, size: int, masked: int) -> bytes:
    if size < 126:
        return (first << 8 | masked | size).to_bytes(2, "big")
    if size < 65536:
        return ((first << 8 | masked | 126) << 16 | size).to_bytes(4, "big")
    return ((first << 8 | masked | 127) << 64 | size).to_bytes(10, "big")


def split_frames(data: bytes) -> list[tuple[int, bytes, bool]]:
    """The frames of a chunk that we built: whole, final, unmasked. `(opcode, payload, rsv1)` each, for transports that frame by themselves.

    Raises ValueError if the chunk ends inside a frame.
    """
    frames: list[tuple[int, bytes, bool]] = []
    at, size = 0, len(data)
    while at < size:
        first, length, begin = data[at], data[at + 1] if at + 1 < size else 0, at + 2
        if length > 125:
            begin += 2 if length == 126 else 8
            length = _from_bytes(data[at + 2 : begin], "big")
        at = begin + length
        if at > size:
            raise ValueError("the chunk ends inside a frame")
        frames.append((first & 15, data[begin:at], first & _RSV1 != 0))
    return frames


def is_close_code(code: int) -> bool:
    """Whether a close frame may carry this code (RFC 6455, section 7.4, and the IANA registry)."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame; the reason is cut to 123 bytes between two characters. 1005 (no code) gives an empty one.

    Raises ValueError for a code that is never sent, such as 1006.
    """
    if code == 1005:
        return b""
    if not is_close_code(code):
        raise ValueError(f"a close frame cannot carry the code {code}")
    text = reason.encode("utf-8", "replace")
    if len(text) > _MAX_REASON:
        text = text[:_MAX_REASON].decode("utf-8", "ignore").encode()
    return code.to_bytes(2, "big") + text


def parse_close(payload: bytes) -> tuple[int, str]:
    """The code and reason of a close payload that a reader has accepted; an empty one is `(1005, "")` (section 7.1.5)."""
    if len(payload) < 2:
        return 1005, ""
    return _from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")
