"""Rooms over HTTP: which there are, who is in them, what was said in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Query as Parameters
from pydantic import Field

from ...pipeline.history import HISTORY_LIMIT
from ..operations import ROOMS_AT_ONCE
from ..reports import HistoryReport, PresenceReport, RoomPage, RoomReport
from .asking import By, Input, PositionInput, Query, RoomId, UserId

router = APIRouter()


class RoomsQuery(Query):
    prefix: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.:@/-]*$", description="What their ids begin with.")] = ""
    limit: Annotated[int, Field(ge=1, le=ROOMS_AT_ONCE)] = 100
    cursor: (
        Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.:@/-]*$", description="Of the page before: the id after which this one begins.")]
        | None
    ) = None


class HistoryQuery(Query):
    limit: Annotated[int, Field(ge=1, le=HISTORY_LIMIT)] = 50
    before: Annotated[PositionInput | None, Field(description="EPOCH:OFFSET: the events right before it. Without: the latest.")] = None
    after: Annotated[PositionInput | None, Field(description="EPOCH:OFFSET: the events right after it.")] = None


class KickInput(Input):
    user_id: UserId


@router.get("/rooms")
async def list_rooms(by: By, query: Annotated[RoomsQuery, Parameters()]) -> RoomPage:
    """Rooms by rising id: all for operators, those that they manage for others. `cursor` of the answer leads to the next page."""
    return await by.operations.rooms(by.caller, prefix=query.prefix, limit=query.limit, cursor=query.cursor)


@router.get("/rooms/{room}", responses={404: {}})
async def get_room(by: By, room: RoomId) -> RoomReport:
    """A room, and the position of its last event."""
    return await by.operations.room(by.caller, room)


@router.delete("/rooms/{room}", status_code=204, response_class=Response, responses={404: {}})
async def destroy_room(by: By, room: RoomId) -> None:
    """End a room: its members are told, and leave it. Its events and positions live on."""
    await by.operations.destroy_room(by.caller, room)


@router.get("/rooms/{room}/presence")
async def get_presence(by: By, room: RoomId) -> PresenceReport:
    """Who is in a room, longest first; nobody where there is no such room."""
    return await by.operations.presence(by.caller, room)


@router.get("/rooms/{room}/history", responses={410: {}})
async def get_history(by: By, room: RoomId, query: Annotated[HistoryQuery, Parameters()]) -> HistoryReport:
    """Events of a room, or of a stream (`user:ID`, `all`), by rising offset. 410: the position is not, or no longer, in the log."""
    return await by.operations.history(by.caller, room, limit=query.limit, before=query.before, after=query.after)


@router.post("/rooms/{room}/kick", status_code=204, response_class=Response, responses={404: {}})
async def kick(by: By, room: RoomId, body: KickInput) -> None:
    """Take a user out of a room: nothing of it reaches him after the answer. He may join again, unless his rights say otherwise."""
    await by.operations.kick(by.caller, room, body.user_id)
