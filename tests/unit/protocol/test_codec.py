"""The same messages and the same checks in JSON and in MessagePack."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.errors import ProtocolError
from aibos_realtime.protocol.codec import MALFORMED, Answer, Codec, Encoding, JsonCodec, MsgpackCodec, RoomFrame, decode_json, encode_json
from aibos_realtime.protocol.frames import split_frames

JSON, MSGPACK = JsonCodec(), MsgpackCodec()
CODECS: list[Codec] = [JSON, MSGPACK]


def write(codec: Codec, message: Any) -> bytes:
    return json.dumps(message).encode() if codec is JSON else msgspec.msgpack.encode(message)


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
def test_a_message(codec: Codec) -> None:
    message = codec.decode(write(codec, {"event": "note", "room": "a", "ref": "r", "id": "i", "data": {"x": [1, "é"]}, "new": {"y": 1}}))
    assert (message.event, message.room, message.ref, message.id) == ("note", "a", "r", "i")
    assert codec.value(message.data) == {"x": [1, "é"]} and json.loads(codec.to_json(message.data)) == {"x": [1, "é"]}
    bare = codec.decode(write(codec, {"event": "note"}))
    assert codec.value(bare.data) is None and codec.to_json(bare.data) == b"null" and (bare.room, bare.ref, bare.id) == (None, None, None)


BAD: list[Any] = [None, 5, "x", [], {}, {"event": 5}, {"event": ""}, {"event": "a b"}, {"event": "x" * 129}, {"event": "x", "room": ""}]
BAD += [
    {"event": "x", "room": 5},
    {"event": "x", "ref": 1.5},
    {"event": "x", "ref": True},
    {"event": "x", "ref": ""},
    {"event": "x", "ref": "r" * 65},
]
BAD += [
    {"event": "x", "ref": 2**53 + 1},
    {"event": "x", "ref": "a\n"},
    {"event": "x", "ref": []},
    {"event": "x", "id": ""},
    {"event": "x", "id": "i" * 129},
]
BAD += [{"event": "x", "id": 5}, {"event": "x", "id": "\0"}]


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
def test_envelopes_that_are_refused(codec: Codec, message: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(write(codec, message))
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
@pytest.mark.parametrize("wrong", [{"event": "a b"}, {"room": "a b"}, {"id": "\n"}, {"ref": -(2**53) - 1}, {"ref": "\n"}])
def test_one_wrong_member_beside_good_ones_is_refused(codec: Codec, wrong: dict[str, Any]) -> None:
    good = {"event": "known", "ref": 7}
    codec.decode(write(codec, good))
    with pytest.raises(ProtocolError):
        codec.decode(write(codec, good | wrong))


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
def test_the_ref_of_what_was_refused(codec: Codec) -> None:
    for message, ref in (({"event": "a b", "ref": 7}, 7), ({"event": 5, "ref": "r"}, "r"), ({"event": "x", "ref": True}, None), ([7], None)):
        assert codec.ref_of(write(codec, message)) == ref
    assert codec.ref_of(b"\xc1 nonsense") is None


def nested(levels: int) -> Any:
    return 1 if levels == 0 else [nested(levels - 1)]


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
@pytest.mark.parametrize("data", ["a\0", {"\0": 1}, 2**53 + 1, nested(33)], ids=["nul", "nul in a key", "integer", "depth"])
def test_data_that_is_refused(codec: Codec, data: Any) -> None:
    message = codec.decode(write(codec, {"event": "x", "data": data}))
    for read in (codec.value, codec.to_json):
        with pytest.raises(ProtocolError):
            read(message.data)


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
@pytest.mark.parametrize("data", [2**53, -(2**53), nested(32), "😀", 1.5, [], {}, None, "\x7f"], ids=range(9))
def test_data_at_the_limits(codec: Codec, data: Any) -> None:
    message = codec.decode(write(codec, {"event": "x", "data": data}))
    assert codec.value(message.data) == data == json.loads(codec.to_json(message.data))


TEXTS = [
    b'"\x00"',
    b'"\n"',
    b'"\\q"',
    b"01",
    b"1.",
    b"NaN",
    b"+1",
    b"[1,]",
    b'"\\ud800"',
    b"1e400",
    b"\xff",
    b"[" * 100_000,
    b"'a'",
    b"{1:2}",
]


@pytest.mark.parametrize("data", TEXTS, ids=range(len(TEXTS)))
def test_json_that_is_none_gets_to_nobody(data: bytes) -> None:
    """Refused as a message or as data: never handed on as it came."""
    try:
        message = JSON.decode(b'{"event":"x","data":' + data + b"}")
    except ProtocolError:
        return
    with pytest.raises(ProtocolError):
        json.loads(JSON.to_json(message.data).decode())
        JSON.value(message.data)


PACKED = {
    "binary": b"\xc4\x01a", "extension": b"\xd4\x01a", "timestamp": b"\xd6\xff\0\0\0\0", "not a number": b"\xcb\x7f\xf8\0\0\0\0\0\0",
    "no utf-8": b"\xa1\xff", "a map as a key": b"\x81\x80\x01", "a list as a key": b"\x81\x90\x01", "a number as a key": b"\x81\x01\x02",
    "nothing as a key": b"\x81\xc0\x02", "yes as a key": b"\x81\xc3\x01", "huge": b"\xcf" + b"\xff" * 8,
}  # fmt: skip


@pytest.mark.parametrize("data", PACKED.values(), ids=PACKED.keys())
def test_messagepack_that_json_cannot_express_is_refused_for_handlers_and_rooms_alike(data: bytes) -> None:
    message = MSGPACK.decode(b"\x82\xa5event\xa1x\xa4data" + data)
    for read in (MSGPACK.value, MSGPACK.to_json):
        with pytest.raises(ProtocolError):
            read(message.data)


@pytest.mark.parametrize("codec", CODECS, ids=["json", "msgpack"])
@given(st.binary(max_size=60), st.data())
def test_any_bytes_are_a_message_or_a_protocol_error(codec: Codec, noise: bytes, data: st.DataObject) -> None:
    whole = write(codec, {"event": "note", "data": {"a": [1, "b"]}, "ref": 5, "room": "r"})
    at = data.draw(st.integers(0, len(whole)))
    for payload in (noise, whole[:at], whole[:at] + noise, whole[:at] + noise + whole[at + len(noise) :]):
        if codec is JSON and payload.decode(errors="replace").encode() != payload:
            continue  # a text frame is proven UTF-8 before it comes here
        try:
            message = codec.decode(payload)
            json.loads(codec.to_json(message.data))
            codec.value(message.data)
        except ProtocolError:
            codec.ref_of(payload)


class Model(pydantic.BaseModel):
    invoice_id: str = pydantic.Field(alias="invoiceId")


@dataclass
class Data:
    amount: int


def test_what_the_servers_own_code_may_send() -> None:
    assert encode_json({"m": Model(invoiceId="i"), "d": Data(5), "s": {1}}) == b'{"m":{"invoiceId":"i"},"d":{"amount":5},"s":[1]}'
    with pytest.raises(TypeError, match="object cannot be sent"):
        encode_json(object())


def test_frames_for_one_and_for_a_room() -> None:
    frame = Encoding(JSON).frame(Answer("ack", 5, {"a": 1}))
    assert split_frames(frame) == [(1, b'{"event":"ack","ref":5,"data":{"a":1}}', False)]
    event = RoomFrame("note", "a", 3, "i", JSON.from_json(b'{"x":1}'), "ann", "t")
    assert split_frames(Encoding(JSON).frame(event))[0][1] == (
        b'{"event":"note","room":"a","offset":3,"id":"i","data":{"x":1},"userId":"ann","timestamp":"t"}'
    )
    ((opcode, payload, _),) = split_frames(Encoding(MSGPACK).frame(RoomFrame("note", "a", data=MSGPACK.from_json(b'{"x":1}'))))
    assert opcode == 2 and msgspec.msgpack.decode(payload) == {"event": "note", "room": "a", "data": {"x": 1}}


def test_large_frames_are_deflated_where_that_was_agreed() -> None:
    encoding = Encoding(JSON, window_bits=15, deflate_threshold=100)
    assert split_frames(encoding.frame(Answer("a", data="x" * 50)))[0][2] is False
    assert split_frames(encoding.frame(Answer("a", data="x" * 500)))[0][2] is True and len(encoding.frame(Answer("a", data="x" * 500))) < 100


def test_numbers_at_the_ends_of_what_a_float_holds() -> None:
    """One user who was not even authenticated sent 64 KiB of `1e308`, as often as he might: each time the server stood still for 95 ms."""
    text = b"[1e308,-1.7976931348623157e308,5e-324,2.2250738585072011e-308,1e-400,0.5,7]"
    wanted = [1e308, -1.7976931348623157e308, 5e-324, 2.2250738585072011e-308, 0.0, 0.5, 7]
    assert JsonCodec().value(msgspec.Raw(text)) == decode_json(text) == wanted and JsonCodec().to_json(msgspec.Raw(text)) == text
    for wrong in (b"1e309", b"[-1e400]", b'{"a":1e999999}'):
        with pytest.raises(MALFORMED):
            decode_json(wrong)
        with pytest.raises(ProtocolError):
            JsonCodec().value(msgspec.Raw(wrong))


@pytest.mark.parametrize(
    ("member", "ref"),
    [('"a"', "a"), ("5", 5), ('"' + "\\ud83d\\ude00" * 64 + '"', "😀" * 64), ("[1e308]", None), ("1e3", None), ('"' + "a" * 999 + '"', None)],
)
def test_of_a_message_that_is_none_only_the_ref_is_read(member: str, ref: object) -> None:
    message = f'{{"event":5,"data":[1e308,1e400],"ref":{member}}}'.encode()
    with pytest.raises(ProtocolError):
        JsonCodec().decode(message)
    assert JsonCodec().ref_of(message) == ref
