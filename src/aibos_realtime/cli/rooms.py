"""`aibos-realtime rooms`: the rooms of all nodes, or one of them with its members. It asks the HTTP API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import ExitCode, Failure
from .output import Part, note, out, show_time
from .publish import check_names
from .target import ApiKeyOption, TokenOption, UrlOption, show_duration

if TYPE_CHECKING:
    from ..admin.reports import MemberReport, RoomReport
    from .api import Api

HEADINGS = ("room", "type", "users", "connections", "limit", "guests", "age")
PAGE = 1000


def rooms(
    room: Annotated[str | None, typer.Argument(metavar="ROOM", help="Only this one, with its members.", show_default=False)] = None,
    prefix: Annotated[str | None, typer.Option(help="Only those whose ids begin so.", metavar="TEXT")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, by rising id.", metavar="N")] = 100,
    all: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """List the rooms, or show one of them with its members.

    Operators see all rooms, others those that they may manage.

    \b
    aibos-realtime rooms --prefix tenant_
    aibos-realtime rooms tenant_123
    """
    from .api import find_api

    if room is not None:
        check_names(("room", room))
        if prefix is not None or all:
            raise Failure("--prefix and --all are for the list: leave them away, or leave ROOM away.", ExitCode.USAGE)
        _show_one(find_api(url, token, api_key), room, as_json)
        return
    found, has_more = fetch_rooms(find_api(url, token, api_key), prefix, None if all else limit)
    if as_json:
        out.json({"rooms": [one.to_wire() for one in found], "more": has_more})
        return
    if not found:
        out.line("There are no rooms." if prefix is None else f"There are no rooms whose ids begin with {prefix}.")
        return
    out.columns([[(heading, "bold underline") for heading in HEADINGS], *map(_row, found)])
    if has_more:
        note(f"There are more than these {len(found)}: --all, --limit or --prefix.")


def fetch_rooms(api: Api, prefix: str | None, limit: int | None) -> tuple[list[RoomReport], bool]:
    """Rooms by rising id, up to `limit` (None: all), and whether there may be more. Raises `Failure`."""
    from ..admin.reports import RoomPage

    found: list[RoomReport] = []
    cursor: str | None = None
    while True:
        page = api.get("/rooms", RoomPage, prefix=prefix, limit=PAGE if limit is None else min(PAGE, limit - len(found)), cursor=cursor)
        found += page.rooms
        if page.cursor is None or page.cursor == cursor:
            return found, False
        if limit is not None and len(found) >= limit:
            return found, True
        cursor = page.cursor


def _row(room: RoomReport) -> list[Part]:
    most = "-" if room.max_users is None else str(room.max_users)
    guests: Part = "yes" if room.allow_guests else ("no", "dim")
    age = show_duration(max(0.0, time.time() - room.created_at))
    return [(room.id, "cyan"), room.type, str(room.user_count), str(room.connection_count), most, guests, age]


def _show_one(api: Api, room_id: str, as_json: bool) -> None:
    from ..admin.reports import PresenceReport, RoomReport
    from .api import quoted

    room = api.get(f"/rooms/{quoted(room_id)}", RoomReport)
    presence = api.get(f"/rooms/{quoted(room_id)}/presence", PresenceReport)
    if as_json:
        out.json({"room": room.to_wire(), "members": [member.to_wire() for member in presence.members]})
        return
    at = room.position or {}
    facts: dict[str, Part] = {
        "room": (room.id, "cyan"),
        "name": room.name,
        "type": room.type,
        "users": f"{room.user_count}" + ("" if room.max_users is None else f" of at most {room.max_users}"),
        "connections": str(room.connection_count),
        "guests": "may join" if room.allow_guests else "may not join",
        "created": f"{show_duration(max(0.0, time.time() - room.created_at))} ago",
        "position": f"offset {at.get('offset')}, epoch {at.get('epoch')}" if at else "-",
    }
    out.facts(facts)
    if presence.members:
        out.line()
        out.columns([[(heading, "bold underline") for heading in ("member", "role", "since")], *map(_member_row, presence.members)])


def _member_row(member: MemberReport) -> list[Part]:
    return [(member.user_id, "cyan"), member.role or "-", (show_time(member.since), "dim")]
