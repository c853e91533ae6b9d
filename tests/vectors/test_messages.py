"""`messages.json`: the server's codec reads what clients send, the client's what servers send, in both forms, and each refuses the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from aibos_realtime.client.wire import JsonWire, MsgpackWire, Wire
from aibos_realtime.errors import ProtocolError
from aibos_realtime.protocol.codec import Answer, Codec, JsonCodec, MsgpackCodec, RoomFrame
from aibos_realtime.protocol.messages import ClientMessage, ServerMessage
from tests.vectors.files import Vector, json_bytes, load, msgpack_bytes, name_of

FORMS: list[tuple[Codec, Wire, Any]] = [(JsonCodec(), JsonWire(), json_bytes), (MsgpackCodec(), MsgpackWire(), msgpack_bytes)]


def plain(message: ClientMessage, codec: Codec) -> dict[str, Any]:
    """A client's message as the vectors write it: what is not there is left out."""
    found = {"event": message.event, "room": message.room, "ref": message.ref, "id": message.id}
    members = {name: value for name, value in found.items() if value is not None}
    return members if message.data is UNSET else members | {"data": codec.value(message.data)}


def read(codec: Codec, payload: bytes) -> ClientMessage:
    """As the server does with a publish: the envelope, then the data, both as a value and as what goes into the log."""
    message = codec.decode(payload)
    codec.value(message.data)
    codec.to_json(message.data)
    return message


@pytest.mark.parametrize("vector", load("messages.json", "client"), ids=name_of)
def test_the_server_reads_what_clients_send(vector: Vector) -> None:
    for codec, wire, form in FORMS:
        payload = form(vector)
        if payload is not None:
            message = read(codec, payload)
            assert plain(message, codec) == vector["message"]
            assert msgspec.json.decode(codec.to_json(message.data)) == vector["message"].get("data")
        assert plain(codec.decode(wire.encode(vector["message"])), codec) == vector["message"]


@pytest.mark.parametrize("vector", load("messages.json", "clientRefused"), ids=name_of)
def test_the_server_refuses_the_rest(vector: Vector) -> None:
    tried = 0
    for codec, _, form in FORMS:
        payload = form(vector)
        if payload is not None:
            with pytest.raises(ProtocolError) as caught:
                read(codec, payload)
            assert caught.value.code == vector["error"]
            tried += 1
    assert tried


@pytest.mark.parametrize("vector", load("messages.json", "server"), ids=name_of)
def test_the_client_reads_what_servers_send(vector: Vector) -> None:
    expected = msgspec.convert(vector["message"], ServerMessage)
    for _, wire, form in FORMS:
        payload = form(vector)
        found = wire.decode(payload.decode() if wire.is_text else payload)
        assert found == expected


@pytest.mark.parametrize("vector", load("messages.json", "server"), ids=name_of)
def test_the_server_writes_them_byte_for_byte(vector: Vector) -> None:
    message = vector["message"]
    if vector["name"].startswith("unknown"):
        return
    for codec, _, form in FORMS:
        if "room" in message:
            members = {("user_id" if name == "userId" else name): value for name, value in message.items()}
            assert codec.encode(RoomFrame(**members)) == form(vector)
            as_logged = codec.from_json(msgspec.json.encode(message["data"]))
            assert codec.encode(RoomFrame(**members | {"data": as_logged})) == form(vector)
        else:
            assert codec.encode(Answer(**message)) == form(vector)


@pytest.mark.parametrize("vector", load("messages.json", "serverRefused"), ids=name_of)
def test_the_client_refuses_the_rest(vector: Vector) -> None:
    for _, wire, form in FORMS:
        payload = form(vector)
        if payload is not None:
            with pytest.raises(ProtocolError):
                wire.decode(payload.decode() if wire.is_text else payload)


def test_the_two_forms_of_one_message_are_not_mixed() -> None:
    for wire in (JsonWire(), MsgpackWire()):
        with pytest.raises(ProtocolError):
            wire.decode(b"\x81\xa5event\xa1x" if wire.is_text else '{"event":"x"}')


def test_data_stays_as_it_came_until_somebody_needs_it() -> None:
    assert isinstance(JsonCodec().decode(b'{"event":"x","data": [1 ]}').data, Raw)
