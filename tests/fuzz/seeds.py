"""Where a search begins: the vectors of the specification, what was found before, and words that inputs are made of."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .targets import CORPUS

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
RANDOM = 60
"""Seeds of random bytes for each target: of those that take their input apart, nearly all are good ones."""

DICTIONARY = [
    b'"event"', b'"data"', b'"room"', b'"ref"', b'"id"', b'"roomId"', b'"recover"', b'"epoch"', b'"offset"', b'"presence"', b'"limit"', b'"token"',
    b"join-room", b"leave-room", b"history", b"presence", b"authenticate", b"ping", b"ack", b"\\u0000", b"\\ud800", b"1e400", b"NaN", b"null",
    b"\x81\x80", b"\x88\x82\x00\x00\x00\x00\x03\xe8", b"\xc1", b"\x01\x80", b"\x80\x80", b"\x89\x80", b"\xed\xa0\x80", b"\xf4\x8f\xbf\xbf",
    b"\x81\xff",
    b"permessage-deflate", b"; ", b"server_max_window_bits=", b"client_max_window_bits", b"HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n\r\n",
    b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Sec-WebSocket-Key: ", b"e1 5 1700000000000 ", b"role__in", b"where",
    b"[cors]\norigin = ",
    b"REALTIME_PORT=", b"JWT_SECRET=", b"redis://", b"postgresql://", b"sqlite:///", b"exp", b"iat", b"sub", b"aud",
]  # fmt: skip


def seeds(name: str) -> Iterator[bytes]:
    """Inputs of a target."""
    for path in sorted((CORPUS / name).glob("*")):
        yield path.read_bytes()
    chance = random.Random(name)
    for _ in range(RANDOM):
        yield chance.randbytes(chance.choice((20, 100, 300, 1000)))
    if name in ("json", "msgpack"):
        for message in _walk(json.loads((VECTORS / "messages.json").read_text())):
            if isinstance(message, dict) and "event" in message:
                yield b"\x01" + (json.dumps(message).encode() if name == "json" else msgspec.msgpack.encode(message))
    if name == "frames":
        for text in _walk(json.loads((VECTORS / "frames.json").read_text())):
            if isinstance(text, str) and len(text) % 2 == 0 and len(text) < 2000:
                try:
                    yield bytes([1, 0, 0, 0, 0, 0, 1, 3]) + bytes.fromhex(text)
                except ValueError:
                    continue


def _walk(value: Any) -> Iterator[Any]:
    """A value, and all that is in it."""
    yield value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)
