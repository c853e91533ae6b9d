"""`aibos-realtime connections`: who is connected to which node, one connection's life, and the end of it. It asks the HTTP API."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import ExitCode, Failure
from .output import Part, note, out, show_bytes, show_time
from .publish import check_names
from .target import ApiKeyOption, TokenOption, UrlOption, show_duration

if TYPE_CHECKING:
    from ..admin.reports import ActReport, ConnectionReport
    from .api import Api

HEADINGS = ("connection", "user", "role", "tenant", "node", "address", "state", "rooms", "for", "heard", "queued")


class Order(StrEnum):
    newest = "newest"
    outbox = "outbox"


def connections(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="Only this one, with its life.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="Only those of this user.", metavar="ID")] = None,
    room: Annotated[str | None, typer.Option(help="Only those that are in this room.", metavar="ROOM")] = None,
    search: Annotated[str | None, typer.Option(help="Only those with this in their id, user, tenant or address.", metavar="TEXT")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.", metavar="N")] = 100,
    order: Annotated[Order, typer.Option(help="Which first: the newest, or those with most bytes waiting to be sent.")] = Order.newest,
    disconnect: Annotated[bool, typer.Option("--disconnect", help="Close the one of ID, or all of --user; their clients stay away.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """List the connections of all nodes, or show one's life.

    \b
    aibos-realtime connections --room tenant_123
    aibos-realtime connections --user user_123 --disconnect
    """
    from .api import find_api

    filters = {"--user": user, "--room": room, "--search": search}
    given = [name for name, value in filters.items() if value is not None]
    if room is not None:
        check_names(("room", room))
    if id is not None and given:
        raise Failure(f"{given[0]} is for the list: leave it away, or leave ID away.", ExitCode.USAGE)
    if disconnect and id is None and given != ["--user"]:
        raise Failure("--disconnect: name what is to be closed, by ID or by --user and nothing else.", ExitCode.USAGE)
    api = find_api(url, token, api_key)
    if disconnect:
        _close(api, id, user, as_json)
    elif id is not None:
        _show_one(api, id, as_json)
    else:
        _show_list(api, as_json, userId=user, roomId=room, search=search, order=order.value, limit=limit)


def _show_list(api: Api, as_json: bool, **query: object) -> None:
    from ..admin.reports import ConnectionPage

    page = api.get("/connections", ConnectionPage, **query)
    if as_json:
        out.json(page.to_wire())
        return
    if not page.connections:
        out.line("There are no connections." if not page.total else f"None of {page.total} connections is like that.")
        return
    out.columns([[(heading, "bold underline") for heading in HEADINGS], *map(_row, page.connections)])
    if page.matching > len(page.connections):
        note(f"These are {len(page.connections)} of {page.matching}: --limit, or say more closely which.")


def _row(one: ConnectionReport) -> list[Part]:
    now = time.time()
    return [
        (one.id, "cyan"),
        one.user_id or "-",
        one.role or "-",
        one.tenant_id or "-",
        one.node,
        one.address,
        _state(one),
        str(one.room_count),
        show_duration(max(0.0, now - one.connected_at)),
        f"{show_duration(max(0.0, now - one.heard_at))} ago",
        show_bytes(one.outbox_bytes),
    ]


def _state(one: ConnectionReport) -> Part:
    return (one.state, "green" if one.state == "open" else "yellow")


def _show_one(api: Api, id: str, as_json: bool) -> None:
    from ..admin.reports import ConnectionLife
    from .api import quoted

    life = api.get(f"/connections/{quoted(id)}", ConnectionLife)
    one = life.connection
    if one is None and not life.acts:
        raise _unknown(id)
    if as_json:
        out.json(life.to_wire())
        return
    if one is None:
        out.facts({"connection": (id, "cyan"), "state": ("gone", "yellow")})
    else:
        rooms = ", ".join(one.rooms) + (f" and {one.room_count - len(one.rooms)} more" if one.room_count > len(one.rooms) else "")
        now = time.time()
        facts: dict[str, Part] = {
            "connection": (one.id, "cyan"),
            "state": _state(one),
            "user": one.user_id or "-",
            "role": one.role or "-",
            "tenant": one.tenant_id or "-",
            "node": one.node,
            "address": one.address,
            "client": one.user_agent or "-",
            "codec": one.codec,
            "connected": f"{show_time(one.connected_at)}, {show_duration(max(0.0, now - one.connected_at))} ago",
            "heard": f"{show_duration(max(0.0, now - one.heard_at))} ago",
            "token ends": "-" if one.expires_at is None else show_time(one.expires_at),
            "queued": show_bytes(one.outbox_bytes),
            "rooms": rooms or "-",
        }
        out.facts(facts)
    if life.acts:
        out.line()
        out.columns([[(heading, "bold underline") for heading in ("time", "what", "of it")], *map(act_row, life.acts)])


def act_row(act: ActReport) -> list[Part]:
    """An entry of the audit log: when, what, and the rest of it."""
    style = {"refuse": "yellow", "disconnect": "yellow" if act.code not in (None, 1000, 1001) else ""}.get(act.act, "bold" if act.by else "")
    words = {
        "": act.user_id, "in ": act.room_id, "from ": act.address, "code ": act.code, "on ": act.node, "by ": act.by,
    }  # fmt: skip
    said = ", ".join(f"{before}{value}" for before, value in words.items() if value not in (None, ""))
    times = f"{act.count} times, " if act.count > 1 else ""
    return [(show_time(act.time), "dim"), (act.act, style), times + said + (f": {act.reason}" if act.reason else "")]


def _close(api: Api, id: str | None, user: str | None, as_json: bool) -> None:
    answer = api.post("/disconnect", socketId=id, userId=user)
    count = answer.get("count") if isinstance(answer, dict) else None
    if as_json:
        out.json({"closed": count})
    elif count:
        out.line("closed: ", (str(count), "bold green"))
    if not count:
        raise _unknown(id) if id is not None else Failure(f"User {user} is not connected.", ExitCode.REFUSED)


def _unknown(id: str) -> Failure:
    return Failure(f"There is no connection {id}, and none is remembered: look at `connections` without an ID.", ExitCode.REFUSED)
