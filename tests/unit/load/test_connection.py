"""A connection, fed by hand: the handshake, what becomes an event and what does not, and that a chunk known by sight means the same as a new one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.load.connection import Connection, Delivery, Inbox, Refused, explain, read_head
from aibos_realtime.load.judge import mark_of
from aibos_realtime.load.plan import Place
from aibos_realtime.protocol.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, close_payload, encode_frame
from aibos_realtime.protocol.messages import ServerMessage

PLACE = Place("rt.example", 3001, "/ws?a=1", False, ["127.0.0.1"])


class Stream(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.is_aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class Told:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.messages: list[ServerMessage] = []
        self.ends: list[tuple[int, str]] = []

    def deliver(self, deliveries: list[Delivery]) -> None:
        self.deliveries += deliveries

    def told(self, message: ServerMessage) -> None:
        self.messages.append(message)

    def lost(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))


class Peer:
    """A connection with both of its ends."""

    def __init__(self, inbox: Inbox | None = None, *, is_open: bool = True) -> None:
        self.inbox = inbox or Inbox("json", "run_1")
        self.told = Told()
        self.stream = Stream()
        self.connection = Connection(self.told, self.inbox, PLACE)
        self.connection.connection_made(self.stream)
        self.connection.ask("token_1")
        if is_open:
            self.feed(self.acceptance())

    def acceptance(self, **fields: str) -> bytes:
        key = read_head(b"HTTP/1.1 0 \r\n" + self.stream.written.partition(b"\r\n")[2])[1]["sec-websocket-key"]
        accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        given = {"Sec-WebSocket-Accept": accept, "Sec-WebSocket-Protocol": self.inbox.subprotocol} | fields
        return ("HTTP/1.1 101 Switching\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items()) + "\r\n").encode()

    def feed(self, data: bytes) -> None:
        self.connection.get_buffer(-1)[: len(data)] = data
        self.connection.buffer_updated(len(data))


def event(offset: int, *, room: str = "room", run: str = "run_1", name: str = "bench") -> bytes:
    data = {"p": 1, "n": offset, "t": 100 * offset, "run": run, "x": "é" * 60}
    return encode_frame(TEXT, json.dumps({"event": name, "room": room, "offset": offset, "id": "i", "data": data}).encode())


def delivery(offset: int, room: str = "room") -> Delivery:
    return (room, offset, 100 * offset, mark_of(1, offset, offset))


class TestHandshake:
    async def test_what_is_asked(self) -> None:
        peer = Peer(is_open=False)
        lines = peer.stream.written.decode().split("\r\n")
        assert lines[0] == "GET /ws?a=1 HTTP/1.1" and "Host: rt.example:3001" in lines and "Authorization: Bearer token_1" in lines
        assert "Sec-WebSocket-Protocol: aibos.realtime.v1" in lines and lines[-2:] == ["", ""]
        peer.connection.connection_lost(None)
        assert isinstance(peer.connection.upgraded.exception(), Refused)

    async def test_it_may_come_in_pieces_and_with_what_follows(self) -> None:
        peer = Peer(is_open=False)
        whole = peer.acceptance() + event(1)
        for at in range(0, len(whole), 7):
            peer.feed(whole[at : at + 7])
        assert peer.connection.upgraded.result() is None and peer.told.deliveries == [delivery(1)]

    @pytest.mark.parametrize("fields", [{"Sec-WebSocket-Accept": "wrong"}, {"Sec-WebSocket-Protocol": "other"}])
    async def test_an_acceptance_that_is_none(self, fields: dict[str, str]) -> None:
        peer = Peer(is_open=False)
        peer.feed(peer.acceptance(**fields))
        error = peer.connection.upgraded.exception()
        assert isinstance(error, Refused) and error.is_final and peer.stream.is_aborted

    async def test_a_head_without_end(self) -> None:
        peer = Peer(is_open=False)
        for _ in range(20):
            peer.feed(b"x" * 4096)
        assert isinstance(peer.connection.upgraded.exception(), Refused) and peer.stream.is_aborted

    async def test_a_refusal_waits_for_its_body(self) -> None:
        peer = Peer(is_open=False)
        body = b'{"code": "rate_limited", "message": "Too many."}'
        peer.feed(b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:10])
        assert not peer.connection.upgraded.done()
        peer.feed(body[10:])
        error = peer.connection.upgraded.exception()
        assert isinstance(error, Refused) and (error.kind, error.after, error.is_final) == ("429", 3.0, False)
        assert str(error) == "rt.example:3001 answered 429: Too many."


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "is_final"), [(401, True), (403, True), (404, True), (429, False), (503, False), (502, False), (400, True), (200, True)]
    )
    def test_which_are_worth_another_attempt(self, status: int, is_final: bool) -> None:
        assert explain(status, {}, b"", PLACE).is_final is is_final

    def test_words_of_others_are_not_repeated(self) -> None:
        assert str(explain(502, {}, b"<html>secret</html>", PLACE)) == "rt.example:3001 answered 502"
        assert str(explain(404, {}, b'["x"]', PLACE)) == "rt.example:3001 answered 404: check the URL"

    def test_a_wait_is_within_reason(self) -> None:
        assert explain(429, {"retry-after": "99999"}, b"", PLACE).after == 60.0
        assert explain(429, {"retry-after": "Mon, 01 Jan 2035 00:00:00 GMT"}, b"", PLACE).after is None


class TestEvents:
    @given(cuts=st.lists(st.integers(1, 2000), max_size=12), shared=st.booleans())
    def test_they_are_the_same_however_the_bytes_are_cut(self, cuts: list[int], shared: bool) -> None:
        async def check() -> None:
            inbox = Inbox("json", "run_1")
            whole = b"".join(event(offset) for offset in range(1, 9))
            for _ in range(3 if shared else 1):
                peer = Peer(inbox)
                at = 0
                for cut in sorted({cut for cut in cuts if cut < len(whole)} | {len(whole)}):
                    peer.feed(whole[at:cut])
                    at = cut
                assert peer.told.deliveries == [delivery(offset) for offset in range(1, 9)]

        asyncio.run(check())

    async def test_a_known_chunk_is_not_taken_for_the_rest_of_a_frame(self) -> None:
        inbox = Inbox("json", "run_1")
        Peer(inbox).feed(event(1))
        assert event(1) in inbox.known
        outer = encode_frame(TEXT, json.dumps({"event": "other", "data": "x" * len(event(1))}).encode())
        split = len(outer) - len(event(1))
        peer = Peer(inbox)
        peer.feed(outer[:split])
        peer.feed(event(1))  # not the bytes that belong here, but as many, and they do belong to that frame
        assert peer.told.deliveries == []

    async def test_a_chunk_with_anything_else_in_it_is_read_each_time(self) -> None:
        inbox = Inbox("json", "run_1")
        chunk = event(1) + encode_frame(TEXT, b'{"event": "ack", "ref": 1}') + event(2)
        for _ in range(2):
            peer = Peer(inbox)
            peer.feed(chunk)
            assert peer.told.deliveries == [delivery(1), delivery(2)] and [one.event for one in peer.told.messages] == ["ack"]
        assert inbox.known == {}

    async def test_what_is_known_does_not_grow_without_end(self) -> None:
        inbox = Inbox("json", "run_1")
        peer = Peer(inbox)
        for offset in range(1, 500):
            peer.feed(event(offset))
        assert len(inbox.known) <= 64 and len(peer.told.deliveries) == 499

    async def test_events_of_others_have_an_offset_and_no_mark(self) -> None:
        peer = Peer()
        peer.feed(event(1, run="run_2") + event(2, name="invoice.created") + encode_frame(TEXT, b'{"event":"bench","room":"r","offset":3}'))
        assert peer.told.deliveries == [("room", 1, 0, 0), ("room", 2, 0, 0), ("r", 3, 0, 0)]

    async def test_msgpack(self) -> None:
        inbox = Inbox("msgpack", "run_1")
        peer = Peer(inbox)
        data = {"p": 1, "n": 1, "t": 100, "run": "run_1", "x": ""}
        peer.feed(encode_frame(BINARY, msgspec.msgpack.encode({"event": "bench", "room": "room", "offset": 1, "data": data})))
        assert peer.told.deliveries == [delivery(1)]
        [(opcode, payload)] = FrameReader().feed(inbox.encode({"event": "ping", "ref": 1}))
        assert opcode == BINARY and msgspec.msgpack.decode(payload) == {"event": "ping", "ref": 1}


class TestControl:
    async def test_a_ping_is_answered(self) -> None:
        peer = Peer()
        peer.stream.written = b""
        peer.feed(encode_frame(PING, b"are you there"))
        assert FrameReader().feed(peer.stream.written) == [(PONG, b"are you there")]

    async def test_a_close_is_answered_and_told_once_with_what_came_before(self) -> None:
        peer = Peer()
        peer.stream.written = b""
        peer.feed(event(1) + encode_frame(CLOSE, close_payload(4008, "too slow")) + event(2))
        peer.connection.connection_lost(None)
        assert peer.told.deliveries == [delivery(1)] and peer.told.ends == [(4008, "too slow")]
        assert FrameReader().feed(peer.stream.written) == [(CLOSE, close_payload(4008))] and peer.stream.is_closed

    async def test_an_end_without_a_word(self) -> None:
        peer = Peer()
        peer.connection.connection_lost(ConnectionResetError())
        assert peer.told.ends == [(1006, "")] and peer.connection.is_gone

    async def test_our_own_goodbye_is_no_loss(self) -> None:
        peer = Peer()
        peer.stream.written = b""
        peer.connection.close()
        assert FrameReader().feed(peer.stream.written) == [(CLOSE, close_payload(1000))]
        peer.feed(encode_frame(CLOSE, close_payload(1000)))
        peer.connection.connection_lost(None)
        assert peer.told.ends == [] and peer.stream.is_closed

    @pytest.mark.parametrize("frame", [encode_frame(TEXT, b"no json"), encode_frame(BINARY, b"{}"), b"\x85\x00", encode_frame(TEXT, b"[]")])
    async def test_what_is_not_of_the_protocol_ends_it(self, frame: bytes) -> None:
        peer = Peer()
        peer.feed(frame)
        assert peer.told.ends == [(1002, "the server sent what is not of the protocol")]
