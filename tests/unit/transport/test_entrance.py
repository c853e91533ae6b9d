"""The first bytes of a connection: what goes the short way means what the strict reading of it says, and everything else goes the long way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from aibos_realtime import RealtimeServer
from aibos_realtime.protocol.frames import FrameReader
from aibos_realtime.transport import http
from aibos_realtime.transport.entrance import Entrance, Newcomer, websocket_of
from aibos_realtime.transport.http import Acceptance, HttpLimits, HttpProtocol, Refusal, UpgradeRequest, Verdict
from aibos_realtime.transport.websocket import WebSocketTransport

KEY: dict[str, Any] = {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Stream(asyncio.Transport):
    """A stream in memory."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": ("192.0.2.1", 40_000)})
        self.protocol = protocol
        self.written: list[bytes] = []
        self.is_paused = False
        self.shut = asyncio.Event()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.shut.is_set()

    def close(self) -> None:
        self.shut.set()

    abort = close


class Gate:
    """Notes what it is asked, and says what it was told to say."""

    def __init__(self, verdict: Verdict | Callable[[], Awaitable[Verdict]] | None = None, **limits: Any) -> None:
        self.http_limits = HttpLimits(**limits)
        self.requests: list[UpgradeRequest] = []
        self.refusals: list[int] = []
        self.opened: list[tuple[WebSocketTransport, bytes]] = []
        self.has_opened = asyncio.Event()
        self._verdict = verdict

    def is_ours(self, path: str) -> bool:
        return path in ("/", "/ws")

    def refused(self, status: int) -> None:
        self.refusals.append(status)

    def decide(self, request: UpgradeRequest) -> Verdict | Awaitable[Verdict]:
        self.requests.append(request)
        if self._verdict is None:
            return Acceptance((("X-A", "b"),), self._open)
        return self._verdict() if callable(self._verdict) else self._verdict

    def _open(self, stream: asyncio.Transport, early: bytes) -> None:
        self.opened.append((websocket_of(stream, FrameReader(), "192.0.2.1"), early))
        self.has_opened.set()


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def http_of(gate: http.Gate) -> Callable[[], HttpProtocol]:
    config = Config(no_app, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    return partial(HttpProtocol, gate, has_app=False, config=config, server_state=ServerState(), app_state={})


def arrive(gate: Gate) -> tuple[Stream, Entrance]:
    entrance = Entrance(gate, http_of(gate), is_secure=False)
    newcomer = entrance()
    stream = Stream(newcomer)
    newcomer.connection_made(stream)
    return stream, entrance


def say(stream: Stream, data: bytes) -> None:
    protocol = stream.protocol
    assert isinstance(protocol, asyncio.Protocol)
    protocol.data_received(data)


async def test_a_usual_handshake_goes_the_short_way() -> None:
    gate = Gate()
    stream, _ = arrive(gate)
    say(stream, HANDSHAKE.replace(b"/ws", b"/ws?a=b&c") + b"early")
    [(transport, early)] = gate.opened
    assert stream.protocol is transport and isinstance(transport, Newcomer) and early == b"early" and not stream.is_paused
    assert stream.written == [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: b\r\n\r\n"]
    [request] = gate.requests
    assert (request.method, request.path, request.query, request.http_version, request.is_raw) == ("GET", "/ws", b"a=b&c", "1.1", True)
    assert (request.peer_address, request.is_secure, request.headers[0]) == ("192.0.2.1", False, (b"host", b"localhost"))


LONG_WAY = {
    "another method": HANDSHAKE.replace(b"GET", b"POST"),
    "another version": HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another path": HANDSHAKE.replace(b"/ws", b"/other"),
    "an absolute URL": HANDSHAKE.replace(b"/ws", b"http://localhost/ws"),
    "a fragment": HANDSHAKE.replace(b"/ws", b"/ws#a"),
    "a field twice": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX: 1\r\nx: 2\r\n"),
    "no host": HANDSHAKE.replace(b"Host: localhost\r\n", b""),
    "an empty field": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX:\r\n"),
    "a space at the end": HANDSHAKE.replace(b"localhost\r\n", b"localhost \r\n"),
    "a folded field": HANDSHAKE.replace(b"localhost\r\n", b"localhost\r\n a\r\n"),
    "a space before the colon": HANDSHAKE.replace(b"Host:", b"Host :"),
    "line feeds": HANDSHAKE.replace(b"\r\n", b"\n"),
    "a carriage return in a field": HANDSHAKE.replace(b"localhost", b"local\rhost"),
    "a control character": HANDSHAKE.replace(b"localhost", b"local\x01host"),
    "beyond ASCII": HANDSHAKE.replace(b"localhost", b"local\xe9host"),
    "a length": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nContent-Length: 0\r\n"),
    "chunks": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nTransfer-Encoding: chunked\r\n"),
    "an expectation": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nExpect: 100-continue\r\n"),
    "no upgrade": HANDSHAKE.replace(b"Upgrade: websocket\r\n", b""),
    "another upgrade": HANDSHAKE.replace(b"websocket", b"h2c"),
    "a connection that stays": HANDSHAKE.replace(b"keep-alive, Upgrade", b"keep-alive"),
    "half of it": HANDSHAKE[:-1],
    "an empty line before it": b"\r\n" + HANDSHAKE,
    "more fields than allowed": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(5))),
    "more bytes than allowed": HANDSHAKE.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX: " + b"a" * 900 + b"\r\n"),
}


@pytest.mark.parametrize("sent", LONG_WAY.values(), ids=LONG_WAY)
async def test_what_goes_the_long_way(sent: bytes) -> None:
    gate = Gate(header_fields=8, header_bytes=1000, headers_bytes=1000)
    stream, entrance = arrive(gate)
    say(stream, sent)
    assert not isinstance(stream.protocol, Newcomer)
    assert not entrance._silent
    stream.protocol.connection_lost(None)
    await asyncio.sleep(0)


token = st.text("abcXYZ09-_!#$%&'*+.^`|~", min_size=1, max_size=8).map(str.encode)
value = st.text(st.characters(min_codepoint=9, max_codepoint=255), max_size=12).map(lambda text: text.encode("latin-1"))
NAMES = (b"Host", b"Upgrade", b"Connection", b"Origin", b"Content-Length", b"Transfer-Encoding", b"TE", b"Proxy-Connection", b"Authorization")
VALUES = (b"websocket", b"Upgrade", b"keep-alive, Upgrade", b"close, upgrade", b"0", b"chunked", b"", b"a b", b"h2c, WebSocket", b"upgrade,", b",")
field = st.tuples(st.sampled_from(NAMES) | token, st.sampled_from([b": ", b":", b":\t ", b" : "]), st.sampled_from(VALUES) | value)
TARGETS = (b"/", b"/ws", b"/ws?", b"/?a=b%20c", b"/ws?a?b/c", b"//ws", b"/ws/", b"/ws#", b"/ws?#")
target = st.sampled_from(TARGETS) | value.map(lambda text: b"/ws?" + text)
ending = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r"])


@settings(max_examples=400, deadline=None)
@given(target, st.lists(field, max_size=6), ending, st.booleans(), st.sampled_from([b"", b"\x81\x80", b"GET / HTTP/1.1\r\n\r\n"]))
@example(b"/ws", [], b"\r\n", True, b"")
@example(b"/ws", [(b"Proxy-Connection", b": ", b"close")], b"\r\n", True, b"")
def test_the_short_way_reads_as_the_long_way_does(
    path: bytes, fields: list[tuple[bytes, bytes, bytes]], end: bytes, whole: bool, early: bytes
) -> None:
    lines = [b"GET " + path + b" HTTP/1.1", *(b"".join(one) for one in fields)]
    if whole:
        lines[1:1] = [b"Host: a", b"Upgrade: websocket", b"Connection: Upgrade"]
    sent = end.join(lines) + b"\r\n\r\n" + early

    async def both_ways() -> None:
        short, long = Gate(), Gate()
        stream, _ = arrive(short)
        say(stream, sent)
        if not isinstance(stream.protocol, Newcomer):
            stream.protocol.connection_lost(None)
            return
        protocol = http_of(long)()
        other = Stream(protocol)
        protocol.connection_made(other)
        protocol.data_received(sent)
        assert long.requests == short.requests and not long.refusals
        assert [found for _, found in long.opened] == [found for _, found in short.opened] == [early]
        assert other.written == stream.written

    asyncio.run(both_ways())


async def test_a_refusal_is_told_and_ends_the_connection() -> None:
    gate = Gate(Refusal(403, "permission_denied", "No."))
    stream, _ = arrive(gate)
    say(stream, HANDSHAKE)
    assert stream.written[0].startswith(b"HTTP/1.1 403 ") and stream.is_closing() and gate.refusals == [], "the gate has counted it"


async def test_a_decision_that_waits_holds_up_what_comes_meanwhile() -> None:
    decided: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    async def decide() -> Verdict:
        return await decided

    gate = Gate(decide)
    stream, _ = arrive(gate)
    say(stream, HANDSHAKE + b"ea")
    assert stream.is_paused and not stream.written
    say(stream, b"rly")
    decided.set_result(Acceptance((), gate._open))
    async with asyncio.timeout(5):
        await gate.has_opened.wait()
    [(transport, early)] = gate.opened
    assert early == b"early" and stream.written[0].startswith(b"HTTP/1.1 101 ") and not isinstance(transport, Newcomer)
    transport.connection_lost(None)


async def test_a_peer_that_goes_before_the_decision() -> None:
    gone = asyncio.Event()

    async def decide() -> Verdict:
        try:
            return await asyncio.Event().wait()  # type: ignore[return-value]
        finally:
            gone.set()

    stream, _ = arrive(Gate(decide))
    say(stream, HANDSHAKE)
    await asyncio.sleep(0)
    stream.protocol.connection_lost(None)
    async with asyncio.timeout(5):
        await gone.wait()


async def test_who_says_nothing_is_let_go_when_his_time_is_over_and_not_before() -> None:
    loop = asyncio.get_running_loop()
    gate = Gate(handshake_seconds=0.05)
    entrance = Entrance(gate, http_of(gate), is_secure=False)
    begin, streams = loop.time(), []
    for _ in range(4):
        newcomer = entrance()
        stream = Stream(newcomer)
        newcomer.connection_made(stream)
        streams.append(stream)
    gone, heard, silent, late = streams
    gone.protocol.connection_lost(None)
    say(heard, HANDSHAKE)
    last = [*entrance._silent][-1]
    entrance._silent[last] += 30.0  # as if he had come so much later
    async with asyncio.timeout(5):
        await silent.shut.wait()
    assert loop.time() - begin >= 0.048 and not heard.is_closing() and not late.is_closing() and [*entrance._silent] == [last]
    assert entrance._timer is not None
    entrance._timer.cancel()
    entrance._silent[last] = begin
    entrance._end_silence()
    assert late.is_closing() and not entrance._silent and entrance._timer is None


async def test_half_a_head_has_only_what_is_left_of_the_time() -> None:
    gate = Gate(handshake_seconds=30.0)
    stream, entrance = arrive(gate)
    [newcomer] = entrance._silent
    entrance._silent[newcomer] -= 29.95  # as if he had come so long ago
    say(stream, HANDSHAKE[:50])
    async with asyncio.timeout(5):
        await stream.shut.wait()
    assert stream.written[0].startswith(b"HTTP/1.1 408 ")
    entrance.close()


async def test_the_end_of_the_port_ends_those_who_are_silent() -> None:
    stream, entrance = arrive(Gate(handshake_seconds=None))
    entrance.close()
    assert stream.is_closing()
    newcomer = entrance()
    late = Stream(newcomer)
    newcomer.connection_made(late)
    assert late.is_closing() and entrance._timer is None


async def test_the_welcome_comes_with_the_101() -> None:
    server = RealtimeServer(host="127.0.0.1", port=0, authentication=KEY, persistence={"database": {"url": "memory://"}})
    async with server:
        gate = server._parts.handshake
        newcomer = Entrance(gate, http_of(gate), is_secure=False)()
        stream = Stream(newcomer)
        newcomer.connection_made(stream)
        say(stream, HANDSHAKE)
        [first] = stream.written
        assert first.startswith(b"HTTP/1.1 101 ") and b'{"event":"connected"' in first
        newcomer.connection_lost(None)
