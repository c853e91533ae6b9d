"""A WebSocket to a server, from a load process's side: frames in and out, and little else, so that thousands fit into one process.

All connections of a process read into one buffer. What a server sends to many members is the same bytes for each: such a chunk is parsed and decoded
the first time, and known by sight afterwards (`Inbox`). Each client still judges every event by itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
from typing import Any, Protocol, cast

import msgspec
from msgspec import Raw, Struct

from ..errors import ProtocolError
from ..protocol import frames
from ..protocol.close_codes import CloseCode
from ..protocol.codec import MALFORMED
from ..protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK, ServerMessage
from .judge import mark_of
from .plan import Place

EVENT = "bench"
"""The name of the events that are published."""

Delivery = tuple[str, int, int, int]
"""(room, offset, when it was due in microseconds, mark); of an event that is not of this run due and mark are 0."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MOST_HEAD = 64 * 1024
_KNOWN = 64
_LARGEST_KNOWN = 64 * 1024

_shared = memoryview(bytearray(256 * 1024))


class _Content(Struct, frozen=True, gc=False):
    """`data` of an event of ours, beside what fills it up. `t`: when it was due, in microseconds since the base of the run."""

    p: int
    n: int
    t: int
    run: str


class _Head(Struct, frozen=True, gc=False):
    event: str
    room: str | None = None
    offset: int | None = None
    data: Raw = Raw(b"null")


class Refused(Exception):
    """There is no connection. `kind`: an HTTP status, the code of a close, or `network`; `after`: seconds to wait, where the server said so."""

    def __init__(self, kind: str, message: str, after: float | None = None, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.after = after
        self.is_final = is_final


class Owner(Protocol):
    """Whose connection it is."""

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Events of rooms."""

    def told(self, message: ServerMessage) -> None:
        """Anything else."""

    def lost(self, code: int, reason: str) -> None:
        """The connection has ended; 1006 without a word."""


class Inbox:
    """Decodes for all connections of a process. `run`: whose events count as ours."""

    __slots__ = ("_codec", "_content", "_head", "_message", "bytes_received", "known", "opcode", "run", "subprotocol")

    def __init__(self, codec: str, run: str) -> None:
        self._codec: Any = msgspec.msgpack if codec == "msgpack" else msgspec.json
        self.opcode = frames.BINARY if codec == "msgpack" else frames.TEXT
        self.subprotocol = SUBPROTOCOL_MSGPACK if codec == "msgpack" else SUBPROTOCOL
        self.run = run
        self._head = self._codec.Decoder(_Head)
        self._content = self._codec.Decoder(_Content)
        self._message = self._codec.Decoder(ServerMessage)
        self.known: dict[bytes, list[Delivery]] = {}
        self.bytes_received = 0

    def encode(self, message: dict[str, Any]) -> bytes:
        """A whole frame, masked (RFC 6455, section 5.3)."""
        return frames.encode_frame(self.opcode, self._codec.encode(message), mask=os.urandom(4))

    def read(self, payload: bytes) -> Delivery | ServerMessage:
        """Raises `ProtocolError`."""
        try:
            head = self._head.decode(payload)
            if head.room is None or head.offset is None:
                message: ServerMessage = self._message.decode(payload)
                return message
            if head.event == EVENT:
                content = self._read_content(head.data)
                if content is not None:
                    return head.room, head.offset, content.t, mark_of(content.p, content.n, head.offset)
            return head.room, head.offset, 0, 0
        except MALFORMED:
            raise ProtocolError("The server sent a message that is not of the protocol.") from None

    def _read_content(self, data: Raw) -> _Content | None:
        try:
            content: _Content = self._content.decode(data)
        except MALFORMED:
            return None
        return content if content.run == self.run else None

    def remember(self, chunk: bytes, deliveries: list[Delivery]) -> None:
        """That these bytes, and no others before or after them, are these events."""
        if len(self.known) >= _KNOWN:
            self.known.clear()
        if len(chunk) <= _LARGEST_KNOWN:
            self.known[chunk] = deliveries


class Connection(asyncio.BufferedProtocol):
    """See the module. `upgraded`: done with the handshake, or with a `Refused`."""

    __slots__ = ("_accept", "_head", "_inbox", "_is_closing", "_owner", "_place", "_reader", "_stream", "upgraded")

    def __init__(self, owner: Owner, inbox: Inbox, place: Place) -> None:
        self._owner = owner
        self._inbox = inbox
        self._place = place
        self._stream: asyncio.Transport | None = None
        self._reader: frames.FrameReader | None = None
        self._head = b""
        self._accept = ""
        self._is_closing = False
        self.upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self, token: str) -> None:
        """Send the handshake."""
        assert self._stream is not None
        key = base64.b64encode(os.urandom(16))
        self._accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        place = self._place
        default = 443 if place.is_secure else 80
        host = place.name if place.port != default else place.name.rpartition(":")[0]
        lines = [
            f"GET {place.path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: {self._inbox.subprotocol}", f"Authorization: Bearer {token}", "", "",
        ]  # fmt: skip
        self._stream.write("\r\n".join(lines).encode())

    def send(self, frame: bytes) -> None:
        if self._stream is not None and not self._is_closing:
            self._stream.write(frame)

    def close(self) -> None:
        """Say goodbye; the server ends the connection."""
        self.send(frames.encode_frame(frames.CLOSE, frames.close_payload(1000), mask=os.urandom(4)))
        self._is_closing = True

    @property
    def is_gone(self) -> bool:
        return self._stream is None

    def abort(self) -> None:
        if self._stream is not None:
            self._stream.abort()

    # — what the loop tells —

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _shared

    def buffer_updated(self, nbytes: int) -> None:
        chunk = bytes(_shared[:nbytes])
        inbox = self._inbox
        inbox.bytes_received += nbytes
        reader = self._reader
        if reader is None:
            self._read_head(chunk)
        elif not reader.incomplete and (deliveries := inbox.known.get(chunk)) is not None:
            self._owner.deliver(deliveries)
        else:
            self._read(reader, chunk)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream = None
        if not self.upgraded.done():
            self.upgraded.set_exception(Refused("network", f"{self._place.name} ended the connection before it was a WebSocket."))
        elif not self._is_closing:
            self._is_closing = True
            self._owner.lost(CloseCode.ABNORMAL, "")

    # — in —

    def _read(self, reader: frames.FrameReader, chunk: bytes) -> None:
        was_whole = not reader.incomplete
        deliveries: list[Delivery] = []
        others = 0
        for opcode, payload in reader.feed(chunk):
            if self._is_closing:
                if opcode == frames.CLOSE:
                    self._end(*frames.parse_close(payload))
                continue
            found = self._decode(payload) if opcode == self._inbox.opcode else None
            if isinstance(found, tuple):
                deliveries.append(found)
                continue
            others += 1
            if deliveries:
                self._owner.deliver(deliveries)
                deliveries = []
            if found is not None:
                self._owner.told(found)
            else:
                self._take_control(opcode, payload)
        if deliveries:
            if was_whole and not others and not reader.incomplete:
                self._inbox.remember(chunk, deliveries)
            self._owner.deliver(deliveries)

    def _decode(self, payload: bytes) -> Delivery | ServerMessage | None:
        try:
            return self._inbox.read(payload)
        except ProtocolError:
            return None

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.PING:
            self.send(frames.encode_frame(frames.PONG, payload, mask=os.urandom(4)))
        elif opcode == frames.CLOSE:
            self.send(frames.encode_frame(frames.CLOSE, payload[:2], mask=os.urandom(4)))
            self._end(*frames.parse_close(payload))
        elif opcode != frames.PONG:
            self._end(CloseCode.PROTOCOL_ERROR, "the server sent what is not of the protocol")

    def _end(self, code: int, reason: str) -> None:
        was_closing, self._is_closing = self._is_closing, True
        if self._stream is not None:
            self._stream.close()
        if not was_closing:
            self._owner.lost(code, reason)

    def _read_head(self, chunk: bytes) -> None:
        if self.upgraded.done():
            return
        self._head += chunk
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _MOST_HEAD:
                self.upgraded.set_exception(self._not_ours())
                self.abort()
            return
        status, fields = read_head(head)
        if status != 101:
            length = fields.get("content-length", "")
            if length.isdecimal() and len(rest) < min(int(length), _MOST_HEAD):
                return
            self.upgraded.set_exception(explain(status, fields, rest, self._place))
            self.abort()
        elif fields.get("sec-websocket-accept") != self._accept or fields.get("sec-websocket-protocol") != self._inbox.subprotocol:
            self.upgraded.set_exception(self._not_ours())
            self.abort()
        else:
            self._head = b""
            self._reader = frames.FrameReader(masked=False, max_message=None, max_fragments=None)
            self.upgraded.set_result(None)
            if rest:
                self._read(self._reader, rest)

    def _not_ours(self) -> Refused:
        return Refused("network", f"{self._place.name} answers, but does not speak {self._inbox.subprotocol}: check the URL.", is_final=True)


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and fields of an HTTP answer; status 0 for what is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    status = int(parts[1]) if parts[0].startswith("HTTP/1.") and len(parts) > 1 and parts[1].isdecimal() else 0
    pairs = (line.partition(":") for line in lines)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}


def explain(status: int, fields: dict[str, str], body: bytes, place: Place) -> Refused:
    """What an answer means that is no upgrade. Words of the server are taken where they are of our protocol."""
    try:
        said = str(msgspec.json.decode(body)["message"])[:200]
    except (*MALFORMED, KeyError, TypeError):
        said = "check the URL" if status in (0, 200, 301, 302, 307, 308, 404) else ""
    after = fields.get("retry-after", "")
    return Refused(
        str(status),
        f"{place.name} answered {status}{f': {said}' if said else ''}",
        min(float(after), 60.0) if after.isdecimal() else None,
        is_final=status not in (408, 425, 429, 500, 502, 503, 504),
    )


async def dial(owner: Owner, inbox: Inbox, place: Place, address: str, token: str, context: ssl.SSLContext | None) -> Connection:
    """Connect and upgrade. Raises `Refused`, also where the network gives no way; cancelling leaves nothing open."""
    loop = asyncio.get_running_loop()
    connection = Connection(owner, inbox, place)
    tls: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": place.host}
    try:
        await loop.create_connection(lambda: connection, address, place.port, **tls)
        connection.ask(token)
        await connection.upgraded
    except ssl.SSLCertVerificationError:
        raise Refused("network", f"The certificate of {place.name} is not trusted.", is_final=True) from None
    except OSError as error:
        raise Refused("network", f"No connection to {place.name}: {os.strerror(error.errno) if error.errno else type(error).__name__}.") from None
    except asyncio.CancelledError:
        connection.abort()
        raise
    return connection
