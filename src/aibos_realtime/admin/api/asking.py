"""Who asks and what of: what every route is given, beside its own parameters. And the kinds of parameters that several routes have."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Path, Request
from msgspec import Struct
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict, JsonValue

from ...auth.operators import Caller
from ...protocol.messages import Position
from ..operations import Operations

KEY = "aibos_realtime.asking"
"""Of the ASGI scope."""
NAME = r"^[A-Za-z0-9_.:@/-]{1,128}$"
POSITION = r"^([A-Za-z0-9_.-]{1,64}):([0-9]{1,15})$"
ROOM = r"^([A-Za-z0-9_.:@/-]{1,128}|user:[^\x00-\x1f\x7f]{1,128})$"


class Asking(Struct, frozen=True):
    """One request: who asks, and what can do something about it."""

    operations: Operations
    caller: Caller


async def _asking(request: Request) -> Asking:
    found: Asking = request.scope[KEY]
    return found


By = Annotated[Asking, Depends(_asking)]


class Input(BaseModel):
    """Base of all bodies: names are those of the wire, nothing else is taken, and a number is not a text."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


def exactly_one(example: JsonDict, **kinds: JsonDict) -> ConfigDict:
    """For the description of a body: exactly one of these members is there, and of this kind."""
    one_of: list[JsonValue] = [{"required": [name], "properties": {name: kind}} for name, kind in kinds.items()]
    return ConfigDict(json_schema_extra={"oneOf": one_of, "examples": [example]})


TEXT: JsonDict = {"type": "string"}


class Query(BaseModel):
    """Base of all sets of query parameters: a name that is not known is an error, rather than a filter that does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


def _part(text: object) -> object:
    """A part of a path is decoded here, after the routing: a `%2F` in it does not divide it."""
    return unquote(text) if isinstance(text, str) else text


def _position(text: object) -> Position:
    found = re.fullmatch(POSITION, str(text))
    if found is None:
        raise ValueError("EPOCH:OFFSET is expected, as an answer of the history tells them")
    return Position(found[1], int(found[2]))


def _schema(pattern: str, example: str) -> dict[str, object]:
    return {"pattern": pattern, "examples": [example]}


RoomId = Annotated[
    str,
    BeforeValidator(_part),
    Path(description="A room's id, percent-encoded as one part of the path: a `/` in it is `%2F`.", json_schema_extra=_schema(ROOM, "tenant_123")),
]
QueueName = Annotated[
    str, BeforeValidator(_part), Path(description="A queue's name, percent-encoded as one part.", json_schema_extra=_schema(NAME, "invoices"))
]
SocketId = Annotated[str, BeforeValidator(_part), Path(description="A connection's id.", max_length=128)]
UserId = Annotated[str, Field(min_length=1, max_length=1024, description="A user's id.", examples=["user_123"])]
PositionInput = Annotated[
    Position, PlainValidator(_position), WithJsonSchema({"type": "string", "pattern": POSITION, "examples": ["x7Qk2Lw9aBcD:120"]})
]
