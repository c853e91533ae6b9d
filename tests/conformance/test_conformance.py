"""RFC 6455 from the outside, on a real port: the ground of sections 1–7, 9 and 10 of the Autobahn testsuite, in seconds."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aibos_realtime.protocol.deflate import compress
from aibos_realtime.protocol.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, parse_close
from tests.conformance.echo_server import EchoGate, make_port
from tests.network.raw import MASK, Raw, frame, raw, request, upgraded

SIZES = (0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 70000)
BAD_TEXT = {
    "continuation byte alone": b"\x80",
    "lead byte alone": b"\xce",
    "cut in the middle": "κόσμε".encode()[:-1],
    "overlong slash": b"\xc0\xaf",
    "overlong of three": b"\xe0\x80\xaf",
    "overlong NUL": b"\xc0\x80",
    "half a surrogate": b"\xed\xa0\x80",
    "the other half": b"\xed\xbf\xbf",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff\xff",
    "in Latin-1": "Grüße".encode("latin-1"),
}
GOOD_TEXT = ["", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\x7f\x80߿ࠀ￿\U00010000\U0010ffff", "\ud7ff\ue000�﷐￾", "\U0001fffe\U0010ffff"]
VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


@asynccontextmanager
async def echo(*further: str, max_message: int | None = 32 * 1024 * 1024, max_fragments: int | None = 100_000) -> AsyncIterator[Raw]:
    """A connection to an echo server of its own."""
    port = make_port(EchoGate(max_message=max_message, max_fragments=max_fragments))
    await port.bind("127.0.0.1", 0)
    await port.open()
    try:
        async with upgraded(port.number, *further) as connection:
            yield connection
    finally:
        await port.close(1.0)


async def failed_with(connection: Raw) -> int:
    """The close code, nothing but a close frame having come; then the end of the connection, at once."""
    opcode, payload = await connection.frame()
    assert opcode == CLOSE, (opcode, payload)
    assert await connection.ended(1.0) == b""
    return parse_close(payload)[0]


async def is_alive(connection: Raw) -> None:
    await connection.send(frame(TEXT, b"still there?"))
    assert await connection.frame() == (TEXT, b"still there?")


# — 1: framing —


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_every_length_comes_back(opcode: int) -> None:
    async with echo() as connection:
        for size in SIZES:
            payload = b"*" * size
            await connection.send(frame(opcode, payload))
            assert await connection.whole_frame() == (0x80 | opcode, opcode, payload)


@pytest.mark.parametrize("chop", [1, 997])
async def test_chopped_into_small_segments(chop: int) -> None:
    async with echo() as connection:
        data = b"".join(frame(BINARY, b"\xfe" * size) for size in (0, 125, 126, 700))
        for at in range(0, len(data), chop):
            connection.write(data[at : at + chop])
            await asyncio.sleep(0)
        assert [len((await connection.frame())[1]) for _ in range(4)] == [0, 125, 126, 700]


@pytest.mark.parametrize("size", [65537, 2**32, 2**63 - 1])
async def test_an_announced_length_is_refused_before_its_bytes_come(size: int) -> None:
    async with echo(max_message=65536) as connection:
        await connection.send(bytes((0x82, 0xFF)) + size.to_bytes(8, "big") + MASK)
        assert await failed_with(connection) == 1009


async def test_an_announced_length_without_a_limit_costs_nothing() -> None:
    tracemalloc.start()
    try:
        async with echo(max_message=None) as connection:
            await connection.send(bytes((0x82, 0xFF)) + (2**62).to_bytes(8, "big") + MASK + b"a few bytes")
            connection.writer.write_eof()
            await connection.ended()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "head",
    [
        bytes((0x82, 0xFF)) + (2**63).to_bytes(8, "big") + MASK,
        bytes((0x82, 0xFF)) + (2**64 - 1).to_bytes(8, "big") + MASK,
        bytes((0x82, 0xFE)) + (125).to_bytes(2, "big") + MASK,
        bytes((0x82, 0xFF)) + (65535).to_bytes(8, "big") + MASK,
        bytes((0x81, 0x05)) + b"Hello",
    ],
    ids=["2^63", "2^64-1", "125 in 16 bits", "65535 in 64 bits", "not masked"],
)
async def test_invalid_heads(head: bytes) -> None:
    async with echo() as connection:
        await connection.send(head)
        assert await failed_with(connection) == 1002


# — 2: pings and pongs —


@pytest.mark.parametrize("size", [0, 1, 124, 125])
async def test_a_ping_is_answered_with_its_payload(size: int) -> None:
    async with echo() as connection:
        await connection.send(frame(PING, b"\xfe" * size))
        assert await connection.whole_frame() == (0x8A, PONG, b"\xfe" * size)


async def test_a_ping_of_126_bytes() -> None:
    async with echo() as connection:
        await connection.send(frame(PING, b"p" * 126))
        assert await failed_with(connection) == 1002


async def test_unasked_pongs_are_ignored() -> None:
    async with echo() as connection:
        await connection.send(frame(PONG, b"unasked") + frame(PONG) + frame(PING, b"asked"))
        assert await connection.frame() == (PONG, b"asked")


async def test_many_pings_are_answered_in_order() -> None:
    async with echo() as connection:
        await connection.send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
        assert [await connection.frame() for _ in range(10)] == [(PONG, b"%d" % number) for number in range(10)]


# — 3, 4: reserved bits and opcodes —


@pytest.mark.parametrize("first", [0xC1, 0xA1, 0x91, 0xB2, 0xD9, 0xE9, 0xF8] + [0x80 | code for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)])
async def test_what_is_reserved_is_refused_and_what_came_before_is_answered(first: int) -> None:
    async with echo() as connection:
        await connection.send(frame(TEXT, b"before") + bytes((first, 0x80)) + MASK + frame(PING))
        assert await connection.frame() == (TEXT, b"before")
        assert await failed_with(connection) == 1002


# — 5: fragmentation —


@pytest.mark.parametrize("together", [True, False], ids=["one segment", "a segment each"])
async def test_fragments_with_a_ping_between(together: bool) -> None:
    async with echo() as connection:
        parts = [frame(TEXT, b"a", fin=False), frame(PING, b"p"), frame(CONTINUATION, b"b", fin=False), frame(CONTINUATION, b"c")]
        for part in [b"".join(parts)] if together else parts:
            await connection.send(part)
        assert [await connection.frame() for _ in range(2)] == [(PONG, b"p"), (TEXT, b"abc")]


@pytest.mark.parametrize(
    "parts",
    [
        [frame(CONTINUATION, b"x")],
        [frame(CONTINUATION, b"x", fin=False)],
        [frame(TEXT, b"x", fin=False), frame(TEXT, b"y")],
        [frame(BINARY, b"x", fin=False), frame(TEXT, b"y", fin=False)],
        [frame(PING, b"x", fin=False)],
        [frame(PONG, b"x", fin=False)],
        [frame(CLOSE, close_payload(1000), fin=False)],
    ],
    ids=["of nothing", "of nothing, unfinished", "text inside", "text inside binary", "of a ping", "of a pong", "of a close"],
)
async def test_fragments_that_cannot_be(parts: list[bytes]) -> None:
    async with echo() as connection:
        await connection.send(b"".join(parts))
        assert await failed_with(connection) == 1002


async def test_fragments_of_nothing() -> None:
    async with echo() as connection:
        await connection.send(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION))
        assert await connection.frame() == (TEXT, b"")
        await connection.send(frame(TEXT, fin=False) + frame(CONTINUATION, b"middle", fin=False) + frame(CONTINUATION))
        assert await connection.frame() == (TEXT, b"middle")


# — 6: UTF-8 —


async def test_text_that_is_utf_8() -> None:
    async with echo() as connection:
        for text in GOOD_TEXT:
            payload = text.encode()
            await connection.send(frame(TEXT, payload))
            assert await connection.frame() == (TEXT, payload)
            single = [frame(TEXT, fin=False), *(frame(CONTINUATION, bytes((byte,)), fin=False) for byte in payload), frame(CONTINUATION)]
            await connection.send(b"".join(single))
            assert await connection.frame() == (TEXT, payload)


@pytest.mark.parametrize("payload", BAD_TEXT.values(), ids=BAD_TEXT)
async def test_text_that_is_not(payload: bytes) -> None:
    async with echo() as connection:
        await connection.send(frame(TEXT, b"good so far " + payload))
        assert await failed_with(connection) == 1007
    async with echo() as connection:
        await connection.send(frame(TEXT, b"good so far ", fin=False) + frame(CONTINUATION, payload))
        assert await failed_with(connection) == 1007
    async with echo() as connection:
        await connection.send(frame(BINARY, payload))
        assert await connection.frame() == (BINARY, payload)


@pytest.mark.parametrize("payload", [b"\xce\xba\xf4\x90", b"\xed\xa0", b"\xff"], ids=["beyond", "half a surrogate", "FF"])
async def test_bad_text_is_refused_before_its_last_fragment(payload: bytes) -> None:
    async with echo() as connection:
        await connection.send(frame(TEXT, payload, fin=False))
        assert await failed_with(connection) == 1007


# — 7: closing —


@pytest.mark.parametrize("code", VALID_CODES)
async def test_a_close_is_answered_with_its_code(code: int) -> None:
    async with echo() as connection:
        await connection.send(frame(CLOSE, close_payload(code, "§ bye")))
        assert await failed_with(connection) == code


async def test_an_empty_close_is_answered_with_an_empty_one() -> None:
    async with echo() as connection:
        await connection.send(frame(CLOSE))
        assert await connection.frame() == (CLOSE, b"")
        assert await connection.ended(1.0) == b""


@pytest.mark.parametrize("code", INVALID_CODES)
async def test_codes_that_no_close_frame_carries(code: int) -> None:
    async with echo() as connection:
        await connection.send(frame(CLOSE, code.to_bytes(2, "big")))
        assert await failed_with(connection) == 1002


@pytest.mark.parametrize(
    ("payload", "verdict"),
    [(b"\x03", 1002), (b"\x03\xe8" + b"r" * 124, 1002), (b"\x03\xe8\xce\xba\xe1\xbd", 1007), (b"\x03\xe8" + b"r" * 123, 1000)],
    ids=["one byte", "126 bytes", "reason is not UTF-8", "longest reason"],
)
async def test_close_payloads(payload: bytes, verdict: int) -> None:
    async with echo() as connection:
        await connection.send(frame(CLOSE, payload))
        assert await failed_with(connection) == verdict


@pytest.mark.parametrize("after", [frame(TEXT, b"late"), frame(PING, b"late"), frame(CLOSE, close_payload(1001)), b"\xff\xff\xff"])
async def test_what_follows_a_close_is_not_answered(after: bytes) -> None:
    async with echo() as connection:
        await connection.send(frame(CLOSE, close_payload(1000)) + after)
        assert await failed_with(connection) == 1000


async def test_a_close_between_fragments_ends_it() -> None:
    async with echo() as connection:
        await connection.send(frame(TEXT, b"x" * 100, fin=False) + frame(CLOSE, close_payload(1000)) + frame(CONTINUATION, b"y"))
        assert await failed_with(connection) == 1000


async def test_a_half_closed_connection_ends() -> None:
    async with echo() as connection:
        connection.writer.write_eof()
        assert await connection.ended(1.0) == b""


# — 9: limits, large messages, small segments —


@pytest.mark.parametrize("size", [1024 * 1024, 8 * 1024 * 1024])
async def test_large_messages(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    async with echo() as connection:
        for opcode, content in ((BINARY, payload), (TEXT, b"*" * size)):
            sending = asyncio.ensure_future(connection.send(frame(opcode, content)))
            assert await connection.frame() == (opcode, content)
            await sending


@pytest.mark.parametrize("fragment", [64, 4096])
async def test_a_large_message_in_small_fragments(fragment: int) -> None:
    payload = random.Random(fragment).randbytes(1024 * 1024)
    pieces = [payload[at : at + fragment] for at in range(0, len(payload), fragment)]
    parts = [frame(BINARY, pieces[0], fin=False), *(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:]), frame(CONTINUATION)]
    async with echo() as connection:
        sending = asyncio.ensure_future(connection.send(b"".join(parts)))
        assert await connection.frame() == (BINARY, payload)
        await sending


async def test_limits_are_exact() -> None:
    async with echo(max_message=1000, max_fragments=3) as connection:
        await connection.send(frame(TEXT, b"*" * 1000))
        assert len((await connection.frame())[1]) == 1000
        await connection.send(frame(TEXT, b"*", fin=False) + frame(CONTINUATION, b"*", fin=False) + frame(CONTINUATION, b"*"))
        assert await connection.frame() == (TEXT, b"***")
        await connection.send(frame(TEXT, b"*" * 1001))
        assert await failed_with(connection) == 1009
    async with echo(max_message=1000, max_fragments=3) as connection:
        await connection.send(b"".join(frame(CONTINUATION if number else TEXT, b"", fin=False) for number in range(4)))
        assert await failed_with(connection) == 1009
    async with echo(max_message=1000) as connection:
        await connection.send(frame(TEXT, b"*" * 999, fin=False) + frame(CONTINUATION, b"**"))
        assert await failed_with(connection) == 1009


async def test_random_cuts_change_nothing() -> None:
    choose = random.Random(6455)
    messages = [choose.randbytes(choose.choice((0, 1, 5, 125, 126, 300, 2000))) for _ in range(300)]
    data = b"".join(frame(BINARY, message) for message in messages)
    async with echo() as connection:
        at = 0
        while at < len(data):
            size = choose.choice((1, 2, 3, 7, 50, 1000, 5000))
            await connection.send(data[at : at + size])
            at += size
        assert [(await connection.frame())[1] for _ in messages] == messages


# — 10, 12: many messages, compressed ones —


async def test_many_messages_in_one_segment() -> None:
    async with echo() as connection:
        sending = asyncio.ensure_future(connection.send(b"".join(frame(TEXT, b"%d" % number) for number in range(5000))))
        assert [(await connection.frame())[1] for _ in range(5000)] == [b"%d" % number for number in range(5000)]
        await sending


async def test_compressed_messages() -> None:
    async with echo("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits") as connection:
        for text in ("", "a", "Hello " * 5000):
            await connection.send(frame(TEXT, compress(text.encode()), rsv1=True))
            first, opcode, payload = await connection.whole_frame()
            assert (first, opcode) == (0xC1, TEXT) and payload == compress(text.encode())
        await connection.send(frame(TEXT, compress(b"in two")[:3], fin=False, rsv1=True) + frame(CONTINUATION, compress(b"in two")[3:]))
        assert (await connection.frame())[1] == compress(b"in two")
        await connection.send(frame(TEXT, b"\xff\xff\xff", rsv1=True))
        assert await failed_with(connection) == 1007


async def test_early_frames_are_read_after_the_upgrade() -> None:
    port = make_port(EchoGate())
    await port.bind("127.0.0.1", 0)
    await port.open()
    try:
        async with raw(port.number) as connection:
            await connection.send(request() + frame(TEXT, b"early") + frame(TEXT, b"cut in two")[:7])
            assert (await connection.response()).status == 101
            assert await connection.frame() == (TEXT, b"early")
            await connection.send(frame(TEXT, b"cut in two")[7:])
            assert await connection.frame() == (TEXT, b"cut in two")
            await is_alive(connection)
    finally:
        await port.close(1.0)
