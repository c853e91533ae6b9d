"""Two ends joined inside the process: a transport for tests without sockets, and for whoever speaks the protocol by hand.

It carries the same frames as the real one, cut apart again by `split_frames`, so that nothing can pass here that would not pass on the wire.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import ConnectionClosed
from ..protocol.close_codes import CloseCode
from ..protocol.deflate import Inflater
from ..protocol.frames import BINARY, CLOSE, PING, PONG, TEXT, parse_close, split_frames
from .base import Peer


class MemoryTransport:
    """The server's end. See `base.Transport`. `soft_limit`: bytes the far end may leave unread before it counts as behind."""

    shows_life = True

    def __init__(self, *, remote_address: str = "", soft_limit: int = 256 * 1024) -> None:
        self.remote_address = remote_address
        self.far = MemoryEnd(self)
        self._soft_limit = soft_limit
        self._peer: Peer | None = None
        self._unread = 0
        self._paused = False
        self._closed = False
        self._reading = True
        self._held: deque[tuple[int, bytes]] = deque()

    def attach(self, peer: Peer) -> None:
        self._peer = peer

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._unread += len(data)
        self.far.took(data)
        if not self._paused and self._unread > self._soft_limit and self._peer is not None:
            self._paused = True
            self._peer.writing_paused()

    def buffered(self) -> int:
        return max(0, self._unread - self._soft_limit // 4)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        while self._held and self._reading:
            self._give(*self._held.popleft())

    def close(self, code: int, reason: str) -> None:
        self._end(code, reason)

    def abort(self) -> None:
        self._end(CloseCode.ABNORMAL, "")

    def has_read(self, size: int) -> None:
        """The far end has read that many bytes."""
        self._unread -= size
        if self._paused and self._unread <= self._soft_limit // 4:
            self._paused = False
            if self._peer is not None:
                self._peer.writing_resumed()

    def receive(self, opcode: int, payload: bytes) -> None:
        """The far end has sent a message."""
        if self._reading:
            self._give(opcode, payload)
        else:
            self._held.append((opcode, payload))

    def _give(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._end(*parse_close(payload))
        elif self._peer is not None:
            self._peer.received(opcode, payload)

    def _end(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self.far.ended(code, reason)
        asyncio.get_running_loop().call_soon(self._tell_end, code, reason)

    def _tell_end(self, code: int, reason: str) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.disconnected(code, reason)


class MemoryEnd:
    """The client's end: `send` and `receive` whole messages."""

    def __init__(self, near: MemoryTransport) -> None:
        self._near = near
        self._inflater = Inflater()
        self._messages: deque[tuple[str | bytes, int]] = deque()
        self._arrived = asyncio.Event()
        self.close_code: int | None = None
        self.close_reason = ""

    async def receive(self, timeout: float = 5.0) -> str | bytes:
        """The next message: text, or bytes of a binary one. Raises `ConnectionClosed` after the last, `TimeoutError`. Cancelling is safe."""
        async with asyncio.timeout(timeout):
            while not self._messages:
                if self.close_code is not None:
                    raise ConnectionClosed(close_code=self.close_code, reason=self.close_reason)
                self._arrived.clear()
                await self._arrived.wait()
        message, size = self._messages.popleft()
        self._near.has_read(size)
        return message

    def send(self, message: str | bytes) -> None:
        """Send one message; what the server does with it at once is done when this returns."""
        if self.close_code is not None:
            raise ConnectionClosed(close_code=self.close_code, reason=self.close_reason)
        if isinstance(message, str):
            self._near.receive(TEXT, message.encode())
        else:
            self._near.receive(BINARY, message)

    def close(self, code: int = CloseCode.NORMAL) -> None:
        """Send a close frame."""
        self._near.receive(CLOSE, code.to_bytes(2, "big"))

    def cut(self) -> None:
        """Be gone without a word, as when a cable is pulled and the kernel noticed."""
        self._near.abort()

    def took(self, data: bytes) -> None:
        for opcode, payload, compressed in split_frames(data):
            size = len(payload)
            size += 2 if size < 126 else 4 if size < 65_536 else 10
            if compressed:
                payload = self._inflater.inflate(payload, 1 << 30)
            if opcode in (TEXT, BINARY):
                self._messages.append((payload.decode() if opcode == TEXT else payload, size))
            else:
                self._near.has_read(size)
                if opcode == PING:
                    self._near.receive(PONG, payload)
        self._arrived.set()

    def ended(self, code: int, reason: str) -> None:
        self.close_code, self.close_reason = int(code), reason
        self._arrived.set()
