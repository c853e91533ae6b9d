"""The short way of the frame codec: what it takes is what `feed` would have given, and what it does not take is untouched."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibos_realtime.protocol import frames
from aibos_realtime.protocol.deflate import Inflater
from aibos_realtime.protocol.frames import BINARY, CLOSE, CONTINUATION, FAILED, PING, TEXT, FrameReader, encode_frame, mask_by_integers

MASK = b"\x37\xfa\x21\x3d"


def sent(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    return encode_frame(opcode, payload, mask=MASK, fin=fin, rsv1=rsv1)


def wide(payload: bytes) -> bytes:
    """A frame whose length is given in two bytes, whether that is allowed or not."""
    return bytes((0x80 | TEXT, 0x80 | 126)) + len(payload).to_bytes(2, "big") + sent(TEXT, payload)[2:]


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 1000, 16_384, 65_535])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_one_whole_message_is_taken(size: int, opcode: int) -> None:
    payload = bytes(33 + at % 90 for at in range(size))
    reader = FrameReader(max_message=None)
    assert reader.take_whole(sent(opcode, payload)) == payload
    assert reader.feed(sent(opcode, payload)) == [(opcode, payload)]
    assert reader.take_whole(sent(opcode, payload)) == payload


def test_text_that_is_no_ascii_is_proven() -> None:
    assert FrameReader().take_whole(sent(TEXT, "Müller €".encode())) == "Müller €".encode()
    assert FrameReader().take_whole(sent(BINARY, b"\xff\xfe")) == b"\xff\xfe"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        sent(TEXT, b"abc")[:-1],
        sent(TEXT, b"abc") + b"\x81",
        sent(TEXT, b"abc") * 2,
        sent(TEXT, b"a" * 200)[:-1],
        sent(TEXT, b"a" * 200) + b"\x81",
        sent(TEXT, b"a" * 70_000),
        sent(TEXT, b"abc", fin=False),
        sent(TEXT, b"abc", rsv1=True),
        sent(CONTINUATION, b"abc"),
        sent(PING, b"abc"),
        sent(CLOSE, b"\x03\xe8"),
        sent(3, b"abc"),
        sent(TEXT, b"\xff"),
        sent(TEXT, b"\xed\xa0\x80"),
        encode_frame(TEXT, b"not masked"),
        encode_frame(TEXT, b"not masked" * 20),
        encode_frame(BINARY, b"a" * 200) + b"\x81\x00\x81\x00",  # as many bytes as a mask has
        wide(b"a" * 124),
        wide(b"a" * 125),
    ],
)
def test_everything_else_is_for_feed(data: bytes) -> None:
    asked, fresh = FrameReader(max_message=None), FrameReader(max_message=None)
    assert asked.take_whole(data) is None
    assert asked.feed(data) == fresh.feed(data) and asked.incomplete == fresh.incomplete


def test_a_message_over_the_limit_is_for_feed() -> None:
    for size in range(80, 100):
        reader = FrameReader(max_message=90)
        taken = reader.take_whole(sent(TEXT, b"a" * size))
        assert taken is None or size <= 90
        assert size > 82 or taken is not None
        assert (reader.feed(sent(TEXT, b"a" * size))[-1][0] == FAILED) is (size > 90)


def test_nothing_is_taken_while_something_is_unfinished() -> None:
    reader, message = FrameReader(), sent(TEXT, b"abc")
    assert reader.feed(message[:5]) == [] and reader.take_whole(message) is None
    assert reader.feed(message[5:]) == [(TEXT, b"abc")] and reader.take_whole(message) == b"abc"
    assert reader.feed(sent(TEXT, b"a", fin=False)) == [] and reader.take_whole(message) is None
    assert reader.feed(sent(CONTINUATION, b"b")) == [(TEXT, b"ab")] and reader.take_whole(message) == b"abc"


def test_nothing_is_taken_after_the_end() -> None:
    message = sent(TEXT, b"abc")
    closed, broken, skipping = FrameReader(), FrameReader(), FrameReader()
    closed.feed(sent(CLOSE))
    broken.feed(sent(3))
    skipping.skip_data()
    assert [reader.take_whole(message) for reader in (closed, broken, skipping)] == [None] * 3
    assert [reader.feed(message) for reader in (closed, broken, skipping)] == [[]] * 3
    assert skipping.take_whole(message) is None, "still skipping"


def test_a_client_takes_nothing_so() -> None:
    reader = FrameReader(masked=False)
    assert reader.take_whole(encode_frame(TEXT, b"abc")) is None and reader.take_whole(sent(TEXT, b"abc")) is None


chunks = st.one_of(
    st.binary(max_size=300),
    st.builds(sent, st.sampled_from([TEXT, BINARY, CONTINUATION, PING, 3]), st.binary(max_size=300) | st.text().map(str.encode), fin=st.booleans()),
    st.tuples(st.binary(min_size=2, max_size=4), st.binary(max_size=300)).map(b"".join),
)


@given(st.lists(chunks, max_size=6), st.booleans(), st.sampled_from([None, 20, 150]))
@example([sent(TEXT, b"a"), sent(TEXT, b"\xff"), sent(TEXT, b"b")], False, None)
def test_the_two_ways_agree(chunks: list[bytes], with_deflate: bool, max_message: int | None) -> None:
    short = FrameReader(max_message=max_message, inflater=Inflater() if with_deflate else None)
    long = FrameReader(max_message=max_message, inflater=Inflater() if with_deflate else None)
    for data in chunks:
        payload = short.take_whole(data)
        messages = short.feed(data) if payload is None else [(data[0] & 15, payload)]
        assert messages == long.feed(data) and short.incomplete == long.incomplete


@given(st.binary(max_size=300) | st.sampled_from([16_383, 16_384, 40_001]).map(bytes), st.binary(min_size=4, max_size=4))
def test_unmasking_is_the_same_without_the_compiled_part(payload: bytes, mask: bytes) -> None:
    assert mask_by_integers(payload, mask) == frames.apply_mask(payload, mask) == mask_by_integers(memoryview(payload), bytearray(mask))


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_frames_are_read_without_the_compiled_part(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sent(TEXT, b"a" * size)
    monkeypatch.setattr(frames, "apply_mask", mask_by_integers)
    reader = FrameReader(max_message=None)
    assert reader.take_whole(data) in (b"a" * size, None) and reader.feed(data * 2) == [(TEXT, b"a" * size)] * 2
