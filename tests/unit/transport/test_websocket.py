"""The fast path, over a stream that writes down what is done to it, and over a real socket."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme

from aibos_realtime.protocol.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, close_payload, encode_frame, split_frames
from aibos_realtime.transport import turns as turns_of_a_loop
from aibos_realtime.transport import websocket
from aibos_realtime.transport.websocket import PlainWebSocketTransport, WebSocketTransport
from tests.loops import BOTH

from .test_memory import Log

MASK = b"abcd"


class Stream(asyncio.Transport):
    """A stream in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.acts: list[str] = []

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 7

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.acts.append(f"limits {high} {low}")

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.acts.append("protocol")

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return "close" in self.acts or "abort" in self.acts

    def __getattribute__(self, name: str) -> Any:
        if name in ("pause_reading", "resume_reading", "close", "abort", "write_eof"):
            return lambda: self.acts.append(name)
        return super().__getattribute__(name)

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        return [(opcode, payload) for opcode, payload, _ in split_frames(self.written)]


def make() -> tuple[WebSocketTransport, Stream, Log]:
    stream, log = Stream(), Log()
    transport = WebSocketTransport(stream, FrameReader(max_message=1000), "192.0.2.1")
    transport.attach(log)
    transport.take_over(b"", 1000)
    stream.acts.clear()
    return transport, stream, log


def feed(transport: WebSocketTransport, data: bytes) -> None:
    buffer = transport.get_buffer(-1)
    buffer[: len(data)] = data
    transport.buffer_updated(len(data))


def frame(opcode: int, payload: bytes, **more: Any) -> bytes:
    return encode_frame(opcode, payload, mask=MASK, **more)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.01)
    monkeypatch.setattr(websocket, "ASSEMBLY_TIMEOUT", 0.01)
    monkeypatch.setattr(websocket, "TURN_SECONDS", 60.0)


async def until(stream: Stream, act: str) -> None:
    async with asyncio.timeout(5):
        while act not in stream.acts:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_taking_a_stream_over_with_bytes_that_came_early() -> None:
    stream, log = Stream(), Log()
    transport = WebSocketTransport(stream, FrameReader(max_message=1000), "192.0.2.1")
    transport.attach(log)
    transport.take_over(frame(TEXT, b"early"), 4000)
    assert stream.acts == ["limits 4000 1000", "protocol", "resume_reading"] and log.seen == [(TEXT, b"early")]
    assert transport.buffered() == 7 and transport.remote_address == "192.0.2.1"


async def test_frames_in_and_out() -> None:
    transport, stream, log = make()
    data = frame(TEXT, b"a") + frame(BINARY, b"b") + frame(PING, b"p") + frame(PONG, b"")
    feed(transport, data[:5])
    feed(transport, data[5:])
    transport.write(encode_frame(TEXT, b"out"))
    assert log.seen == [(TEXT, b"a"), (BINARY, b"b"), (PING, b"p"), (PONG, b"")] and stream.frames == [(PONG, b"p"), (TEXT, b"out")]


async def test_a_payload_is_a_copy_of_the_shared_buffer() -> None:
    first, second = make(), make()
    feed(first[0], frame(BINARY, b"one"))
    feed(second[0], frame(BINARY, b"two"))
    assert first[2].seen == [(BINARY, b"one")] and second[2].seen == [(BINARY, b"two")]


async def test_the_peer_closes() -> None:
    transport, stream, log = make()
    feed(transport, frame(CLOSE, close_payload(4000, "bye")) + frame(TEXT, b"late"))
    assert stream.frames == [(CLOSE, (4000).to_bytes(2, "big"))] and log.seen == [(4000, "bye")] and "close" in stream.acts
    transport.connection_lost(None)
    assert log.seen == [(4000, "bye")]


async def test_we_close_and_wait_for_the_answer_discarding_what_comes() -> None:
    transport, stream, log = make()
    transport.pause_reading()
    transport.close(4503, "out")
    transport.close(1000, "again")
    assert stream.frames == [(CLOSE, close_payload(4503, "out"))] and stream.acts == ["pause_reading", "resume_reading"]
    feed(transport, frame(TEXT, b"late"))
    assert log.seen == [] and "close" not in stream.acts
    feed(transport, frame(CLOSE, close_payload(4503)))
    assert "close" in stream.acts
    transport.connection_lost(None)
    assert log.seen == [(4503, "out")]


async def test_a_peer_that_does_not_answer_a_close_is_cut() -> None:
    transport, stream, log = make()
    transport.close(4001, "")
    await until(stream, "abort")
    transport.connection_lost(None)
    assert log.seen == [(4001, "")]


async def test_a_peer_that_breaks_the_protocol() -> None:
    transport, stream, log = make()
    feed(transport, encode_frame(TEXT, b"no mask"))
    assert stream.frames[0][0] == CLOSE and stream.frames[0][1][:2] == (1002).to_bytes(2, "big") and log.seen[0][0] == 1002  # type: ignore[index]
    feed(transport, frame(TEXT, b"late"))
    assert len(log.seen) == 1
    await until(stream, "abort")


async def test_a_message_that_is_too_large_gets_its_close_frame_through() -> None:
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"x" * 1001))
    assert stream.frames[0][1][:2] == (1009).to_bytes(2, "big") and log.seen[0][0] == 1009 and "close" not in stream.acts  # type: ignore[index]
    transport.connection_lost(None)


@pytest.mark.parametrize("begin", [frame(TEXT, b"x", fin=False), frame(TEXT, b"xyz")[:4]], ids=["a fragment", "half a frame"])
async def test_a_message_that_takes_too_long(begin: bytes) -> None:
    transport, stream, log = make()
    feed(transport, begin)
    async with asyncio.timeout(5):
        while not log.seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert log.seen[0][0] == 1008  # type: ignore[index]
    transport.connection_lost(None)


async def test_one_that_is_finished_in_time_starts_no_clock() -> None:
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"a", fin=False))
    feed(transport, frame(0, b"b"))
    assert transport._deadline is None and log.seen == [(TEXT, b"ab")]


async def test_a_cable_that_is_pulled() -> None:
    transport, stream, log = make()
    assert transport.eof_received() is False
    transport.connection_lost(ConnectionResetError())
    transport.connection_lost(None)
    assert log.seen == [(1006, "")]


async def test_a_jam_is_passed_on_and_reading_pauses_once() -> None:
    transport, stream, log = make()
    transport.pause_writing()
    transport.resume_writing()
    for _ in range(2):
        transport.pause_reading()
    for _ in range(2):
        transport.resume_reading()
    assert log.seen == ["paused", "resumed"] and stream.acts == ["pause_reading", "resume_reading"]


async def turns(stream: Stream) -> int:
    """Let the loop go round until the stream is read again; returns how often it did."""
    for count in range(100):
        if stream.acts[-1] == "resume_reading":
            return count
        await asyncio.sleep(0)
    raise AssertionError("the stream is not read again")


@pytest.fixture(autouse=True)
def _each_turn_fills_its_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_of_a_loop, "SHARE", 0.0)


@pytest.fixture
def nothing_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is received has its first turn at once, however much it is."""
    monkeypatch.setattr(websocket, "LARGE", 1 << 20)


async def test_large_messages_of_many_are_read_one_in_a_round() -> None:
    """Ten peers sent a message of 64 KiB each at one moment, all were read in one round of the loop, and everybody else waited 106 ms."""
    peers = [make() for _ in range(3)]
    for transport, _, _ in peers:
        feed(transport, frame(TEXT, b"x" * 900) * 5)
    assert [len(log.seen) for _, _, log in peers] == [0, 0, 0]
    seen = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append([len(log.seen) for _, _, log in peers])
    assert seen == [[5, 0, 0], [5, 5, 0], [5, 5, 5]]


@pytest.mark.usefixtures("nothing_is_large")
async def test_many_frames_wait_for_the_turns_of_others() -> None:
    """Whoever sent 43,000 frames in one segment had all of them looked at while everybody else waited."""
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"x") * 600)
    assert len(log.seen) == 256 and stream.acts == ["pause_reading"]
    assert await turns(stream) == 2 and len(log.seen) == 600
    assert stream.acts == ["pause_reading", "resume_reading"]


@pytest.mark.usefixtures("nothing_is_large")
async def test_what_waits_goes_on_when_the_hub_hears_again() -> None:
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"x") * 600)
    transport.pause_reading()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(log.seen) == 256 and stream.acts == ["pause_reading"]
    transport.resume_reading()
    assert await turns(stream) == 2 and len(log.seen) == 600


@pytest.mark.usefixtures("nothing_is_large")
async def test_who_comes_while_others_wait_waits_behind_them() -> None:
    """20 peers with heavy questions in every segment had one answered each, in every round of the loop."""
    busy, other, single = make(), make(), make()
    feed(busy[0], frame(TEXT, b"x") * 600)
    feed(other[0], frame(TEXT, b"y") * 2)
    feed(single[0], frame(TEXT, b"z"))
    assert len(busy[2].seen) == 256 and other[2].seen == [] and single[2].seen == [(TEXT, b"z")], "a single message is no crowd"
    assert await turns(other[1]) == 2 and len(other[2].seen) == 2 and len(busy[2].seen) == 512


async def test_whoever_is_not_to_be_heard_is_not_heard_at_once() -> None:
    """A peer that read nothing asked for 50 pages of history in one segment: reading stopped at the first, and all were answered."""
    transport, stream, log = make()
    received = log.received

    def hear(opcode: int, payload: bytes) -> None:
        received(opcode, payload)
        if payload == b"stop":
            transport.pause_reading()

    log.received = hear  # type: ignore[method-assign]
    feed(transport, frame(TEXT, b"a") + frame(TEXT, b"stop") + frame(TEXT, b"b") + frame(PING, b"p") + frame(TEXT, b"stop") + frame(TEXT, b"c"))
    assert log.seen == [(TEXT, b"a"), (TEXT, b"stop")] and stream.written == b"" and stream.acts == ["pause_reading"]
    transport.resume_reading()
    for _ in range(3):
        await asyncio.sleep(0)
    assert log.seen[2:] == [(TEXT, b"b"), (PING, b"p"), (TEXT, b"stop")] and stream.frames == [(PONG, b"p")] and len(stream.acts) == 1
    transport.resume_reading()
    assert await turns(stream) == 1 and log.seen[5:] == [(TEXT, b"c")] and stream.acts == ["pause_reading", "resume_reading"]


async def test_what_takes_long_is_done_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer asked for nine large pages of history in one segment, and nobody else was heard until the last was compressed: 270 ms."""
    transport, stream, log = make()
    now = iter(range(100))
    monkeypatch.setattr(websocket, "perf_counter", lambda: 24 * next(now))
    feed(transport, frame(TEXT, b"x") * 7)
    assert len(log.seen) == 3 and stream.acts == ["pause_reading"]
    assert await turns(stream) == 2 and len(log.seen) == 7


@pytest.mark.usefixtures("nothing_is_large")
async def test_pausing_and_resuming_gives_no_further_turns() -> None:
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"x") * 1100)
    for _ in range(3):
        transport.pause_reading()
        transport.resume_reading()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(log.seen) == 768


async def test_a_message_that_we_do_not_read_does_not_take_too_long() -> None:
    """A client whose handler took its time had half a message on its way, and was closed for being slow by whoever had stopped reading it."""
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"xyz")[:4])
    transport.pause_reading()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.05)
    assert log.seen == []
    transport.resume_reading()
    feed(transport, frame(TEXT, b"xyz")[4:])
    assert log.seen == [(TEXT, b"xyz")] and transport._deadline is None


@pytest.mark.usefixtures("nothing_is_large")
async def test_a_close_is_found_behind_what_is_passed_over() -> None:
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"x") * 600 + frame(CLOSE, close_payload(1000)))
    transport.pause_reading()
    transport.close(4013, "enough")
    async with asyncio.timeout(5):
        while "close" not in stream.acts:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(log.seen) == 256
    transport.connection_lost(None)
    assert log.seen[256:] == [(4013, "enough")]


@pytest.mark.usefixtures("nothing_is_large")
async def test_what_waits_is_forgotten_with_the_connection() -> None:
    transport, stream, log = make()
    feed(transport, frame(TEXT, b"x") * 600)
    transport.abort()
    transport.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(log.seen) == 257 and log.seen[-1] == (1006, "") and stream.acts == ["pause_reading", "abort"]


@pytest.mark.parametrize("loop", BOTH)
@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_who_provides_the_buffer(loop: str, is_secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On plain TCP uvloop gives bytes, and asks for no buffer; all else reads into the shared one, where asking for bytes would cost much more."""
    asked: list[int] = []

    def get_buffer(transport: WebSocketTransport, sizehint: int) -> memoryview:
        asked.append(sizehint)
        return websocket._shared

    async def talk() -> list[object]:
        log = Log()
        authority = trustme.CA()
        mine, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(mine)
        authority.configure_trust(theirs)

        class Accepting(WebSocketTransport if is_secure else PlainWebSocketTransport):  # type: ignore[misc]
            def __init__(self) -> None: ...

            def connection_made(self, transport: asyncio.Transport) -> None:
                super().__init__(transport, FrameReader(), "")
                self.attach(log)

        accepting = asyncio.get_running_loop().create_server(Accepting, "127.0.0.1", 0, ssl=mine if is_secure else None)
        async with asyncio.timeout(10), await accepting as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=theirs if is_secure else None, server_hostname="localhost" if is_secure else None
            )
            for part in (frame(TEXT, b"one"), frame(TEXT, b"two" * 1000)[:900], frame(TEXT, b"two" * 1000)[900:], frame(PING, b"now")):
                writer.write(part)
                await writer.drain()
            assert await reader.readexactly(5) == encode_frame(PONG, b"now")
            writer.close()
            while log.seen[-1] != (1006, ""):  # noqa: ASYNC110
                await asyncio.sleep(0)
        return log.seen

    monkeypatch.setattr(WebSocketTransport, "get_buffer", get_buffer)
    with asyncio.Runner(loop_factory=BOTH[loop]) as runner:
        assert runner.run(talk()) == [(TEXT, b"one"), (TEXT, b"two" * 1000), (PING, b"now"), (1006, "")]
    assert bool(asked) is not (loop == "uvloop" and not is_secure)
