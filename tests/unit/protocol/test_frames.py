"""The frame codec: one table per clause of RFC 6455, and the property that how the bytes are cut never matters."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.protocol.deflate import Inflater, compress
from aibos_realtime.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAILED,
    PING,
    PONG,
    TEXT,
    FrameReader,
    close_payload,
    encode_frame,
    is_close_code,
    parse_close,
    split_frames,
)
from tests.network.raw import smallest

MASK = b"\x37\xfa\x21\x3d"


def sent(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, mask: bytes | None = MASK) -> bytes:
    return encode_frame(opcode, payload, mask=mask, fin=fin, rsv1=rsv1)


def head(first: int, second: int, rest: bytes = b"") -> bytes:
    return bytes((first, second)) + rest


def verdict(messages: list[tuple[int, bytes]]) -> int | None:
    """The close code of the violation that ends the list; None if there is none."""
    return parse_close(messages[-1][1])[0] if messages and messages[-1][0] == FAILED else None


# --- what is valid -------------------------------------------------------------------------------------------------------------------


def test_reads_the_examples_of_the_rfc() -> None:
    # RFC 6455, section 5.7
    server, client = FrameReader(masked=True), FrameReader(masked=False)
    assert client.feed(bytes.fromhex("810548656c6c6f")) == [(TEXT, b"Hello")]
    assert server.feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [(TEXT, b"Hello")]
    assert client.feed(bytes.fromhex("010348656c80026c6f")) == [(TEXT, b"Hello")]
    assert client.feed(bytes.fromhex("890548656c6c6f")) == [(PING, b"Hello")]
    assert server.feed(bytes.fromhex("8a8537fa213d7f9f4d5158")) == [(PONG, b"Hello")]
    assert client.feed(bytes.fromhex("827e0100") + bytes(256)) == [(BINARY, bytes(256))]
    assert client.feed(bytes.fromhex("827f0000000000010000") + bytes(65536)) == [(BINARY, bytes(65536))]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 1000, 16383, 16384, 16385, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("masked", [True, False])
def test_every_length_form(size: int, opcode: int, masked: bool) -> None:
    payload = bytes(33 + at % 90 for at in range(size))
    frame = encode_frame(opcode, payload, mask=MASK if masked else None)
    reader = FrameReader(masked=masked)
    assert reader.feed(frame) == [(opcode, payload)]
    assert reader.feed(memoryview(frame + frame)) == [(opcode, payload)] * 2
    assert not reader.incomplete


def test_control_frames_between_fragments_come_first() -> None:
    reader = FrameReader()
    data = sent(TEXT, b"a", fin=False) + sent(PING, b"p") + sent(CONTINUATION, b"b", fin=False) + sent(PONG) + sent(CONTINUATION, b"c")
    assert reader.feed(data) == [(PING, b"p"), (PONG, b""), (TEXT, b"abc")]
    assert not reader.incomplete


def test_a_message_after_a_fragmented_one() -> None:
    reader = FrameReader()
    data = sent(BINARY, b"a", fin=False) + sent(CONTINUATION, b"b") + sent(TEXT, b"next one")
    assert reader.feed(data) == [(BINARY, b"ab"), (TEXT, b"next one")]
    assert reader.feed(sent(TEXT, b"later on")) == [(TEXT, b"later on")]


def test_a_character_may_be_cut_by_fragments() -> None:
    text = "κόσμε €𝄞".encode()
    for cut in range(len(text) + 1):
        assert FrameReader().feed(sent(TEXT, text[:cut], fin=False) + sent(CONTINUATION, text[cut:])) == [(TEXT, text)]
    single = [sent(TEXT, fin=False), *(sent(CONTINUATION, bytes((byte,)), fin=False) for byte in text), sent(CONTINUATION)]
    assert FrameReader().feed(b"".join(single)) == [(TEXT, text)]


def test_nothing_follows_a_close() -> None:
    # Section 5.5.1
    reader = FrameReader()
    assert reader.feed(sent(CLOSE, close_payload(1000, "bye")) + sent(PING) + sent(TEXT, b"too late")) == [(CLOSE, b"\x03\xe8bye")]
    assert reader.feed(sent(TEXT, b"too late") + b"\xff") == []
    assert not reader.incomplete


# --- what is a violation -------------------------------------------------------------------------------------------------------------

INVALID_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)

PROTOCOL = {
    "rsv1": head(0xC1, 0x80, MASK),
    "rsv2": head(0xA1, 0x80, MASK),
    "rsv3": head(0x91, 0x80, MASK),
    "rsv on a ping": head(0xC9, 0x80, MASK),
    "rsv on a large frame": head(0xC1, 0x80 | 126, b"\x10\x00" + MASK),
    **{f"opcode {opcode}": head(0x80 | opcode, 0x80, MASK) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": head(0x09, 0x80, MASK),
    "fragmented pong": head(0x0A, 0x80, MASK),
    "fragmented close": head(0x08, 0x80, MASK),
    "ping of 126": head(0x89, 0x80 | 126, b"\x00\x7e" + MASK),
    "close of 126": head(0x88, 0x80 | 126, b"\x00\x7e" + MASK),
    "pong with 64-bit length": head(0x8A, 0x80 | 127),
    "continuation of nothing": sent(CONTINUATION, b"x"),
    "unfinished continuation of nothing": sent(CONTINUATION, b"x", fin=False),
    "continuation after a whole message": sent(TEXT, b"a whole one") + sent(CONTINUATION, b"x"),
    "text inside a message": sent(TEXT, b"x", fin=False) + sent(TEXT, b"a whole one"),
    "binary inside a message": sent(TEXT, b"x", fin=False) + sent(BINARY, b"y", fin=False),
    "16-bit length of 125": head(0x82, 0x80 | 126, b"\x00\x7d" + MASK),
    "16-bit length of 125, whole": head(0x82, 0x80 | 126, b"\x00\x7d" + MASK + bytes(125)),
    "16-bit length of 0": head(0x81, 0x80 | 126, b"\x00\x00" + MASK),
    "64-bit length of 65535": head(0x82, 0x80 | 127, (65535).to_bytes(8, "big") + MASK),
    "64-bit length of 1": head(0x82, 0x80 | 127, (1).to_bytes(8, "big") + MASK),
    "length 2^63": head(0x82, 0x80 | 127, (1 << 63).to_bytes(8, "big") + MASK),
    "length 2^64-1": head(0x82, 0x80 | 127, b"\xff" * 8 + MASK),
    "not masked": sent(TEXT, b"longer than a head", mask=None),
    "not masked and empty": sent(TEXT, mask=None),
    "ping not masked": sent(PING, b"p", mask=None),
    "close of one byte": sent(CLOSE, b"\x03"),
    **{f"close {code}": sent(CLOSE, code.to_bytes(2, "big")) for code in INVALID_CODES},
}

CONTENT = {
    "text": sent(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
    "short text": sent(TEXT, b"\xff"),
    "large text": sent(TEXT, b"a" * 20000 + b"\xc3"),
    "cut character": sent(TEXT, b"hello wor\xe2\x82"),
    "cut character at the end of fragments": sent(TEXT, b"hello", fin=False) + sent(CONTINUATION, b"\xe2\x82"),
    "cut character and an empty last fragment": sent(TEXT, b"\xe2\x82", fin=False) + sent(CONTINUATION),
    "character cut by an ASCII fragment": sent(TEXT, b"\xe2\x82", fin=False) + sent(CONTINUATION, b"abc", fin=False),
    "beyond U+10FFFF": sent(TEXT, b"\xf4", fin=False) + sent(CONTINUATION, b"\x90", fin=False),
    "surrogate": sent(TEXT, b"\xed", fin=False) + sent(CONTINUATION, b"\xa0", fin=False),
    "overlong": sent(TEXT, b"\xc0", fin=False),
    "close reason": sent(CLOSE, b"\x03\xe8\xff"),
    "close reason cut": sent(CLOSE, b"\x03\xe8\xe2\x82"),
}

SIZE = {
    "65537 bytes": head(0x82, 0x80 | 127, (65537).to_bytes(8, "big")),
    "2^62 bytes": head(0x81, 0x80 | 127, (1 << 62).to_bytes(8, "big")),
    "2^63-1 bytes": head(0x81, 0x80 | 127, ((1 << 63) - 1).to_bytes(8, "big")),
    "fragments": sent(TEXT, b"a" * 65530, fin=False) + head(0x80, 0x80 | 7),
    "fragment after fragment": sent(TEXT, b"a" * 65530, fin=False) + sent(CONTINUATION, b"b" * 6, fin=False) + head(0x80, 0x80 | 1),
    "a fragment of 2^62 bytes": sent(TEXT, b"a", fin=False) + head(0x80, 0x80 | 127, (1 << 62).to_bytes(8, "big")),
    "257 fragments": sent(TEXT, b"a", fin=False) + sent(CONTINUATION, b"a", fin=False) * 255 + head(0x80, 0x80),
    "257 empty fragments": sent(TEXT, fin=False) + sent(CONTINUATION, fin=False) * 255 + head(0x00, 0x80),
}

TABLES = ((1002, PROTOCOL), (1007, CONTENT), (1009, SIZE))
CASES = [pytest.param(code, data, id=f"{code} {name}") for code, table in TABLES for name, data in table.items()]


@pytest.mark.parametrize(("code", "data"), CASES)
def test_a_violation_ends_everything(code: int, data: bytes) -> None:
    reader = FrameReader()
    messages = reader.feed(data)
    assert verdict(messages) == code
    assert len(messages[-1][1]) < 40
    assert [opcode for opcode, _ in messages].count(FAILED) == 1
    assert not reader.incomplete
    assert reader.feed(sent(TEXT, b"a good message")) == []
    assert reader.feed(data) == []


@pytest.mark.parametrize(("code", "data"), CASES)
def test_a_violation_byte_by_byte_after_good_messages(code: int, data: bytes) -> None:
    reader, messages = FrameReader(), []
    for byte in sent(TEXT, b"good") + data:
        messages += reader.feed(bytes((byte,)))
    assert messages[0] == (TEXT, b"good")
    assert verdict(messages) == code


def test_a_violation_comes_after_what_was_good() -> None:
    messages = FrameReader().feed(sent(TEXT, b"first one") + sent(PING) + sent(TEXT, b"\xff\xff\xff") + sent(TEXT, b"never"))
    assert [opcode for opcode, _ in messages] == [TEXT, PING, FAILED]


def test_a_server_does_not_mask() -> None:
    reader = FrameReader(masked=False)
    assert verdict(reader.feed(sent(TEXT, b"masked"))) == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_valid_close_codes(code: int) -> None:
    assert is_close_code(code)
    assert FrameReader().feed(sent(CLOSE, close_payload(code, "é"))) == [(CLOSE, code.to_bytes(2, "big") + "é".encode())]


def test_close_without_a_code() -> None:
    assert FrameReader().feed(sent(CLOSE)) == [(CLOSE, b"")]


def test_bad_text_fails_with_the_fragment_that_is_bad() -> None:
    reader = FrameReader()
    assert reader.feed(sent(TEXT, b"good", fin=False)) == []
    assert verdict(reader.feed(sent(CONTINUATION, b"\xf4\x90", fin=False))) == 1007


def test_limits_are_inclusive() -> None:
    assert FrameReader(max_message=5).feed(sent(TEXT, b"12345")) == [(TEXT, b"12345")]
    assert verdict(FrameReader(max_message=5).feed(sent(TEXT, b"123456"))) == 1009
    fragments = sent(TEXT, b"1", fin=False) + sent(CONTINUATION, fin=False) + sent(CONTINUATION, b"2")
    assert FrameReader(max_fragments=3).feed(fragments) == [(TEXT, b"12")]
    assert verdict(FrameReader(max_fragments=2).feed(fragments)) == 1009


def test_control_frames_are_no_fragments() -> None:
    reader = FrameReader(max_fragments=2)
    data = sent(TEXT, b"1", fin=False) + sent(PING) * 5 + sent(CONTINUATION, b"2")
    assert reader.feed(data)[-1] == (TEXT, b"12")


def test_no_limits() -> None:
    reader = FrameReader(max_message=None, max_fragments=None)
    assert reader.feed(sent(TEXT, b"a", fin=False) + sent(CONTINUATION, b"b" * 100, fin=False) * 1000) == []
    assert reader.feed(sent(CONTINUATION, b"c")) == [(TEXT, b"a" + b"b" * 100_000 + b"c")]
    assert reader.feed(sent(BINARY, bytes(1 << 20))) == [(BINARY, bytes(1 << 20))]


# --- compressed messages -------------------------------------------------------------------------------------------------------------


BOMB = smallest(bytes(20_000_000))


def test_compressed_messages() -> None:
    reader = FrameReader(inflater=Inflater())
    text = "tenant €".encode() * 100
    packed = compress(text)
    assert reader.feed(sent(TEXT, packed, rsv1=True)) == [(TEXT, text)]
    in_two = sent(BINARY, packed[:9], rsv1=True, fin=False) + sent(PING) + sent(CONTINUATION, packed[9:])
    assert reader.feed(in_two) == [(PING, b""), (BINARY, text)]
    assert reader.feed(sent(TEXT, b"not compressed")) == [(TEXT, b"not compressed")]
    assert reader.feed(sent(TEXT, compress(b""), rsv1=True)) == [(TEXT, b"")]


@pytest.mark.parametrize(
    ("code", "data"),
    [
        pytest.param(1002, sent(TEXT, b"a", rsv1=True, fin=False) + sent(CONTINUATION, b"b", rsv1=True), id="rsv1 on a continuation"),
        pytest.param(1002, sent(PING, b"", rsv1=True), id="rsv1 on a ping"),
        pytest.param(1002, sent(CLOSE, b"", rsv1=True), id="rsv1 on a close"),
        pytest.param(1002, head(0xE1, 0x80, MASK), id="rsv1 and rsv2"),
        pytest.param(1007, sent(TEXT, compress(b"\xff\xfe"), rsv1=True), id="not UTF-8"),
        pytest.param(1007, sent(TEXT, compress(b"\xe2\x82"), rsv1=True), id="cut character"),
        pytest.param(1007, sent(TEXT, compress(b"\xff\xfe"), rsv1=True, fin=False) + sent(CONTINUATION), id="not UTF-8, in fragments"),
        pytest.param(1007, sent(BINARY, b"\xff\xff\xff\xff", rsv1=True), id="not DEFLATE"),
        pytest.param(1009, sent(BINARY, compress(bytes(65537)), rsv1=True), id="too large when inflated"),
        pytest.param(1009, sent(BINARY, BOMB, rsv1=True), id="bomb"),
        pytest.param(1009, sent(BINARY, BOMB[:99], rsv1=True, fin=False) + sent(CONTINUATION, BOMB[99:]), id="bomb in fragments"),
    ],
)
def test_violations_with_compression(code: int, data: bytes) -> None:
    reader = FrameReader(inflater=Inflater())
    assert verdict(reader.feed(data)) == code
    assert reader.feed(data) == []


# --- memory --------------------------------------------------------------------------------------------------------------------------


def test_incomplete_tells_of_frames_and_of_messages() -> None:
    frame = sent(TEXT, b"hello world")
    reader = FrameReader()
    states = [reader.incomplete]
    for byte in frame:
        reader.feed(bytes((byte,)))
        states.append(reader.incomplete)
    assert states == [False, *[True] * (len(frame) - 1), False]
    states = []
    for data in (sent(TEXT, b"a", fin=False), sent(PING), sent(CONTINUATION, fin=False), sent(CONTINUATION), sent(PING)):
        reader.feed(data)
        states.append(reader.incomplete)
    assert states == [True, True, True, False, False]


def test_the_read_buffer_is_free_after_feed() -> None:
    buffer = bytearray(4096)
    reader = FrameReader()
    frame = sent(BINARY, b"0123456789abcdef")
    fragments = sent(TEXT, b"begin", fin=False), sent(CONTINUATION, b"end")
    for data in (frame, sent(PING, b"ping"), frame[:5], frame[5:], *fragments, b"\xff\xff"):
        buffer[: len(data)] = data
        part = memoryview(buffer)[: len(data)]
        messages = reader.feed(part)
        buffer[:] = b"?" * 4096
        assert all(b"?" not in payload for _, payload in messages)
        part.release()
        buffer.append(0)  # raises BufferError if anything still looks at the buffer
        del buffer[4096:]


def test_an_announced_length_allocates_nothing() -> None:
    announced = head(0x82, 0x80 | 127, (1 << 62).to_bytes(8, "big") + MASK)
    readers = [FrameReader(max_message=None) for _ in range(50)]
    refusing = [FrameReader() for _ in range(50)]
    tracemalloc.start()
    try:
        for reader in readers:
            assert reader.feed(announced + b"x" * 100) == []
            assert reader.incomplete
        for reader in refusing:
            assert verdict(reader.feed(announced[:10])) == 1009
        assert tracemalloc.get_traced_memory()[1] < 50 * 1000
    finally:
        tracemalloc.stop()


def test_an_idle_reader_is_small_and_keeps_nothing() -> None:
    reader = FrameReader()
    assert sys.getsizeof(reader) <= 160
    assert not hasattr(reader, "__dict__")
    cut = sent(TEXT, b"z" * 9000)
    feed = [sent(TEXT, b"x" * 60_000), sent(BINARY, b"y" * 30_000, fin=False), sent(CONTINUATION, b"y" * 30_000), cut[:8000], cut[8000:]]
    tracemalloc.start()
    try:
        for data in feed:
            reader.feed(data)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2000
    finally:
        tracemalloc.stop()


# --- properties ----------------------------------------------------------------------------------------------------------------------

texts = st.text(alphabet="ab\x00é€𝄞", max_size=200)  # one to four bytes each
masks = st.binary(min_size=4, max_size=4)
blobs = st.lists(st.binary(max_size=300) | st.just(b"w" * 70_000), min_size=1, max_size=4)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Bytes that a client may send, and what they mean."""
    data, expected = b"", []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.integers(0, 4))
        if kind == 0:
            opcode, payload = draw(controls)
            data += sent(opcode, payload, mask=draw(masks))
            expected.append((opcode, payload))
            continue
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(texts).encode() if opcode == TEXT else b"".join(draw(blobs))
        body = compress(payload) if kind == 1 else payload
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4))) if kind in (1, 2) else []
        edges = [0, *cuts, len(body)]
        for at, (begin, end) in enumerate(pairwise(edges)):
            if at and draw(st.booleans()):
                control = draw(controls)
                data += sent(*control, mask=draw(masks))
                expected.append(control)
            first, last = at == 0, at == len(edges) - 2
            data += sent(opcode if first else CONTINUATION, body[begin:end], fin=last, rsv1=first and kind == 1, mask=draw(masks))
        expected.append((opcode, payload))
    return data, expected


def read(data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    reader = FrameReader(max_message=None, inflater=Inflater())
    edges = [0, *sorted(cuts), len(data)]
    messages = [message for begin, end in pairwise(edges) for message in reader.feed(memoryview(data)[begin:end])]
    assert not reader.incomplete
    return messages


@given(conversations(), st.data())
def test_how_the_bytes_are_cut_does_not_matter(conversation: tuple[bytes, list[tuple[int, bytes]]], draw: st.DataObject) -> None:
    data, expected = conversation
    assert read(data, []) == expected
    assert read(data, draw.draw(st.lists(st.integers(0, len(data)), max_size=20))) == expected
    if len(data) < 3000:
        assert read(data, list(range(1, len(data)))) == expected


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans(), st.sampled_from([None, Inflater()]), st.sampled_from([None, 20]))
def test_random_bytes_never_raise(parts: list[bytes], masked: bool, inflater: Inflater | None, max_message: int | None) -> None:
    whole = FrameReader(masked=masked, max_message=max_message, inflater=inflater)
    cut = FrameReader(masked=masked, max_message=max_message, inflater=inflater)
    data = b"".join(parts)
    assert whole.feed(data) == [message for part in parts for message in cut.feed(part)]
    assert whole.incomplete == cut.incomplete


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40), st.booleans())
def test_any_head_never_raises(first: int, second: int, rest: bytes, open_message: bool) -> None:
    reader = FrameReader(max_message=100, inflater=Inflater())
    if open_message:
        reader.feed(sent(TEXT, b"a", fin=False))
    for opcode, payload in reader.feed(head(first, second, rest) * 3):
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG, FAILED)
        assert opcode == FAILED or len(payload) <= 125


# --- what we send --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (encode_frame(TEXT, b"Hello"), "810548656c6c6f"),
        (encode_frame(TEXT, b"Hello", mask=MASK), "818537fa213d7f9f4d5158"),
        (encode_frame(TEXT, b"Hel", fin=False), "010348656c"),
        (encode_frame(CONTINUATION, b"lo"), "80026c6f"),
        (encode_frame(PONG, b""), "8a00"),
        (encode_frame(TEXT, b"\xf2\x00", rsv1=True), "c102f200"),
        (encode_frame(BINARY, bytes(126))[:6], "827e007e0000"),
        (encode_frame(BINARY, bytes(65535))[:6], "827effff0000"),
        (encode_frame(BINARY, bytes(65536))[:11], "827f000000000001000000"),
        (encode_frame(BINARY, bytes(126), mask=MASK)[:9], "82fe007e37fa213d37"),
    ],
)
def test_encode_frame(frame: bytes, expected: str) -> None:
    assert frame.hex() == expected


def test_split_frames() -> None:
    wanted = [(TEXT, b"a", False), (BINARY, bytes(126), False), (TEXT, bytes(70_000), True), (PING, b"", False)]
    data = b"".join(encode_frame(opcode, payload, rsv1=rsv1) for opcode, payload, rsv1 in wanted)
    assert split_frames(data) == wanted
    assert split_frames(b"") == []
    for broken in (data[:-1], data[:1], data + b"\x81\x05abc", b"\x81\x7e\x00"):
        with pytest.raises(ValueError, match="ends inside"):
            split_frames(broken)


def test_close_payload() -> None:
    assert close_payload(1000) == b"\x03\xe8"
    assert close_payload(4008, "too slow") == b"\x0f\xa8too slow"
    assert parse_close(close_payload(4008, "too slow")) == (4008, "too slow")
    assert parse_close(b"") == (1005, "")
    assert close_payload(*parse_close(b"")) == b""
    for filler in ("a", "é", "€", "𝄞"):
        payload = close_payload(1001, "x" + filler * 200)
        assert 121 <= len(payload) <= 125
        assert payload[2:].decode() == "x" + filler * ((len(payload) - 3) // len(filler.encode()))
    assert close_payload(1001, "\ud800") == b"\x03\xe9?"


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000, 70_000, -1])
def test_a_code_that_is_never_sent(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        close_payload(code)


# --- after we have closed ------------------------------------------------------------------------------------------------------------


def test_skipped_data_costs_nothing_and_hides_no_close() -> None:
    class Counting(Inflater):
        __slots__ = ()

        def inflate(self, payload: bytes, max_length: int | None) -> bytes:
            raise AssertionError("skipped data is inflated")

    data = sent(TEXT, b"whole") + sent(BINARY, compress(b"x"), rsv1=True) + sent(TEXT, b"\xff") + sent(TEXT, b"a", fin=False)
    data += sent(PING, b"p") + sent(CONTINUATION, b"b") + sent(TEXT, b"next", fin=False) + sent(CONTINUATION) + sent(CLOSE)
    for size in (1, 7, len(data)):
        reader = FrameReader(inflater=Counting())
        assert reader.feed(sent(TEXT, b"begun before", fin=False)) == []
        reader.skip_data()
        rest = sent(CONTINUATION, b"ended after") + data
        found = [message for at in range(0, len(rest), size) for message in reader.feed(rest[at : at + size])]
        assert found == [(PING, b"p"), (CLOSE, b"")]
