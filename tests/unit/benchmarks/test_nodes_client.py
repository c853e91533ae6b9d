"""The load reads what servers send, however the network cuts it; what it does not read would be counted as lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from benchmarks.nodes_client import AibosSession, SocketIoSession

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class Sent:
    """The transport: what the client wrote, its masks taken off."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, bytes]] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        if not data.startswith(b"GET "):
            start = 2 if data[1] & 127 < 126 else 4
            mask, payload = data[start : start + 4], data[start + 4 :]
            self.texts.append((data[0], bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))))

    def abort(self) -> None:
        self.is_aborted = True


def frame(payload: bytes, opcode: int = 1) -> bytes:
    length = len(payload)
    size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2) if length < 65_536 else b"\x7f" + length.to_bytes(8)
    return bytes([0x80 | opcode]) + size + payload


def begin(kind: type[Any]) -> tuple[Any, Sent]:
    session, sent = kind("user", "secret-of-more-than-thirty-two-bytes", lambda: None), Sent()
    session.connection_made(cast(asyncio.BaseTransport, sent))
    return session, sent


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1_000, 1_000_000])
async def test_events_are_counted_however_they_are_cut(step: int) -> None:
    session, sent = begin(AibosSession)
    texts = [b'{"event":"bench.event","data":"' + b"x" * size + b'"}' for size in (1, 90, 200, 70_000)]
    stream = UPGRADED + frame(b'{"event":"connected","data":{}}') + b"".join(map(frame, texts)) + frame(b"hello", 9)
    for at in range(0, len(stream), step):
        session.data_received(stream[at : at + step])
    assert session.opened.done() and session.events == 4 and session.bytes_in == len(stream)
    assert sent.texts == [(0x8A, b"hello")]


async def test_a_publish_is_done_with_its_acknowledgement() -> None:
    session, sent = begin(AibosSession)
    session.data_received(UPGRADED)
    first, second = session.publish("bench:0", '{"a":1}'), session.publish("bench:0", "1" * 300)
    (_, asked), (_, long) = sent.texts
    assert json.loads(asked) == {"event": "bench.event", "room": "bench:0", "data": {"a": 1}, "ref": 1} and len(long) > 300
    session.data_received(frame(b'{"event":"ack","ref":2,"data":{"offset":7}}'))
    assert (await second) == {"offset": 7} and not first.done()


async def test_socket_io_is_spoken_too() -> None:
    session, sent = begin(SocketIoSession)
    session.data_received(UPGRADED + frame(b'0{"sid":"a"}') + frame(b'40{"sid":"b"}') + frame(b"2"))
    assert session.opened.done()
    joined = session.join("bench:0")
    session.data_received(frame(b'42["bench.event",{"a":1}]') + frame(b"431[true]"))
    assert (await joined) == [True] and session.events == 1
    assert [text for _, text in sent.texts] == [b"40", b"3", b'421["join","bench:0"]']


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (AibosSession, frame(b"\x11\x98too slow", 8)),
        (AibosSession, frame(b'{"event":"error","ref":1,"data":{"code":"overloaded","message":"-"}}')),
        (AibosSession, frame(b'{"event":"resync","data":{}}')),
        (SocketIoSession, frame(b'44{"message":"no"}')),
    ],
)
async def test_whatever_goes_wrong_ends_the_measurement(kind: type[Any], data: bytes) -> None:
    session, sent = begin(kind)
    session.data_received(UPGRADED)
    waiting = session.join("bench:0")
    session.data_received(data)
    with pytest.raises(ConnectionError, match="user: "):
        await waiting
    assert sent.is_aborted
    assert isinstance(session.opened.exception(), ConnectionError)


async def test_a_refused_handshake_is_told() -> None:
    session, _ = begin(SocketIoSession)
    session.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    with pytest.raises(ConnectionError, match="503"):
        await session.opened
