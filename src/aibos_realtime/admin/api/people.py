"""People over HTTP: their connections, their roles, their tokens. For operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Query as Parameters
from pydantic import Field

from ..reports import ConnectionLife, ConnectionPage, Report
from ..requests import ListConnections, Order
from .asking import TEXT, By, Input, Query, SocketId, UserId, exactly_one
from .problems import Refused

router = APIRouter()

Text = Annotated[str, Field(max_length=128)]


class ConnectionsQuery(Query):
    user_id: Text | None = None
    room_id: Text | None = None
    search: Annotated[Text, Field(description="A part of a connection's id, a user's id, a tenant's id or an address.")] = ""
    order: Annotated[Order, Field(description="The newest first, or those first for which most bytes wait.")] = "newest"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class DisconnectInput(Input):
    """Exactly one of the two ids. `code`: 1000, 4000–4499 (clients come back), 4500–4999 (they stay away)."""

    model_config = exactly_one({"userId": "user_123"}, userId=TEXT, socketId=TEXT)

    user_id: UserId | None = None
    socket_id: Text | None = None
    code: Annotated[int, Field(ge=1000, le=4999)] = 4503


class RevokeInput(Input):
    """Exactly one of the two. `tokenId`: a token's `jti`."""

    model_config = exactly_one({"userId": "user_123"}, userId=TEXT, tokenId=TEXT)

    user_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    token_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class RoleInput(Input):
    user_id: UserId
    role: Annotated[str, Field(min_length=1, max_length=128)]


class CountReport(Report):
    """How many it were."""

    count: int


@router.get("/connections")
async def list_connections(by: By, query: Annotated[ConnectionsQuery, Parameters()]) -> ConnectionPage:
    """Connections of all nodes. `total`: how many there are; `matching`: how many fit."""
    request = ListConnections(
        limit=query.limit, search=query.search, user_id=query.user_id, room_id=query.room_id, order=query.order
    )  # fmt: skip
    return await by.operations.connections(by.caller, request)


@router.get("/connections/{id}", responses={404: {}})
async def get_connection(by: By, id: SocketId) -> ConnectionLife:
    """A connection, and what is known of its life, also for a while after its end."""
    life = await by.operations.connection(by.caller, id)
    if life.connection is None and not life.acts:
        raise Refused(404, "connection_not_found", "There is no such connection, and none is remembered.")
    return life


@router.post("/disconnect")
async def disconnect(by: By, body: DisconnectInput) -> CountReport:
    """Close a connection, or all of a user; how many were closed."""
    return CountReport(count=await by.operations.disconnect(by.caller, user_id=body.user_id, socket_id=body.socket_id, code=body.code))


@router.post("/revoke", status_code=204, response_class=Response)
async def revoke(by: By, body: RevokeInput) -> None:
    """Take back one token, or every token of a user that was issued until now, on all nodes; what was let in with them is closed."""
    await by.operations.revoke(by.caller, user_id=body.user_id, token_id=body.token_id)


@router.post("/role")
async def set_role(by: By, body: RoleInput) -> CountReport:
    """Change a user's role on his live connections, and have his memberships checked again; on how many. A new connection has its token's role."""
    return CountReport(count=await by.operations.set_role(by.caller, body.user_id, body.role))
