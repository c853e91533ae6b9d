"""What nodes ask of one another about users and their sockets (`backends.bus`). Each node does it for those that it has."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..protocol.frames import is_close_code

UserId = Annotated[str, Meta(min_length=1, max_length=1024)]
RoomId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:@/-]{1,128}\Z")]


class RemoveUser(Struct, frozen=True, tag="remove"):
    """Take a user out of a room. Answer: whether he was in it."""

    room_id: RoomId
    user_id: UserId
    reason: Literal["left", "kicked"]


class BringUser(Struct, frozen=True, tag="bring"):
    """Have a user's sockets join a room. Answer: None, or the code of the error for which they did not."""

    room_id: RoomId
    user_id: UserId


class CloseRoom(Struct, frozen=True, tag="close-room"):
    """A room was destroyed: everybody who was in this life of it has to go."""

    room_id: RoomId
    birth: str


class ListUsers(Struct, frozen=True, tag="list-users"):
    """Who is connected, or was until less than `within` seconds ago. Answer: a list of `backends.directory.PresentUser`."""

    within: Annotated[float, Meta(ge=0)]


class Disconnect(Struct, frozen=True, tag="disconnect"):
    """Close the connections of a user, or one connection. Answer: how many."""

    user_id: UserId | None
    socket_id: str | None
    code: Annotated[int, Meta(ge=1000, le=4999)]

    def __post_init__(self) -> None:
        if not is_close_code(self.code):
            raise ValueError(f"a connection cannot be closed with the code {self.code}")


class SetRole(Struct, frozen=True, tag="set-role"):
    """Change a user's role on his connections. Answer: on how many."""

    user_id: UserId
    role: str
