"""The in-memory transport behaves as a transport: order, jams, ends."""

from __future__ import annotations

import pytest

from aibos_realtime.errors import ConnectionClosed
from aibos_realtime.protocol.frames import BINARY, PING, TEXT, encode_frame
from aibos_realtime.testing.clock import settle
from aibos_realtime.transport.memory import MemoryTransport


class Log:
    """A peer that writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def received(self, opcode: int, payload: bytes) -> None:
        self.seen.append((opcode, payload))

    def writing_paused(self) -> None:
        self.seen.append("paused")

    def writing_resumed(self) -> None:
        self.seen.append("resumed")

    def disconnected(self, code: int, reason: str) -> None:
        self.seen.append((code, reason))


def make(soft_limit: int = 1000) -> tuple[MemoryTransport, Log]:
    transport, log = MemoryTransport(soft_limit=soft_limit, remote_address="192.0.2.1"), Log()
    transport.attach(log)
    return transport, log


async def test_messages_both_ways() -> None:
    transport, log = make()
    transport.write(encode_frame(TEXT, "é".encode()) + encode_frame(BINARY, b"\0"))
    assert [await transport.far.receive(), await transport.far.receive()] == ["é", b"\0"]
    transport.far.send("x")
    transport.far.send(b"y")
    assert log.seen == [(TEXT, b"x"), (BINARY, b"y")]
    with pytest.raises(TimeoutError):
        await transport.far.receive(timeout=0.01)


async def test_a_ping_is_answered_by_the_far_end() -> None:
    transport, log = make()
    transport.write(encode_frame(PING, b"p"))
    assert log.seen == [(10, b"p")] and transport.buffered() == 0


async def test_a_jam_and_its_end() -> None:
    transport, log = make(1000)
    for _ in range(3):
        transport.write(encode_frame(TEXT, b"x" * 400))
    assert log.seen == ["paused"] and transport.buffered() > 0
    for _ in range(3):
        await transport.far.receive()
    assert log.seen == ["paused", "resumed"] and transport.buffered() == 0


@pytest.mark.parametrize("sizes", [(1, 2, 5), (200, 3), (7, 7, 7, 8)])
async def test_what_was_read_does_not_count_however_it_was_written(sizes: tuple[int, ...]) -> None:
    transport, log = make(1000)
    for _ in range(1000):
        transport.write(b"".join(encode_frame(TEXT, b"x" * size) for size in sizes))
        for _ in sizes:
            await transport.far.receive()
    assert log.seen == [] and transport._unread == 0


async def test_reading_that_is_paused_holds_messages_back() -> None:
    transport, log = make()
    transport.pause_reading()
    transport.far.send("a")
    transport.far.send("b")
    transport.far.close(1001)
    assert log.seen == []
    transport.resume_reading()
    await settle()
    assert log.seen == [(TEXT, b"a"), (TEXT, b"b"), (1001, "")]


async def test_ends() -> None:
    transport, log = make()
    transport.close(4503, "out")
    transport.close(1000, "again")
    transport.write(encode_frame(TEXT, b"late"))
    with pytest.raises(ConnectionClosed) as caught:
        await transport.far.receive()
    assert (caught.value.close_code, caught.value.reason) == (4503, "out")
    await settle()
    assert log.seen == [(4503, "out")]
    transport, log = make()
    transport.far.cut()
    await settle()
    assert log.seen == [(1006, "")]
    with pytest.raises(ConnectionClosed):
        transport.far.send("x")
