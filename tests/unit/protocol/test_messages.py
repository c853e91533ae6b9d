from __future__ import annotations

import msgspec
import pytest

from aibos_realtime.protocol.messages import RESERVED, ClientMessage, Event, HistoryRequest, JoinRoom, Member, Position, ServerMessage, to_builtins


def test_the_mapping_between_the_wire_and_python() -> None:
    assert msgspec.convert({"roomId": "a", "recover": {"epoch": "e", "offset": 3}}, JoinRoom) == JoinRoom("a", Position("e", 3))
    assert msgspec.convert({"roomId": "a"}, HistoryRequest) == HistoryRequest("a", 50, None, None)
    assert to_builtins(Member("ann", "admin")) == {"userId": "ann", "role": "admin"}
    assert msgspec.json.decode(b'{"event":"x","userId":"ann","new":1}', type=ServerMessage).user_id == "ann", "unknown members are ignored"


def test_where_an_event_stands() -> None:
    assert Event("x", "a", 1, "id", 3, "e").position == Position("e", 3)
    assert Event("x", "a", 1, "id", None, "e").position is None and Event("x", "a", 1, "id", 3).position is None


def test_the_reserved_names_are_those_of_the_protocol() -> None:
    spoken = "connected authenticate authenticated token-expiring ping pong reconnect join-room joined-room leave-room left-room room-closed history"
    spoken += " presence resync permission_denied user.joined user.left ack error"
    assert set(spoken.split()) <= RESERVED


def test_messages_are_values() -> None:
    message = ClientMessage("x", ref=1)
    with pytest.raises(AttributeError):
        message.event = "y"  # type: ignore[misc]
    assert message == ClientMessage("x", ref=1) and message.data is msgspec.UNSET
