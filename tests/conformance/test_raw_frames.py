"""Frames that no client sends, by hand, against the whole server: the code it closes with, how soon the connection ends, and what it costs.

Each row comes three ways: at once, byte by byte, and behind a good message, which is answered first.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from aibos_realtime import RealtimeServer
from aibos_realtime.protocol.deflate import compress
from aibos_realtime.protocol.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, encode_frame
from tests.network.raw import MASK, Raw, frame, member, serving, smallest, text, upgraded

pytestmark = pytest.mark.usefixtures("clean_log")

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
SOON = 0.1
"""Seconds from the last byte of a row to the end of the connection."""
BYTES = 1_000_000
"""What a row may make the process allocate beyond what it had: the server and this end of the connection together."""
TRIES = 5
"""A busy machine may hold up one end; five in a row were late only if the server is."""


def head(first: int, length: int, wide: int) -> bytes:
    """The head of a masked frame, its length in `wide` bytes, whatever the length is."""
    return bytes((first, 0x80 | (126 if wide == 2 else 127))) + length.to_bytes(wide, "big") + MASK


ROWS: dict[str, tuple[int, bytes]] = {
    "a text that is not masked": (1002, encode_frame(TEXT, b"hello")),
    "a ping that is not masked": (1002, encode_frame(PING, b"p")),
    "a close that is not masked": (1002, encode_frame(CLOSE, close_payload(1000))),
    "a text that is not masked after one that is begun": (1002, frame(TEXT, b"a", fin=False) + encode_frame(CONTINUATION, b"b")),
    **{f"reserved bits {bits:#x}": (1002, bytes((0x81 | bits, 0x80)) + MASK) for bits in (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70)},
    **{f"a ping with reserved bits {bits:#x}": (1002, bytes((0x89 | bits, 0x80)) + MASK) for bits in (0x10, 0x20, 0x40)},
    "a continuation with a reserved bit": (1002, frame(TEXT, b"a", fin=False) + bytes((0xC0, 0x80)) + MASK),
    **{f"opcode {code}": (1002, bytes((0x80 | code, 0x80)) + MASK) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a length of 2^63": (1002, head(0x82, 2**63, 8)),
    "a length of 2^64-1": (1002, head(0x82, 2**64 - 1, 8)),
    "a length of 2^63-1": (1009, head(0x82, 2**63 - 1, 8)),
    "a length of 4 GiB": (1009, head(0x81, 2**32, 8)),
    "a length of one too many": (1009, head(0x81, 65537, 8)),
    "a second fragment of 2^62": (1009, frame(TEXT, b"a", fin=False) + head(0x00, 2**62, 8)),
    **{f"a length of {size} in {wide} bytes": (1002, head(0x82, size, wide)) for size, wide in ((0, 2), (125, 2), (0, 8), (126, 8), (65535, 8))},
    "a close of one byte": (1002, frame(CLOSE, b"\x03")),
    **{
        f"a close with {code}": (1002, frame(CLOSE, code.to_bytes(2, "big"))) for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "a close whose reason is not UTF-8": (1007, frame(CLOSE, b"\x03\xe8\xff")),
    "a close whose reason is cut": (1007, frame(CLOSE, b"\x03\xe8\xe2\x82")),
    "a close of 126 bytes": (1002, head(0x88, 126, 2)),
    "a ping of 126 bytes": (1002, head(0x89, 126, 2) + b"p" * 126),
    "a ping of 2^63-1 bytes": (1002, head(0x89, 2**63 - 1, 8)),
    "a ping in fragments": (1002, frame(PING, b"p", fin=False)),
    "a pong in fragments": (1002, frame(PONG, b"p", fin=False)),
    "a close in fragments": (1002, frame(CLOSE, close_payload(1000), fin=False)),
    "a continuation of nothing": (1002, frame(CONTINUATION, b"x")),
    "a continuation of what is whole": (1002, frame(PING) + frame(CONTINUATION, b"x", fin=False)),
    "a text inside a text": (1002, frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")),
    "a text inside a binary": (1002, frame(BINARY, b"x", fin=False) + frame(TEXT, b"y")),
    "bad UTF-8": (1007, frame(TEXT, b"\xff")),
    "bad UTF-8 over two fragments": (1007, frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"x", fin=False)),
    "half a character at the end of the last fragment": (1007, frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82")),
    "half a surrogate over two fragments": (1007, frame(TEXT, b"\xed", fin=False) + frame(CONTINUATION, b"\xa0", fin=False)),
    "bad UTF-8 after a ping between": (1007, frame(TEXT, b"\xc3", fin=False) + frame(PING) + frame(CONTINUATION, b"\x28")),
    "257 fragments": (1009, frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 256),
    "257 fragments of nothing": (1009, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 256),
    "64 KiB and a byte in two fragments": (1009, frame(TEXT, b"x" * 65535, fin=False) + head(0x80, 2, 2)[:1] + b"\x82" + MASK),
}
COMPRESSED: dict[str, tuple[int, bytes]] = {
    "what does not inflate": (1007, frame(TEXT, b"\xff\xff\xff", rsv1=True)),
    "bad UTF-8, compressed": (1007, frame(TEXT, compress(b"\xff"), rsv1=True)),
    "a bomb of 16 MiB": (1009, frame(TEXT, smallest(b"\0" * 2**24), rsv1=True)),
    "a compressed ping": (1002, frame(PING, compress(b"p"), rsv1=True)),
    "a compressed continuation": (1002, frame(TEXT, b"x", fin=False) + frame(CONTINUATION, compress(b"y"), rsv1=True)),
    "reserved bit 2 beside a compressed text": (1002, bytes((0xE1, 0x80)) + MASK),
}

Delivery = Callable[[Raw, bytes], Awaitable[None]]


async def at_once(connection: Raw, data: bytes) -> None:
    await connection.send(data)


async def byte_by_byte(connection: Raw, data: bytes) -> None:
    """The beginning, at least: what is announced, and not what it is filled with."""
    for at in range(min(len(data), 64)):
        connection.write(data[at : at + 1])
        await asyncio.sleep(0)
    await connection.send(data[64:])


async def behind_a_message(connection: Raw, data: bytes) -> None:
    await connection.send(text({"event": "ping", "ref": "before"}) + data)
    answer = await connection.message()
    assert answer["ref"] == "before", answer


async def attack(server: RealtimeServer, deliver: Delivery, data: bytes, *further: str) -> tuple[int, float, int]:
    """The close code, the seconds until the end, and the bytes allocated at the peak."""
    token = server.auth.issue(user_id="attacker", tenant_id="1", role="user")
    async with upgraded(server.port, f"Authorization: Bearer {token}", *further) as connection:
        await connection.frame()  # the welcome
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        await deliver(connection, data)
        begin = time.perf_counter()
        code = await connection.close_code()
        assert await connection.ended() == b""
        return code, time.perf_counter() - begin, tracemalloc.get_traced_memory()[1] - held


@pytest.mark.timeout(60)
@pytest.mark.parametrize("deliver", [at_once, byte_by_byte, behind_a_message])
async def test_every_row_ends_its_connection_at_once_and_no_other(deliver: Delivery, traced: None) -> None:
    faults = []
    limits = {"messages_per_second": None, "control_frames_per_second": None}
    async with serving(compression={"enabled": True}, limits=limits) as server, member(server, "canary") as canary:
        await attack(server, deliver, ROWS["opcode 3"][1])  # what is made at first use is not counted
        for rows, further in ((ROWS, ()), (COMPRESSED, (DEFLATE,))):
            for name, (expected, data) in rows.items():
                tries = 0
                while True:
                    code, seconds, peak = await attack(server, deliver, data, *further)
                    tries += 1
                    if (seconds < SOON and peak < BYTES) or tries == TRIES or code != expected:
                        break
                if code != expected or seconds >= SOON or peak >= BYTES:
                    faults.append(f"{name}: {code} (not {expected}?), after {seconds * 1000:.0f} ms, {peak} bytes")
                assert (await canary.ask("ping"))["event"] == "pong"
    assert faults == []
