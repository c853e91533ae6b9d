"""The other members of a room: they read all that comes, in a process of their own, and watch how long it took and whether anything is missing.

It says `seated` when all are in the room; at SIGUSR1 `heard` and a JSON object (see `Audience.take`), and forgets; at SIGTERM it ends.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import time
from typing import Any

from aibos_realtime.protocol.frames import PING, PONG, TEXT, FrameReader, encode_frame
from tests.network.raw import MASK, request, text

WATCHED = 25
"""One in so many reads what it gets; all others are only drained."""
EVENT = b'"event":"tick"'


class Watcher:
    """A member that reads, and writes down."""

    def __init__(self) -> None:
        self.reader = FrameReader(masked=False, max_message=None)
        self.offsets: list[int] = []
        self.times: list[float] = []

    def read(self, member: socket.socket, data: bytes) -> None:
        now = time.monotonic()
        for opcode, payload in self.reader.feed(data):
            if opcode == PING:
                member.send(encode_frame(PONG, payload, mask=MASK))
            elif opcode == TEXT and EVENT in payload:
                message = json.loads(payload)
                self.offsets.append(message["offset"])
                self.times.append(now - message["data"]["at"])


class Audience:
    """All of them. `tokens`: one each."""

    def __init__(self, port: int, tokens: list[str], room: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._watchers: list[Watcher] = []
        self.lost = 0
        for number, token in enumerate(tokens):
            member = socket.create_connection(("127.0.0.1", port))
            member.sendall(request(f"Authorization: Bearer {token}") + text({"event": "join-room", "ref": 1, "data": room}))
            self._seat(member)
            watcher = None
            if number % WATCHED == 0:
                watcher = Watcher()
                self._watchers.append(watcher)
            member.setblocking(False)
            self._selector.register(member, selectors.EVENT_READ, watcher)
            self.drain(0)

    @staticmethod
    def _seat(member: socket.socket) -> None:
        """Read up to where it is in the room; what follows is whole frames."""
        told = b""
        while b'"joined-room"' not in told:
            chunk = member.recv(65536)
            if not chunk:
                raise SystemExit(f"nobody was let in: {told!r}")
            told += chunk

    def drain(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            member = key.fileobj
            assert isinstance(member, socket.socket)
            try:
                data = member.recv(262_144)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self.lost += 1
                self._selector.unregister(member)
            elif key.data is not None:
                key.data.read(member, data)

    def take(self) -> dict[str, Any]:
        """`lost`: who was closed; `offsets`: what each of the watchers got, where that is not the same; `p50`, `p99`: seconds."""
        times = sorted(one for watcher in self._watchers for one in watcher.times)
        seen = {tuple(watcher.offsets) for watcher in self._watchers}
        for watcher in self._watchers:
            watcher.offsets, watcher.times = [], []
        count = len(times)
        return {
            "lost": self.lost,
            "offsets": [list(offsets) for offsets in seen],
            "p50": times[count // 2] if count else 0.0,
            "p99": times[int(count * 0.99)] if count else 0.0,
        }


def main(options: dict[str, Any]) -> None:
    """`options`: `port`, `tokens`, `room`."""
    wanted: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: wanted.append(signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda *_: wanted.append(signal.SIGUSR1))
    audience = Audience(options["port"], options["tokens"], options["room"])
    print("seated", flush=True)
    while signal.SIGTERM not in wanted:
        audience.drain(0.05)
        if wanted and wanted.pop() == signal.SIGUSR1:
            print("heard", json.dumps(audience.take()), flush=True)
