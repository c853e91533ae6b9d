"""The first bytes of a connection: a handshake in its usual form goes to the gate at once, everything else to `http`.

Who is let in goes on as the WebSocket's transport: the object that read the request is the one that reads the frames, so the stream keeps its
protocol, and never stops reading. A request counts as usual where the strict reading of `http` could find nothing to doubt in it: it comes in one
piece, in plain characters, without a body, no field twice, and for one of the gate's own paths. No limit is decided here: what is near one goes to
`http`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from typing import Any

from ..protocol.frames import FrameReader
from .batch import Write
from .crowd import Crowd
from .http import Acceptance, Gate, Headers, HttpProtocol, UpgradeRequest, tokens_of
from .websocket import PlainWebSocketTransport, WebSocketTransport

_HEAD = re.compile(
    rb"GET (/[A-Za-z0-9_.~/-]*+)(?:\?([A-Za-z0-9_.~!$&'()*+,;=:@/?%-]*+))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9_-]++:[ \t]*+[\t -~]++(?<![\t ])\r\n){1,64})\r\n"  # no `+` after the group: CPython before 3.11.5 misreads it (gh-106052)
)
_FIELD = re.compile(rb"([^:]++):[ \t]*+([^\r]++)\r\n")
_DOUBTFUL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"te", b"trailer", b"http2-settings", b"proxy-connection"})
_NO_FRAMES_YET = FrameReader(masked=False)
"""Takes nothing for a frame, so that every byte comes to `Newcomer._feed`."""


class Entrance:
    """Makes the protocol of each connection of a port. `make_http` makes that of one which is no usual handshake."""

    def __init__(
        self,
        gate: Gate,
        make_http: Callable[[], HttpProtocol],
        *,
        is_secure: bool,
        descriptors: int | None = None,
        connections: Collection[Any] = (),
    ) -> None:
        """`is_secure`: connections come over TLS. `descriptors`: how many the process may have; `connections`: those of HTTP."""
        self.gate = gate
        self.make_http = make_http
        self.is_secure = is_secure
        limits = gate.http_limits
        self.most_bytes = min(limits.url_bytes, limits.header_bytes, limits.headers_bytes)
        self.most_fields = limits.header_fields
        self._seconds = limits.handshake_seconds
        self._silent: dict[Newcomer, float] = {}
        """Who has not said anything yet, and until when he may be silent; the first comes first."""
        self._crowd = Crowd(descriptors, self._silent, connections) if descriptors is not None else None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __call__(self) -> Newcomer:
        return Newcomer(self) if self.is_secure else PlainNewcomer(self)

    def expect(self, newcomer: Newcomer) -> None:
        """Give a connection its time to ask for something. One timer serves all: they have the same time."""
        if self._is_closed:  # accepted while the port was closed
            newcomer.turn_away()
            return
        if self._crowd is not None and not self._crowd.has_place(newcomer.stream):
            self.gate.refused(503)
            return
        if self._seconds is None:
            self._silent[newcomer] = 0.0
            return
        loop = asyncio.get_running_loop()
        self._silent[newcomer] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._end_silence)

    def heard(self, newcomer: Newcomer) -> float | None:
        """A connection said something, or is gone; returns the seconds that are left of its time. None: there is no limit."""
        until = self._silent.pop(newcomer, 0.0)
        return None if self._seconds is None else max(0.0, until - asyncio.get_running_loop().time())

    def forget(self, newcomer: Newcomer) -> None:
        """The same, where nobody asks how much is left."""
        self._silent.pop(newcomer, None)

    def close(self) -> None:
        """Close the connections that have said nothing, and those that are still to come."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for newcomer in list(self._silent):
            newcomer.turn_away()

    def _end_silence(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._silent:
            newcomer, until = next(iter(self._silent.items()))
            if until > now + 0.001:  # the loop's clock counts milliseconds
                self._timer = asyncio.get_running_loop().call_later(until - now, self._end_silence)
                return
            del self._silent[newcomer]
            newcomer.turn_away()


class Newcomer(WebSocketTransport):
    """One connection from its accept on: see the module. A `WebSocketTransport` from `enter` on, and not before."""

    __slots__ = ("_entrance",)

    def __init__(self, entrance: Entrance) -> None:
        self._entrance: Entrance | None = entrance
        self._reader = _NO_FRAMES_YET
        self._peer = None

    def enter(self, stream: asyncio.Transport, reader: FrameReader, remote_address: str, write: Write | None = None) -> None:
        """Be this stream's WebSocket."""
        super().__init__(stream, reader, remote_address, write)
        self._entrance = None

    @property
    def stream(self) -> asyncio.Transport:
        return self._stream

    def turn_away(self) -> None:
        if self._entrance is not None:
            self._entrance.forget(self)
        self._stream.close()

    # — what the loop tells —

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._stream = transport
        if self._entrance is not None:
            self._entrance.expect(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entrance is not None:
            self._entrance.forget(self)
        else:
            super().connection_lost(exc)

    def _feed(self, data: bytes) -> None:
        if self._entrance is None:
            super()._feed(data)
        else:
            self._read_request(self._entrance, data)

    def take_over(self, early: bytes, soft_limit: int) -> None:
        stream = self._stream
        stream.set_write_buffer_limits(high=soft_limit, low=soft_limit // 4)
        if early:
            self._feed(early)

    # — the request —

    def _read_request(self, entrance: Entrance, data: bytes) -> None:
        stream = self._stream
        if stream.is_closing():
            return
        match = _HEAD.match(data)
        request = self._usual(entrance, match) if match is not None else None
        if match is None or request is None:
            http = self._leave(entrance)
            http.data_received(data)
            return
        verdict = entrance.gate.decide(request)
        early = data[match.end() :]
        if type(verdict) is not Acceptance:
            http = self._leave(entrance)
            http.settle(verdict, early)
            return
        entrance.forget(self)
        verdict.act(stream, early)

    def _usual(self, entrance: Entrance, match: re.Match[bytes]) -> UpgradeRequest | None:
        """The request, if it is in its usual form."""
        path, query, block = match.groups()
        fields: Headers = [(name.lower(), value) for name, value in _FIELD.findall(block)]
        by_name = dict(fields)
        if len(by_name) < len(fields) or len(fields) != block.count(b"\n") or len(fields) > entrance.most_fields or match.end() > entrance.most_bytes:
            return None
        if b"host" not in by_name or not _DOUBTFUL.isdisjoint(by_name):
            return None
        if b"websocket" not in tokens_of(by_name.get(b"upgrade", b"")) or b"upgrade" not in tokens_of(by_name.get(b"connection", b"")):
            return None
        name = path.decode("ascii")
        if not entrance.gate.is_ours(name):
            return None
        peer = self._stream.get_extra_info("peername")
        return UpgradeRequest("GET", name, query or b"", "1.1", fields, str(peer[0]) if peer else "", entrance.is_secure)

    def _leave(self, entrance: Entrance) -> HttpProtocol:
        """Have HTTP's protocol go on with the stream."""
        stream, seconds = self._stream, entrance.heard(self)
        http = entrance.make_http()
        stream.set_protocol(http)
        http.take_over(stream, seconds)
        return http


class PlainNewcomer(Newcomer, asyncio.Protocol):
    """The same on plain TCP: see `PlainWebSocketTransport`."""

    __slots__ = ()


def websocket_of(stream: asyncio.Transport, reader: FrameReader, remote_address: str, write: Write | None = None) -> WebSocketTransport:
    """The WebSocket of a stream whose handshake is done: of who has read it, if that is still there."""
    newcomer = stream.get_protocol()
    if not isinstance(newcomer, Newcomer):
        kind = PlainWebSocketTransport if stream.get_extra_info("sslcontext") is None else WebSocketTransport
        return kind(stream, reader, remote_address, write)
    newcomer.enter(stream, reader, remote_address, write)
    return newcomer
