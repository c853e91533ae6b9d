"""The target of the port: bytes of a request, by the short way and by the long one, in one piece and in many, to the server's own gate."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable
from functools import cache
from itertools import pairwise
from typing import Any

from aibos_realtime import RealtimeConfig
from aibos_realtime.server.assembly import assemble
from aibos_realtime.server.handshake import Arrival, Handshake
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.transport.entrance import Entrance, Newcomer
from aibos_realtime.transport.http import UpgradeRequest, Verdict
from tests.unit.transport.test_entrance import Stream, http_of, say

from .oracle import check, run
from .source import Source

OPTIONS: dict[str, Any] = {
    "authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3, "query_parameter": "token"},
    "persistence": {"database": {"url": "memory://"}},
    "compression": {"enabled": True},
    "cors": {"origin": ["https://app.example"]},
    "limits": {
        "handshakes_per_second": None, "handshakes_per_second_per_address": None, "failed_authentications_per_minute": None, "url_bytes": 200,
        "header_fields": 12, "header_bytes": 300, "headers_bytes": 600,
    },
}  # fmt: skip
LINES = (
    b"Host: localhost", b"Upgrade: websocket", b"Connection: Upgrade", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Key: short", b"Sec-WebSocket-Version: 8", b"Origin: https://app.example",
    b"Origin: https://evil.example", b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Sec-WebSocket-Protocol: aibos.realtime.v1",
    b"Sec-WebSocket-Protocol: bearer.a.b.c, aibos.realtime.v1.msgpack", b"Authorization: Bearer a.b.c", b"Content-Length: 5", b"Content-Length: 0",
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"X-Forwarded-For: 1.2.3.4, ::1", b"Connection: close", b"Upgrade: h2c", b" folded",
    b"X:", b":",
    b"X-A: \xff\x00", b"Host: a", b"X: " + b"a" * 250, b"Cookie: a=b", b"TE: trailers",
)  # fmt: skip
STARTS = (b"GET /ws HTTP/1.1", b"GET / HTTP/1.1", b"GET /ws?token=a.b.c HTTP/1.1", b"POST /ws HTTP/1.1", b"GET /ws HTTP/1.0", b"GET http://localhost/ws HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /" + b"a" * 300 + b" HTTP/1.1", b"GET /other HTTP/1.1", b"GET /%77s HTTP/1.1", b"PRI * HTTP/2.0")  # fmt: skip  # noqa: E501
STATUSES = frozenset({101, 200, 204, 400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 501, 503, 505})


@cache
def handshake() -> Handshake:
    """That of a server which is not started; it takes everybody whom its rules let in."""
    parts = assemble(RealtimeConfig.load(environment={}, env_file=None, **OPTIONS)[0], clock=ManualClock())
    parts.handshake.is_open = True
    return parts.handshake


class _Gate:
    """Asks the server's own, and notes what it was asked and who came in."""

    def __init__(self) -> None:
        self.gate = handshake()
        self.http_limits = self.gate.http_limits
        self.requests: list[UpgradeRequest] = []
        self.entered: list[tuple[Arrival, bytes]] = []
        self.gate._welcome = self._enter
        self.is_ours = self.gate.is_ours
        self.refused = self.gate.refused

    def decide(self, request: UpgradeRequest) -> Verdict | Awaitable[Verdict]:
        self.requests.append(request)
        return self.gate.decide(request)

    def _enter(self, arrival: Arrival, stream: asyncio.Transport, early: bytes, head: bytes = b"") -> None:
        stream.write(head)
        stream.set_protocol(asyncio.Protocol())
        self.entered.append((arrival, early))


def request(data: bytes) -> None:
    """Whatever comes first: the same requests by both ways, an answer that HTTP knows, and in only who may."""
    source = Source(data)
    is_structured = source.flag()
    cuts = [source.number(2) for _ in range(source.byte() % 4)]
    sent = _request(source) if is_structured else source.rest()
    run(_both_ways(sent, cuts))


def _request(source: Source) -> bytes:
    end = source.pick((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
    lines = [source.pick(STARTS)]
    if source.flag():
        lines += [LINES[0], LINES[1], LINES[2], LINES[4], LINES[5]]
    while not source.is_empty and len(lines) < 20:
        line = source.pick(LINES) if source.flag() else source.take(source.byte() % 40)
        lines.insert(1 + source.byte() % len(lines), line)
        if source.byte() == 255:
            break
    return end.join(lines) + end * 2 + source.rest()


async def _both_ways(sent: bytes, cuts: list[int]) -> None:
    places = sorted({cut % (len(sent) + 1) for cut in cuts})
    short, long = await _send([sent], False), await _send([sent], True)
    pieces = await _send([sent[begin:end] for begin, end in pairwise([0, *places, len(sent)])], True)
    for other in (long, pieces):
        check(other[0].requests == short[0].requests, f"asked for {other[0].requests}, and by the short way for {short[0].requests}")
        check(_judged(other[1]) == _judged(short[1]), f"answered {other[1].written}, and by the short way {short[1].written}")
    gate, stream = short
    statuses = _statuses(stream)
    check(STATUSES.issuperset(statuses), f"answered {statuses}")
    check((101 in statuses) == bool(gate.entered), "in without a word, or not in with one")
    check(len(gate.entered) <= 1, "in twice")
    if gate.entered:
        _check_entry(gate.requests[-1], b"".join(stream.written))
    check(b"Traceback" not in b"".join(stream.written), "tells of itself")


def _check_entry(request: UpgradeRequest, answer: bytes) -> None:
    def values(name: bytes) -> list[bytes]:
        return [value for found, value in request.headers if found == name]

    check((request.method, request.http_version) == ("GET", "1.1") and request.path in ("/", "/ws"), "in by another request")
    check(len(values(b"host")) == 1 and values(b"sec-websocket-version") == [b"13"] and len(values(b"sec-websocket-key")) == 1, "in by a wrong field")
    check(len(base64.b64decode(values(b"sec-websocket-key")[0], validate=True)) == 16, "in by a wrong key")
    check(values(b"origin") in ([], [b"https://app.example"]), "in from another page")
    check(b"websocket" in b",".join(values(b"upgrade")).lower() and b"upgrade" in b",".join(values(b"connection")).lower(), "in without asking")
    check(re.search(rb"\r\nSec-WebSocket-Accept: [A-Za-z0-9+/]{27}=\r\n", answer) is not None, "in without the accept")


def _judged(stream: Stream) -> list[int]:
    """The statuses. Of a head that is too large and no HTTP either, which of the two is seen first depends on how it arrives."""
    return [400 if status in (414, 431) else status for status in _statuses(stream)]


def _statuses(stream: Stream) -> list[int]:
    return [int(status) for status in re.findall(rb"(?:^|\r\n\r\n.*?)HTTP/1\.1 (\d{3}) ", b"".join(stream.written), re.DOTALL)]


async def _send(pieces: list[bytes], is_long: bool) -> tuple[_Gate, Stream]:
    gate = _Gate()
    make = http_of(gate)
    protocol: Any = make() if is_long else Entrance(gate, make, is_secure=False)()
    stream = Stream(protocol)
    protocol.connection_made(stream)
    for piece in pieces:
        if piece and not stream.is_closing():
            say(stream, piece)
            await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    last = stream.protocol
    if not isinstance(last, Newcomer):
        last.connection_lost(None)
    elif last._entrance is not None:
        last.connection_lost(None)
    await asyncio.sleep(0)
    return gate, stream
