"""What a server can answer and send that no good one does: heads of a handshake and frames, as data, and the steps of a script that say them."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from typing import Any

from aibos_realtime.protocol.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_payload, encode_frame
from tests.network.raw import MASK, smallest
from tests.network.scripted_server import GREETING, Peer, Step

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
OFF, ON = None, "deflate"


SOON = 3.0
"""Seconds in which a client has seen through what it is told, on a busy machine too; its own deadlines are ten and thirty."""
HELD = 4_000_000
"""Bytes that such a server may make a client hold."""


async def good(peer: Peer) -> None:
    await peer.accept()
    await peer.hang()


async def flood(peer: Peer, data: bytes, limit: int) -> None:
    """Say it over and over, `limit` bytes in all. Raises `ConnectionError` once the client has left."""
    for _ in range(limit // len(data)):
        await peer.write(data)


def peak() -> int:
    """Bytes held at most since the last question, of what `tracemalloc` sees."""
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    return highest


def say(event: str, data: Any = None, **members: Any) -> bytes:
    """The frame of a message of the protocol."""
    return encode_frame(TEXT, json.dumps({"event": event, "data": data, **members}).encode())


async def answer(peer: Peer, *further: str, line: str = "HTTP/1.1 101 Switching Protocols", fields: dict[str, str | None] | None = None) -> None:
    """A handshake's answer, written by hand. `fields` replace those of a good one, None leaves one out; `further`: whole lines after them."""
    key = (await peer.read_request()).headers["Sec-WebSocket-Key"]
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    chosen = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept, **(fields or {})}
    lines = [line, *(f"{name}: {value}" for name, value in chosen.items() if value is not None), *further]
    await peer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


def answering(*further: str, body: bytes = b"", line: str = "HTTP/1.1 101 Switching Protocols", fields: dict[str, str | None] | None = None) -> Step:
    """A step that answers so, says `body`, and keeps the connection open, as if there were more to come."""

    async def step(peer: Peer) -> None:
        await answer(peer, *further, line=line, fields=fields)
        await peer.write(body)
        await peer.stall()

    return step


def saying(*chunks: bytes, greets: bool = True) -> Step:
    """A step that shakes hands, says this after its greeting, and keeps the connection open, reading nothing."""

    async def step(peer: Peer) -> None:
        await (peer.accept() if greets else peer.upgrade())
        for chunk in chunks:
            await peer.write(chunk)
        await peer.stall()

    return step


async def banner(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await peer.stall()


WELCOME = say("connected", GREETING)
LONG = "x" * 8000

NO_WEBSOCKET: dict[str, tuple[Step, str | None]] = {
    "a banner": (banner, OFF),
    "wrong accept": (answering(fields={"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}), OFF),
    "no accept": (answering(fields={"Sec-WebSocket-Accept": None}), OFF),
    "two accepts": (answering("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), OFF),
    "no upgrade": (answering(fields={"Upgrade": None}), OFF),
    "another upgrade": (answering(fields={"Upgrade": "h2c"}), OFF),
    "no connection": (answering(fields={"Connection": None}), OFF),
    "connection is not a list": (answering(fields={"Connection": "@@@"}), OFF),
    "connection of commas": (answering(fields={"Connection": "," * 8000}), OFF),
    "HTTP/1.0": (answering(line="HTTP/1.0 101 Switching Protocols"), OFF),
    "HTTP/2": (answering(line="HTTP/2 101 Switching Protocols"), OFF),
    "status 1e2": (answering(line="HTTP/1.1 1e2 Hundred"), OFF),
    "status 999": (answering(line="HTTP/1.1 999 Much"), OFF),
    "status of 5,000 digits": (answering(line=f"HTTP/1.1 {'1' * 5000} Many"), OFF),
    "a status line of 64 KB": (answering(line="HTTP/1.1 101 " + "x" * 64_000), OFF),
    "a status line without end": (answering(line="x" * 64_000, fields={"Upgrade": None, "Connection": None, "Sec-WebSocket-Accept": None}), OFF),
    "129 fields": (answering(*["X: y"] * 129), OFF),
    "10,000 fields": (answering(*["X: y"] * 10_000), OFF),
    "a field of 16 KB": (answering("X: " + "y" * 16_384), OFF),
    "a field with NUL": (answering("X: a\0b"), OFF),
    "a field without a colon": (answering("nothing"), OFF),
    "a field with a space in its name": (answering("X y: z"), OFF),
    "a folded field": (answering("X: a", " b"), OFF),
    "an extension nobody asked for": (answering(DEFLATE), OFF),
    "an extension nobody knows": (answering("Sec-WebSocket-Extensions: x-cipher"), ON),
    "the extension twice": (answering(DEFLATE + ", permessage-deflate"), ON),
    **{
        f"{parameter} {value[:8]!r}": (answering(f"{DEFLATE}; {parameter}={value}"), ON)
        for parameter in ("server_max_window_bits", "client_max_window_bits")
        for value in ("99", "7", "16", "08", "-1", "1" * 5000, "nine")
    },
    "a window of no bits": (answering(DEFLATE + "; server_max_window_bits"), ON),
    "a window twice": (answering(DEFLATE + "; server_max_window_bits=10; server_max_window_bits=10"), ON),
    "takeover with a value": (answering(DEFLATE + "; server_no_context_takeover=1"), ON),
    "a parameter nobody knows": (answering(DEFLATE + "; speed=11"), ON),
    "an extension of spaces": (answering(DEFLATE + " " * 8000 + "!"), ON),
    "an extension of semicolons": (answering(DEFLATE + ";" * 8000), ON),
    "an extension of quotes": (answering(DEFLATE + '; server_max_window_bits="' + "\\" * 8000), ON),
    "a subprotocol nobody asked for": (answering("Sec-WebSocket-Protocol: aibos.realtime.v2"), OFF),
    "a subprotocol of 8,000": (answering(f"Sec-WebSocket-Protocol: {LONG}"), OFF),
    "a subprotocol of spaces": (answering("Sec-WebSocket-Protocol: b" + " " * 8000 + "!"), OFF),
    "two subprotocols": (answering("Sec-WebSocket-Protocol: aibos.realtime.v1, aibos.realtime.v1"), OFF),
    "a body of 10^9 bytes": (answering("Content-Length: 1000000000", line="HTTP/1.1 500 Error"), OFF),
    "a body of 5,000 digits": (answering(f"Content-Length: {'9' * 5000}", line="HTTP/1.1 500 Error"), OFF),
    "a body without end": (answering(line="HTTP/1.1 500 Error", body=b"x" * 2_000_000), OFF),
    "a chunk of 2^60": (answering("Transfer-Encoding: chunked", line="HTTP/1.1 500 Error", body=b"1000000000000000\r\n"), OFF),
    "a chunk of no number": (answering("Transfer-Encoding: chunked", line="HTTP/1.1 500 Error", body=b"-1\r\n"), OFF),
    "another coding": (answering("Transfer-Encoding: gzip", line="HTTP/1.1 500 Error"), OFF),
}  # fmt: skip
"""Answers that are no handshake, and whether the client offers compression. The connection stays open: who waits for its end, waits in vain."""

NO_FRAMES: dict[str, tuple[int, bytes]] = {
    "masked": (1002, encode_frame(TEXT, b"{}", mask=MASK)),
    "a masked ping": (1002, encode_frame(PING, b"", mask=MASK)),
    "an opcode nobody knows": (1002, b"\x83\x00"),
    "a reserved bit": (1002, b"\xc1\x00"),
    "a length of 2^63": (1009, b"\x82\x7f" + b"\x80" + bytes(7)),
    "a length of 2^62": (1009, b"\x82\x7f" + b"\x40" + bytes(7)),
    "one byte too many": (1009, b"\x82\x7f" + (65537).to_bytes(8, "big")),
    "a ping of 126 bytes": (1002, b"\x89\x7e\x00\x7e" + bytes(126)),
    "a ping in fragments": (1002, b"\x09\x00"),
    "a continuation of nothing": (1002, encode_frame(CONTINUATION, b"x")),
    "a text inside a text": (1002, encode_frame(TEXT, b"x", fin=False) + encode_frame(TEXT, b"y")),
    "text that is not UTF-8": (1007, encode_frame(TEXT, b"\xff")),
    "5,000 fragments": (1009, encode_frame(TEXT, b"x", fin=False) + encode_frame(CONTINUATION, b"x", fin=False) * 5000),
    "5,000 fragments of nothing": (1009, encode_frame(BINARY, b"", fin=False) + encode_frame(CONTINUATION, b"", fin=False) * 5000),
    "more than a message in fragments": (
        1009,
        encode_frame(BINARY, b"x" * 1000, fin=False) + encode_frame(CONTINUATION, b"x" * 1000, fin=False) * 66,
    ),
    "a close of one byte": (1002, encode_frame(CLOSE, b"\x03")),
    **{f"a close with {code}": (1002, encode_frame(CLOSE, code.to_bytes(2, "big"))) for code in (0, 999, 1004, 1005, 1006, 1015, 5000, 65535)},
    "a close of 126 bytes": (1002, b"\x88\x7e\x00\x7e" + bytes(126)),
    "a close whose reason is not UTF-8": (1007, encode_frame(CLOSE, b"\x0f\xa1\xff\xfe")),
}
"""What is said after the greeting, and the code with which a client whose messages have at most 64 KiB closes. The connection stays open."""

BOMB = encode_frame(TEXT, smallest(b'"' + b" " * 2**24 + b'"'), rsv1=True)
GOODBYE = encode_frame(CLOSE, close_payload(4001, "moved"))
FOR_GOOD = encode_frame(CLOSE, close_payload(4503, "banned"))
