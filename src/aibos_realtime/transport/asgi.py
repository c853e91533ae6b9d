"""WebSockets of somebody else's ASGI server: the same frames, cut apart again, since ASGI carries messages. Pings are that server's business."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..protocol.close_codes import CloseCode
from ..protocol.frames import BINARY, TEXT, split_frames
from .base import CLOSE_TIMEOUT, Peer

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AsgiTransport:
    """One connection under ASGI. See `base.Transport`. `run` is its life: it reads until the end, beside one task that writes."""

    shows_life = False

    def __init__(self, receive: Receive, send: Send, remote_address: str, *, max_message: int | None, soft_limit: int) -> None:
        self.remote_address = remote_address
        self._receive = receive
        self._send = send
        self._max_message = max_message
        self._soft_limit = soft_limit
        self._peer: Peer | None = None
        self._outgoing: deque[Message] = deque()
        self._bytes = 0
        self._something = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_behind = False
        self._closing = False
        self._close: tuple[int, str] | None = None
        self._aborted = asyncio.Event()

    def attach(self, peer: Peer) -> None:
        self._peer = peer

    # — what the hub asks —

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        for opcode, payload, _ in split_frames(data):
            if opcode == TEXT:
                self._outgoing.append({"type": "websocket.send", "text": payload.decode()})
            elif opcode == BINARY:
                self._outgoing.append({"type": "websocket.send", "bytes": payload})
            self._bytes += len(payload) if opcode in (TEXT, BINARY) else 0
        self._something.set()
        if not self._is_behind and self._bytes > self._soft_limit and self._peer is not None:
            self._is_behind = True
            self._peer.writing_paused()

    def buffered(self) -> int:
        return self._bytes

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def close(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._close = (code, reason)
            self._outgoing.append({"type": "websocket.close", "code": int(code), "reason": reason})
            self._something.set()
            self._may_read.set()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._aborted.set)

    def abort(self) -> None:
        self._closing = True
        self._aborted.set()

    # — its life —

    async def run(self) -> None:
        """Carry messages both ways until the connection has ended."""
        reading = asyncio.ensure_future(self._read())
        writing = asyncio.ensure_future(self._write())
        aborting = asyncio.ensure_future(self._aborted.wait())
        try:
            await asyncio.wait((reading, writing, aborting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = True
            for task in (reading, writing, aborting):
                task.cancel()
            await asyncio.gather(reading, writing, aborting, return_exceptions=True)
            peer, self._peer = self._peer, None
            if peer is not None:
                peer.disconnected(*(self._close or (CloseCode.ABNORMAL, "")))

    async def _read(self) -> None:
        while True:
            await self._may_read.wait()
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._close = self._close or (int(message.get("code") or CloseCode.NO_STATUS), str(message.get("reason") or ""))
                return
            if message["type"] != "websocket.receive" or self._closing:
                continue
            text = message.get("text")
            payload = text.encode() if text is not None else bytes(message.get("bytes") or b"")
            if self._max_message is not None and len(payload) > self._max_message:
                self.close(CloseCode.MESSAGE_TOO_BIG, "message too big")
            elif self._peer is not None:
                self._peer.received(TEXT if text is not None else BINARY, payload)

    async def _write(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            while self._outgoing:
                message = self._outgoing.popleft()
                await self._send(message)
                if message["type"] == "websocket.close":
                    return
                text = message.get("text")
                self._bytes -= len(text.encode()) if text is not None else len(message["bytes"])
                if self._is_behind and self._bytes <= self._soft_limit // 4:
                    self._is_behind = False
                    if self._peer is not None:
                        self._peer.writing_resumed()
