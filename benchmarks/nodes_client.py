"""A WebSocket client for load, in the languages of the contestants: this project's protocol, and Socket.IO's.

It answers pings, counts events, and waits for the answers to its own requests; it checks nothing else. Not a client for an application.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, Self, cast

import jwt

EVENT = "bench.event"
PATIENCE = 30.0  # seconds for a session to open
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_MASK = b"\x4d\xa1\x5c\xe3"  # not zero: a zero mask is free to undo, and some servers know
_MASKS = _MASK * 20_000

OnEvent = Callable[[], None]


def _ignore() -> None:
    pass


class Session(asyncio.Protocol):
    """One connection, one dialect. `on_event` is called when an event of a room has been read. A lost connection fails everything that waits."""

    EVENT_START: ClassVar[bytes]

    def __init__(self, user: str, secret: str, on_event: OnEvent) -> None:
        self.user = user
        self.secret = secret
        self.on_event = on_event
        self.events = 0
        self.bytes_in = 0
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._is_upgraded = False
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count(1)

    @classmethod
    async def open(cls, port: int, user: str, secret: str, on_event: OnEvent = _ignore) -> Self:
        """Connect to this port of the loopback, and return when the server takes requests."""
        async with asyncio.timeout(PATIENCE):
            loop = asyncio.get_running_loop()
            _, session = await loop.create_connection(lambda: cls(user, secret, on_event), "127.0.0.1", port)
            await session.opened
        return session

    def join(self, room: str) -> asyncio.Future[Any]:
        raise NotImplementedError

    def publish(self, room: str, data: str) -> asyncio.Future[Any]:
        """`data`: JSON. Done when the server acknowledges it, whatever that is worth there."""
        raise NotImplementedError

    def call(self, name: str, data: dict[str, Any]) -> asyncio.Future[Any]:
        """Ask the node's program for something; done with its answer."""
        raise NotImplementedError

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # — the dialect —

    def _handshake(self) -> tuple[str, str]:
        """Path, and further header lines."""
        raise NotImplementedError

    def _take(self, text: bytes) -> None:
        """A message that is no event."""
        raise NotImplementedError

    def _ask(self, text: Callable[[int], str]) -> asyncio.Future[Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._send(text(number).encode())
        return answer

    def _answer(self, number: int, value: Any) -> None:
        future = self._answers.pop(number)
        if not future.done():
            future.set_result(value)

    def _fail(self, reason: str) -> None:
        error = ConnectionError(f"{self.user}: {reason}")
        for future in (self.opened, *self._answers.values()):
            if not future.done():
                future.set_exception(error)
        self._answers.clear()
        self.close()

    # — WebSocket —

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no such base
        path, headers = self._handshake()
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}{headers}\r\n".encode())

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(str(error or "the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._rest:
            data = self._rest + data
        if not self._is_upgraded:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = data
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(f"refused: {head.splitlines()[0].decode()}")
                return
            self._is_upgraded, data = True, rest
        at, end = 0, len(data)
        while end - at >= 2:
            start, length = at + 2, data[at + 1] & 127
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start])
            if end < start + length:
                break
            self._take_frame(data[at] & 15, data[start : start + length])
            at = start + length
        self._rest = data[at:]

    def _take_frame(self, opcode: int, payload: bytes) -> None:
        if payload.startswith(self.EVENT_START):
            self.events += 1
            self.on_event()
        elif opcode == _TEXT:
            self._take(payload)
        elif opcode == _PING:
            self._send(payload, _PONG)
        elif opcode == _CLOSE:
            self._fail(f"closed by the server: {int.from_bytes(payload[:2])} {payload[2:].decode(errors='replace')}")

    def _send(self, payload: bytes, opcode: int = _TEXT) -> None:
        length = len(payload)
        masked = (int.from_bytes(payload) ^ int.from_bytes(_MASKS[:length])).to_bytes(length)
        head = bytes((0x80 | opcode, 0x80 | length)) if length < 126 else bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2)
        assert self._transport is not None
        self._transport.write(head + _MASK + masked)


class AibosSession(Session):
    """`aibos.realtime.v1`: a token for each user."""

    EVENT_START = b'{"event":"%s"' % EVENT.encode()

    def join(self, room: str) -> asyncio.Future[Any]:
        return self._ask(lambda ref: f'{{"event":"join-room","data":"{room}","ref":{ref}}}')

    def publish(self, room: str, data: str) -> asyncio.Future[Any]:
        return self._ask(lambda ref: f'{{"event":"{EVENT}","room":"{room}","data":{data},"ref":{ref}}}')

    def call(self, name: str, data: dict[str, Any]) -> asyncio.Future[Any]:
        return self._ask(lambda ref: json.dumps({"event": name, "data": data, "ref": ref}))

    def _handshake(self) -> tuple[str, str]:
        now = int(time.time())
        token = jwt.encode({"sub": self.user, "role": "user", "iat": now, "exp": now + 3600}, self.secret, "HS256")
        return "/", f"Authorization: Bearer {token}\r\n"

    def _take(self, text: bytes) -> None:
        message = json.loads(text)
        if message["event"] == "error":
            self._fail(f"the server answered {message['data'].get('code')}: {message['data'].get('message')}")
        elif message["event"] == "connected":
            self.opened.set_result(None)
        elif message["event"] == "resync":
            self._fail(f"lost continuity: {message['data']}")
        elif "ref" in message:
            self._answer(message["ref"], message.get("data"))


class SocketIoSession(Session):
    """Socket.IO 4 over Engine.IO 4, by WebSocket alone: 0 open, 2 ping, 40 connect, 42 event, 43 answer."""

    EVENT_START = b'42["%s"' % EVENT.encode()

    def join(self, room: str) -> asyncio.Future[Any]:
        return self._ask(lambda number: f'42{number}["join","{room}"]')

    def publish(self, room: str, data: str) -> asyncio.Future[Any]:
        return self._ask(lambda number: f'42{number}["publish","{room}",{data}]')

    def call(self, name: str, data: dict[str, Any]) -> asyncio.Future[Any]:
        return self._ask(lambda number: f"42{number}{json.dumps([name, data])}")

    def _handshake(self) -> tuple[str, str]:
        return "/socket.io/?EIO=4&transport=websocket", ""

    def _take(self, text: bytes) -> None:
        if text.startswith(b"43"):
            number, bracket, rest = text[2:].partition(b"[")
            self._answer(int(number), json.loads(bracket + rest))
        elif text == b"2":
            self._send(b"3")
        elif text.startswith(b"0"):
            self._send(b"40")
        elif text.startswith(b"40"):
            self.opened.set_result(None)
        else:
            self._fail(f"the server sent {text[:100]!r}")


DIALECTS: dict[str, type[Session]] = {"aibos": AibosSession, "socketio": SocketIoSession}
