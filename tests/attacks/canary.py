"""The canary: a well-behaved client in a process of its own, which asks every 25 ms and writes down how long each answer took.

It says `singing` when the server has welcomed it, and after SIGTERM `song` and a JSON list of all the times in seconds, each from the moment at which
its question was due: an answer that holds up the questions behind it counts for them too. It ends badly when the server ends the connection.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
import time
from typing import Any

from aibos_realtime.protocol import frames
from tests.network.raw import MASK, request

EVERY = 0.025
FEWEST = 10
"""Questions, however soon the end is."""
PATIENCE = 30.0


class Line:
    """A blocking connection of frames."""

    def __init__(self, port: int, token: str, authority: str | None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if authority is not None:
            self._socket = ssl.create_default_context(cadata=authority).wrap_socket(self._socket, server_hostname="localhost")
        self._socket.sendall(request(f"Authorization: Bearer {token}"))
        self._reader = self._socket.makefile("rb")
        assert b" 101 " in self._reader.readline()
        while self._reader.readline() != b"\r\n":
            pass

    def send(self, opcode: int, payload: bytes) -> None:
        self._socket.sendall(frames.encode_frame(opcode, payload, mask=MASK))

    def message(self) -> dict[str, Any]:
        """The next text message; pings are answered."""
        while True:
            opcode, size = self._read(2)
            if size >= 126:
                size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
            payload = self._read(size)
            match opcode & 0x0F:
                case frames.TEXT:
                    found: dict[str, Any] = json.loads(payload)
                    return found
                case frames.PING:
                    self.send(frames.PONG, payload)
                case frames.CLOSE:
                    raise SystemExit(f"the server closed the canary: {payload!r}")

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise SystemExit("the server dropped the canary")
        return data


def main(options: dict[str, Any]) -> None:
    """`options`: `port`, `token`; `authority`: the certificate that the server's is signed with, in PEM, where it speaks TLS."""
    end, pace = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    line = Line(options["port"], options["token"], options.get("authority"))
    question = json.dumps({"event": "ping", "ref": "canary"}).encode()
    times: list[float] = []
    due = time.perf_counter()
    print("singing", flush=True)
    while not end.is_set() or len(times) < FEWEST:
        pace.wait(max(0.0, due - time.perf_counter()))
        line.send(frames.TEXT, question)
        while line.message().get("ref") != "canary":
            pass
        times.append(time.perf_counter() - due)
        due += EVERY
    print("song", json.dumps([round(took, 6) for took in times]), flush=True)
