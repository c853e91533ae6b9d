"""What nodes ask of one another goes over the bus and back, and only within its bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from aibos_realtime.hub.requests import BringUser, CloseRoom, Disconnect, ListUsers, RemoveUser, SetRole

ALL: list[Struct] = [
    RemoveUser("a", "ann", "kicked"),
    BringUser("a", "ann"),
    CloseRoom("a", "birth"),
    ListUsers(300.0),
    Disconnect("ann", None, 4503),
    SetRole("ann", "admin"),
]


@pytest.mark.parametrize("request_", ALL, ids=lambda one: type(one).__name__)
def test_there_and_back(request_: Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(request_), type=type(request_)) == request_


def test_no_two_have_one_tag() -> None:
    assert len({one.__struct_config__.tag for one in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (RemoveUser, {"type": "remove", "room_id": "a", "user_id": "ann", "reason": "destroyed"}),
        (RemoveUser, {"type": "remove", "room_id": "a", "user_id": "", "reason": "left"}),
        (RemoveUser, {"type": "bring", "room_id": "a", "user_id": "ann", "reason": "left"}),
        (BringUser, {"type": "bring", "room_id": 5, "user_id": "ann"}),
        (BringUser, {"type": "bring", "room_id": "a b", "user_id": "ann"}),
        (CloseRoom, {"type": "close-room", "room_id": "a\n", "birth": "x"}),
        (Disconnect, {"type": "disconnect", "user_id": "ann", "socket_id": None, "code": 1006}),
        (Disconnect, {"type": "disconnect", "user_id": "ann", "socket_id": None, "code": 2000}),
        (ListUsers, {"type": "list-users", "within": -1}),
        (Disconnect, {"type": "disconnect", "user_id": "ann", "socket_id": None, "code": 5000}),
        (SetRole, {"type": "set-role", "user_id": "x" * 2000, "role": "admin"}),
    ],
)
def test_what_is_out_of_bounds(kind: type[Struct], wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(wrong), type=kind)
