from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from msgspec import UNSET
from pydantic import BaseModel

from aibos_realtime.client.wire import JsonWire, MsgpackWire, Wire, make_wire, repack
from aibos_realtime.errors import ProtocolError, ValidationError
from aibos_realtime.protocol.messages import ServerMessage


class Invoice(BaseModel):
    id: str


@dataclass
class Bill:
    id: str


class Payment(msgspec.Struct):
    id: str


@pytest.mark.parametrize("wire", [JsonWire(), MsgpackWire()])
@pytest.mark.parametrize("data", [{"id": "inv_001"}, Invoice(id="inv_001"), Bill("inv_001"), Payment("inv_001")])
def test_data_of_all_kinds(wire: Wire, data: Any) -> None:
    packed = wire.pack(data)
    assert isinstance(packed, msgspec.Raw)
    assert wire.unpack(packed) == {"id": "inv_001"}


@pytest.mark.parametrize("wire", [JsonWire(), MsgpackWire()])
def test_nothing_is_left_out(wire: Wire) -> None:
    assert wire.pack(None) is UNSET
    assert wire.pack(False) is not UNSET


@pytest.mark.parametrize("wire", [JsonWire(), MsgpackWire()])
@pytest.mark.parametrize("data", [object(), "\ud800", {"secret": object()}, 1j])
def test_what_cannot_be_sent_is_not_quoted(wire: Wire, data: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        wire.pack(data)
    assert "secret" not in str(caught.value)


def test_data_is_what_it_was_when_it_was_packed() -> None:
    wire, data = JsonWire(), {"n": 1}
    packed = wire.pack(data)
    data["n"] = 2
    assert json.loads(wire.encode({"event": "tick", "data": packed})) == {"event": "tick", "data": {"n": 1}}


def test_messages_of_the_server() -> None:
    text = '{"event": "tick", "room": "r", "offset": 3, "userId": "u", "of": "tomorrow", "data": [1]}'
    message = ServerMessage("tick", [1], room="r", offset=3, user_id="u")
    assert JsonWire().decode(text) == message
    assert MsgpackWire().decode(msgspec.msgpack.encode(json.loads(text))) == message


@pytest.mark.parametrize("payload", ["", "[]", "{}", "nonsense", '{"event": 5}', '{"event": "a", "offset": "b"}', "[" * 100_000, b"{}"])
def test_what_is_not_of_the_protocol(payload: Any) -> None:
    with pytest.raises(ProtocolError):
        JsonWire().decode(payload)


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", b"\x91" * 100_000, "{}"])
def test_what_is_not_of_the_protocol_in_messagepack(payload: Any) -> None:
    with pytest.raises(ProtocolError):
        MsgpackWire().decode(payload)


def test_a_server_that_takes_only_json_gets_it() -> None:
    preferred, json_wire = make_wire("msgpack"), make_wire("json")
    frame = {"event": "tick", "data": preferred.pack({"n": 1}), "ref": 1}
    assert json.loads(json_wire.encode(repack(frame, preferred, json_wire))) == {"event": "tick", "data": {"n": 1}, "ref": 1}
    assert repack(frame, preferred, preferred) is frame
    assert repack({"event": "a", "data": {"roomId": "r"}}, preferred, json_wire) == {"event": "a", "data": {"roomId": "r"}}
