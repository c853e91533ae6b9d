"""Targets of the wire: WebSocket frames, permessage-deflate, and the messages in both codecs, each beside a second opinion."""

from __future__ import annotations

import json
import random
import zlib
from itertools import pairwise, product
from typing import Any

import msgspec
from msgspec import UNSET

from aibos_realtime.errors import MessageTooLarge, ProtocolError
from aibos_realtime.protocol import deflate
from aibos_realtime.protocol.codec import Codec, JsonCodec, MsgpackCodec, RoomFrame
from aibos_realtime.protocol.frames import BINARY, CLOSE, CONTINUATION, FAILED, PING, PONG, TEXT, FrameReader, encode_frame, parse_close

from .oracle import check, depth_of, is_plain, read_strictly
from .source import Source

Messages = list[tuple[int, bytes]]

_OPCODES = (TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, 3, 11)
_CONTENT = ("", "a", "é", "€", "😀", "a" * 125, "b" * 126, "é" * 500)


def frames(data: bytes) -> None:
    """Bytes of a peer: any cut gives the same messages, those of the RFC read word by word; nothing is kept for what is only announced."""
    source = Source(data)
    masked, is_structured, has_deflate = source.flag(), source.flag(), source.flag()
    most, fragments = source.pick((65536, 0, 1, 125, 126, 1000)), source.pick((256, 1, 2))
    seed, cuts = source.number(2), source.byte() % 8
    sent = _stream(source, masked, has_deflate) if is_structured else source.rest()

    def reader() -> FrameReader:
        return FrameReader(masked=masked, max_message=most, max_fragments=fragments, inflater=deflate.Inflater() if has_deflate else None)

    whole = reader().feed(sent)
    wanted = _read_by_the_book(sent, masked, most, fragments, has_deflate)
    check(_without_reasons(whole) == wanted, f"read as {whole}, which should be {wanted}")
    places = sorted(random.Random(seed).choices(range(len(sent) + 1), k=cuts)) if cuts else range(1, len(sent))
    one, found = reader(), []
    for begin, end in pairwise([0, *places, len(sent)]):
        found += one.feed(sent[begin:end])
        check(len(one._tail or b"") <= end, "more is kept than came")
    check(found == whole, f"cut at {list(places)[:10]} it reads as {found}, else as {whole}")
    check(one.feed(b"\x81\x80abcd") == [] or not (whole and whole[-1][0] in (FAILED, CLOSE)), "read on after the end")
    two = reader()
    if (payload := two.take_whole(sent)) is not None:
        check(whole == [(sent[0] & 15, payload)], f"taken whole as {payload!r}, else read as {whole}")


def _stream(source: Source, masked: bool, has_deflate: bool) -> bytes:
    """Frames, most of which are right."""
    made = bytearray()
    while not source.is_empty and len(made) < 20_000:
        shape = source.byte()
        if shape == 255:
            made += source.take(8)
            continue
        opcode, rsv1 = source.pick(_OPCODES), has_deflate and shape & 64 != 0
        payload = source.pick(_CONTENT).encode() if shape & 2 else source.take(source.byte() % 40)
        if opcode == CLOSE and shape & 4:
            payload = source.pick((1000, 1001, 4501, 999, 1005, 5000, 1004, 1015, 2000, 2999, 3000)).to_bytes(2, "big") + payload[:60]
        if rsv1:
            payload = deflate.compress(payload)
        mask = source.take(4).ljust(4, b"\0") if masked is (shape & 56 != 56) else None
        frame = encode_frame(opcode, payload, mask=mask, rsv1=rsv1, fin=shape & 128 == 0)
        made += frame if shape & 57 != 57 else frame[:-1]
    return bytes(made)


def _without_reasons(messages: Messages) -> list[tuple[int, bytes | int]]:
    return [(opcode, parse_close(payload)[0] if opcode == FAILED else payload) for opcode, payload in messages]


class _Fault(Exception):
    """The close code of a violation."""


def _read_by_the_book(sent: bytes, masked: bool, most: int, fragments: int, has_deflate: bool) -> list[tuple[int, bytes | int]]:
    """RFC 6455, section 5, and 7692, section 7.2.2, in the plainest way: all bytes at once, one after the other."""
    found: list[tuple[int, bytes | int]] = []
    message: list[Any] | None = None  # opcode, compressed, parts
    at = 0
    try:
        while len(sent) - at >= 2:
            first, second = sent[at], sent[at + 1]
            opcode, final, rsv = first & 15, first >> 7, first >> 4 & 7
            _check(not rsv or (rsv == 4 and has_deflate and opcode in (TEXT, BINARY)), 1002)
            _check(opcode in (0, 1, 2, 8, 9, 10), 1002)
            _check(opcode < 8 or (final and second & 127 <= 125), 1002)
            _check(opcode != 0 or message is not None, 1002)
            _check(opcode not in (1, 2) or message is None, 1002)
            _check((second >> 7 == 1) is masked, 1002)
            wide = {126: 2, 127: 8}.get(second & 127, 0)
            begin = at + 2 + wide
            if len(sent) < begin:
                break
            length = int.from_bytes(sent[at + 2 : begin], "big") if wide else second & 127
            _check(not wide or (length >= (126 if wide == 2 else 65536) and length < 2**63), 1002)
            if opcode < 8:
                parts = message[2] if message else []
                _check(len(parts) < fragments and sum(map(len, parts)) + length <= most, 1009)
            mask = sent[begin : begin + 4] if masked else b"\0\0\0\0"
            begin += 4 if masked else 0
            if len(sent) < begin + length:
                break
            payload = bytes(byte ^ mask[number % 4] for number, byte in enumerate(sent[begin : begin + length]))
            at = begin + length
            if opcode >= 8:
                if opcode == CLOSE:
                    _check(len(payload) != 1 and (not payload or _is_code(int.from_bytes(payload[:2], "big"))), 1002)
                    _check(_begins_text(payload[2:], True), 1007)
                found.append((opcode, payload))
                if opcode == CLOSE:
                    return found
                continue
            message = message or [opcode, rsv == 4, []]
            message[2].append(payload)
            joined = b"".join(message[2])
            if message[0] == TEXT and not message[1]:
                _check(_begins_text(joined, bool(final)), 1007)
            if final:
                if message[1]:
                    joined = _inflate_by_the_book(joined, most)
                    _check(message[0] != TEXT or _begins_text(joined, True), 1007)
                found.append((message[0], joined))
                message = None
    except _Fault as fault:
        found.append((FAILED, fault.args[0]))
    return found


def _check(holds: object, code: int) -> None:
    if not holds:
        raise _Fault(code)


def _is_code(code: int) -> bool:
    return code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014) or 3000 <= code < 5000


def _begins_text(data: bytes, is_all: bool) -> bool:
    """Whether it is UTF-8, or can be continued to be."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        rest = data[error.start :]
        if is_all or len(rest) > 3:
            return False
        return any(
            _begins_text(rest + bytes(more), True) for size in (1, 2, 3) for more in product((0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF), repeat=size)
        )
    return True


def _inflate_by_the_book(payload: bytes, most: int) -> bytes:
    """With a limit that is never near: what comes out may be at most `most`."""
    try:
        message = deflate.Inflater().inflate(payload, 10_000_000)
    except MessageTooLarge:
        raise _Fault(1009) from None
    except ProtocolError:
        try:
            deflate.Inflater().inflate(payload, most)
        except MessageTooLarge:  # it is too large before it is wrong
            raise _Fault(1009) from None
        except ProtocolError:
            pass
        raise _Fault(1007) from None
    _check(len(message) <= most, 1009)
    return message


def inflate(data: bytes) -> None:
    """Compressed messages: never more out than may be, the same under any limit, and what we compress anybody can inflate."""
    source = Source(data)
    limit, bits, is_ours = source.pick((0, 1, 100, 5000, 65536)), source.pick((15, 14, 11, 9)), source.flag()
    payload = source.rest() * (1 + source.byte() % 2)
    if is_ours:
        compressed = deflate.compress(payload, bits)
        check(zlib.decompressobj(wbits=-bits).decompress(compressed + b"\0\0\xff\xff") == payload, "another inflater reads something else")
        check(deflate.Inflater().inflate(compressed, None) == payload, "it does not come back as it went")
        payload = compressed
    outcomes: list[bytes | None] = []
    for most in (limit, limit + 1, None):
        try:
            outcomes.append(deflate.Inflater().inflate(payload, most))
            check(most is None or len(outcomes[-1] or b"") <= most, "more came out than may")
        except MessageTooLarge:
            check(most is not None, "too large without a limit")
            outcomes.append(None)
        except ProtocolError:
            return
    full = outcomes[-1] or b""
    check(outcomes[0] == (full if len(full) <= limit else None) and outcomes[1] == (full if len(full) <= limit + 1 else None), "a limit changes it")


def offers(data: bytes) -> None:
    """Sec-WebSocket-Extensions: an answer that was offered, or none, or 400."""
    header = data.decode("latin-1")
    try:
        agreed = deflate.negotiate(header, max_message=1000)
    except ProtocolError:
        return
    if agreed is None:
        return
    check(8 < agreed.window_bits <= 15 and deflate.EXTENSION in header.lower(), "agreed to what nobody offered")
    _, *parameters = agreed.response.split("; ")
    for parameter in parameters:
        name = parameter.partition("=")[0]
        check(name.endswith("no_context_takeover") or name in header, f"answers with {parameter}, which was not offered")


_JSON, _MSGPACK = JsonCodec(), MsgpackCodec()
_MEMBERS = ("event", "data", "room", "ref", "id", "x")


def json_message(data: bytes) -> None:
    """A client's text frame: one of the protocol, by another reader too, or `ProtocolError`; data that is passed on as it came is plain JSON."""
    source = Source(data)
    if source.flag():
        text = source.rest().decode(errors="replace").encode()
    else:
        members = [f"{json.dumps(source.pick(_MEMBERS))}:{source.json()}" for _ in range(source.byte() % 6)]
        text = ('{"event":' + source.pick(('"note"', '"join-room"', source.json(1))) + "".join("," + member for member in members) + "}").encode(
            errors="replace"
        )
    _check_message(_JSON, text)


def msgpack_message(data: bytes) -> None:
    """The same in a binary frame."""
    source = Source(data)
    if source.flag():
        packed = source.rest()
    else:
        message = {"event": source.pick(("note", "history", source.text()))} | {
            source.pick(_MEMBERS): source.value() for _ in range(source.byte() % 6)
        }
        packed = msgspec.msgpack.encode(message)
        packed = packed[: source.number(2)] if source.byte() > 200 else packed
    _check_message(_MSGPACK, packed)


def _check_message(codec: Codec, payload: bytes) -> None:
    try:
        message = codec.decode(payload)
    except ProtocolError as error:
        check(len(str(error)) < 300 and "Traceback" not in str(error), "an error that tells too much")
        ref = codec.ref_of(payload)
        check(ref is None or (isinstance(ref, str) and 0 < len(ref) <= 64) or (isinstance(ref, int) and abs(ref) <= 2**53), "an odd ref")
        return
    if codec is _JSON:
        check(codec.ref_of(payload) in (message.ref, None), "the ref is another one")
    texts = (message.event, message.room, message.id, message.ref)
    check(all(is_plain(text) for text in texts) and is_plain([message.event, message.room]), "an envelope that cannot go everywhere")
    check(codec.decode(codec.encode(message)) == message, "it does not come back as it went")
    if isinstance(codec, JsonCodec) and message.data is not UNSET:
        try:
            whole = read_strictly(payload)
        except (ValueError, RecursionError):
            whole = None
        if whole is not None and isinstance(whole, dict):
            check(whole["event"] == message.event and whole.get("room") == message.room, "another reader reads something else")
    _check_data(codec, message.data)


def _check_data(codec: Codec, data: Any) -> None:
    try:
        value = codec.value(data)
    except ProtocolError:
        value = ProtocolError
    try:
        text = codec.to_json(data)
    except ProtocolError:
        check(value is ProtocolError, "good as a value, and not as text")
        return
    check(value is not ProtocolError, "good as text, and not as a value")
    read = read_strictly(text)
    check(is_plain(read) and depth_of(read) <= 32, "data that cannot go everywhere")
    check(json.dumps(read) == json.dumps(value), f"the text says {read!r}, the value is {value!r}")
    for other in (_JSON, _MSGPACK):
        frame = other.encode(RoomFrame("note", "lobby", 1, "x", other.from_json(text), "ann", "t"))
        shown = read_strictly(frame) if other is _JSON else msgspec.msgpack.decode(frame)
        check(json.dumps(shown["data"]) == json.dumps(read), "a member gets something else")
