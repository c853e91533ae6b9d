"""The short way of the frame codec: what it takes is what `feed` would have given, and what it does not take is untouched."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibos_realtime.protocol import frames
from aibos_realtime.protocol.deflate import Inflater, compress
from aibos_realtime.protocol.frames import BINARY, CLOSE, CONTINUATION, FAILED, LARGE, PING, TEXT, TURN, FrameReader, encode_frame
from aibos_realtime.protocol.masking import mask_by_integers

MASK = b"\x37\xfa\x21\x3d"


def sent(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    return encode_frame(opcode, payload, mask=MASK, fin=fin, rsv1=rsv1)


def wide(payload: bytes) -> bytes:
    """A frame whose length is given in two bytes, whether that is allowed or not."""
    return bytes((0x80 | TEXT, 0x80 | 126)) + len(payload).to_bytes(2, "big") + sent(TEXT, payload)[2:]


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 1000, LARGE - 8])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_one_whole_message_is_taken(size: int, opcode: int) -> None:
    payload = bytes(33 + at % 90 for at in range(size))
    reader = FrameReader(max_message=None)
    assert reader.take_whole(sent(opcode, payload)) == payload
    assert reader.feed(sent(opcode, payload)) == [(opcode, payload)]
    assert reader.take_whole(sent(opcode, payload)) == payload


def test_a_large_one_is_left_to_turns() -> None:
    reader, large = FrameReader(max_message=None), sent(TEXT, b"x" * (LARGE - 7))
    assert reader.take_whole(large) is None
    assert reader.feed(large) == [(TEXT, b"x" * (LARGE - 7))]
    assert reader.take_whole(large) is None


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


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_frames_are_read_without_the_compiled_part(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sent(TEXT, b"a" * size)
    monkeypatch.setattr(frames, "apply_mask", mask_by_integers)
    reader = FrameReader(max_message=None)
    assert reader.take_whole(data) in (b"a" * size, None) and reader.feed(data * 2) == [(TEXT, b"a" * size)] * 2


def in_turns(reader: FrameReader, data: bytes) -> list[list[tuple[int, bytes]]]:
    """What each turn finds."""
    turns = [reader.feed(data, TURN)]
    while reader.has_more:
        turns.append(reader.feed(b"", TURN))
    return turns


@pytest.mark.parametrize("what", [sent(PING), sent(TEXT, b"a"), sent(TEXT)], ids=["control", "message", "empty"])
def test_nobody_has_more_frames_looked_at_in_a_turn_than_others(what: bytes) -> None:
    """One peer sent 43,000 empty messages in one segment, and all others waited 40 ms until each had been looked at."""
    reader = FrameReader()
    assert [len(found) for found in in_turns(reader, what * 1000 + what[:3])] == [256, 256, 256, 232]
    assert reader.incomplete
    assert len(reader.feed(what[3:])) == 1


def test_nobody_has_more_inflated_in_a_turn_than_a_few_messages() -> None:
    """256 KiB of small bombs held the loop for 180 ms, and all that they inflated to was there at once."""
    bomb, reader = sent(TEXT, compress(b"0" * 60_000), rsv1=True), FrameReader(inflater=Inflater())
    turns = in_turns(reader, bomb * 100)
    assert sum(map(len, turns)) == 100
    assert {sum(len(payload) for _, payload in found) for found in turns[:-1]} == {300_000}


def test_what_waits_for_its_turn_is_not_incomplete() -> None:
    reader = FrameReader()
    reader.feed(sent(PING) * 257, TURN)
    assert (reader.has_more, reader.incomplete) == (True, False)
    reader.feed(sent(PING), TURN)
    assert (reader.has_more, reader.incomplete) == (False, False)


@given(st.lists(st.sampled_from([sent(PING), sent(TEXT, b"a"), sent(TEXT, compress(b"0" * 60_000), rsv1=True), sent(TEXT, b"b", fin=False)])))
def test_turns_leave_nothing_out(parts: list[bytes]) -> None:
    data = b"".join(parts * 30)
    whole, reader = FrameReader(inflater=Inflater()), FrameReader(inflater=Inflater())
    assert [message for found in in_turns(reader, data) for message in found] == whole.feed(data) and reader.incomplete == whole.incomplete
