"""The fast path: WebSocket frames straight on the event loop's own transport, plain or TLS.

All connections of a process read into one shared buffer (`get_buffer`, or on plain TCP the loop's own); what is kept of it is copied before
`buffer_updated` returns, which is why an idle connection holds no buffer at all. The handshake is `http`'s business; this begins after the 101.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import cast

from ..protocol.close_codes import CloseCode
from ..protocol.frames import CLOSE, FAILED, LARGE, PING, PONG, TURN, FrameReader, close_payload, encode_frame, parse_close
from .base import ASSEMBLY_TIMEOUT, CLOSE_TIMEOUT, Peer
from .batch import Write, release
from .turns import has_crowd, running_turns

READ_BYTES = 256 * 1024
TURN_SECONDS = 0.005
"""For what one peer asks: what takes longer together is done in several turns, as what is more than `frames.TURN` is."""

_NONE, _HELD, _QUEUED = range(3)
"""Of a turn: nothing waits for one; it waits until the hub wants to hear again; it will come."""

_shared = memoryview(bytearray(READ_BYTES))


class WebSocketTransport(asyncio.BufferedProtocol):
    """One connection after its handshake. See `base.Transport`.

    Closing (RFC 6455, section 7): we send our close frame, then discard what still comes until the peer's close frame or end, for `CLOSE_TIMEOUT` at
    most. Were the socket closed at once, unread bytes would make the kernel send a reset, and the reset would eat the close frame.
    """

    __slots__ = ("_close", "_closing", "_deadline", "_peer", "_reader", "_reading", "_stream", "_turn", "_unheard", "remote_address", "write")

    shows_life = True

    def __init__(self, stream: asyncio.Transport, reader: FrameReader, remote_address: str, write: Write | None = None) -> None:
        """`write`: of the stream, if not its own (`batch.Sender.writer`). All that is sent goes through it."""
        self._stream = stream
        self.write = write if write is not None else stream.write  # not a method: it is called for every delivery
        self._reader = reader
        self.remote_address = remote_address
        self._peer: Peer | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._closing = False
        self._reading = True  # as far as the hub is concerned
        self._turn = _NONE
        self._unheard: Sequence[tuple[int, bytes]] = ()
        self._close: tuple[int, str] | None = None

    def attach(self, peer: Peer) -> None:
        """Tell `peer` what happens from here on. Nothing is read before."""
        self._peer = peer

    def take_over(self, early: bytes, soft_limit: int) -> None:
        """Become the protocol of the stream. `early`: bytes that came with the handshake's request, which a peer may send only after our 101."""
        stream = self._stream
        stream.set_write_buffer_limits(high=soft_limit, low=soft_limit // 4)
        stream.set_protocol(self)
        stream.resume_reading()
        if early:
            self._feed(early)

    # — what the hub asks —

    def buffered(self) -> int:
        return self._stream.get_write_buffer_size()

    def pause_reading(self) -> None:
        if self._reading and not self._closing:
            self._reading = False
            if self._turn == _NONE:
                self._stream.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if self._turn != _NONE:
                self._queue()
            elif not self._stream.is_closing():
                self._stream.resume_reading()

    def close(self, code: int, reason: str) -> None:
        self._begin_close(close_payload(code, reason), (code, reason))

    def abort(self) -> None:
        release(self.write)
        self._stream.abort()

    # — what the loop tells —

    def get_buffer(self, sizehint: int) -> memoryview:
        return _shared

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_shared[:nbytes]))

    def data_received(self, data: bytes) -> None:
        payload = self._reader.take_whole(data)
        if payload is None or self._peer is None:
            self._feed(data)
        else:
            self._peer.received(data[0] & 15, payload)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.writing_paused()

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        release(self.write)
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.disconnected(*(self._close or (CloseCode.ABNORMAL, "")))

    # — frames in —

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        has_turn = self._turn != _NONE or (len(data) < LARGE and not has_crowd())  # else it is behind those who wait already
        messages = reader.feed(data, TURN if has_turn else ())
        self._hear(messages)
        if reader.incomplete:
            if self._deadline is not None and not self._closing and any(opcode < CLOSE for opcode, _ in messages):
                self._deadline.cancel()  # it was for a message that is whole by now; another has begun
                self._deadline = None
            if self._deadline is None:
                self._deadline = asyncio.get_running_loop().call_later(ASSEMBLY_TIMEOUT, self._assembly_too_slow)
        elif self._deadline is not None and not self._closing:
            self._deadline.cancel()
            self._deadline = None
        self._settle()

    def _hear(self, messages: Sequence[tuple[int, bytes]]) -> None:
        """Act on what the peer says, until the hub does not want to hear more, or the turn is over: what is left then is kept for later."""
        end = perf_counter() + TURN_SECONDS
        for number, (opcode, payload) in enumerate(messages):
            if self._closing:
                if opcode == CLOSE:
                    self._end()
            elif not self._reading or (number and perf_counter() > end):
                self._unheard = messages[number:]
                return
            elif opcode < CLOSE and opcode != FAILED:
                if self._peer is not None:
                    self._peer.received(opcode, payload)
            elif opcode == CLOSE:
                self._answer_close(payload)
            elif opcode == FAILED:
                self._fail(payload)
            else:
                if opcode == PING:
                    self.write(encode_frame(PONG, payload))
                if self._peer is not None:
                    self._peer.received(opcode, payload)

    # — turns —

    def _settle(self) -> None:
        """Read on; or, where something is left to be looked at, do that when it is our turn, and read nothing before."""
        if self._unheard or self._reader.has_more:
            if self._reading:
                if self._turn == _NONE:
                    self._stream.pause_reading()
                self._queue()
            else:
                self._turn = _HELD
        elif self._turn != _NONE:
            self._turn = _NONE
            if self._reading and not self._stream.is_closing():
                self._stream.resume_reading()

    def _queue(self) -> None:
        if self._turn != _QUEUED:
            self._turn = _QUEUED
            running_turns().wait(self._take_turn)

    def _take_turn(self) -> None:
        self._turn = _HELD
        if not self._reading or self._stream.is_closing():
            return
        unheard, self._unheard = self._unheard, ()
        if unheard:
            self._hear(unheard)
            self._settle()
        else:
            self._feed(b"")

    # — closing —

    def _answer_close(self, payload: bytes) -> None:
        """The peer closes: echo its code, and end (section 5.5.1)."""
        code, reason = parse_close(payload)
        self._closing = True
        self._close = self._close or (code, reason)
        if self._deadline is not None:  # of a message that will not be finished: closing has its own
            self._deadline.cancel()
            self._deadline = None
        self.write(encode_frame(CLOSE, payload[:2]))
        self._tell_closed()
        self._end()

    def _fail(self, payload: bytes) -> None:
        """The peer broke the protocol: our close frame is the last thing that we say."""
        self._begin_close(payload, parse_close(payload))
        self._tell_closed()
        if self._stream.can_write_eof():
            self._stream.write_eof()

    def _begin_close(self, payload: bytes, close: tuple[int, str]) -> None:
        if self._closing:
            return
        self._closing = True
        self._close = close
        self._reader.skip_data()
        self.write(encode_frame(CLOSE, payload))
        if not self._reading:
            self.resume_reading()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._stream.abort)

    def _tell_closed(self) -> None:
        """What is written from here on would stand after a close frame: let the peer object know at once."""
        peer, self._peer = self._peer, None
        if peer is not None:
            code, reason = cast(tuple[int, str], self._close)
            peer.disconnected(code, reason)

    def _end(self) -> None:
        """Let the stream go once what is buffered is out, or the deadline passes."""
        self._stream.close()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._stream.abort)

    def _assembly_too_slow(self) -> None:
        self._deadline = None
        if not self._reading:  # it is not for the peer's lack of speed
            self._deadline = asyncio.get_running_loop().call_later(ASSEMBLY_TIMEOUT, self._assembly_too_slow)
        elif not self._closing:
            self._fail(close_payload(CloseCode.POLICY_VIOLATION, "a message took too long to arrive"))


class PlainWebSocketTransport(WebSocketTransport, asyncio.Protocol):
    """The same on plain TCP, where uvloop gives bytes out of a buffer of its own to whom it takes for a `Protocol`: a call and three objects less per
    read. Not for TLS, under which it would make room for 256 KiB each time; and asyncio's own loop takes this for a `BufferedProtocol` still.
    """

    __slots__ = ()
