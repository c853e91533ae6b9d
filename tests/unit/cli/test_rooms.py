"""`aibos-realtime rooms`: the list, page by page, and one room with its members."""

from __future__ import annotations

import json

import pytest

from aibos_realtime.admin.reports import MemberReport, PresenceReport, RoomPage
from aibos_realtime.cli import rooms as module
from aibos_realtime.cli.exits import ExitCode

from .conftest import Command
from .stub_api import Asked, StubApi, room


def three_pages(asked: Asked) -> RoomPage:
    """Rooms 0 to 4, of which the second page has none that this caller may see."""
    if asked.query.get("cursor") is None:
        return RoomPage(rooms=[room("r0"), room("r1")], cursor="r1")
    if asked.query["cursor"] == "r1":
        return RoomPage(rooms=[], cursor="r2")
    return RoomPage(rooms=[room("r3", users=3, connections=4, max_users=10, allow_guests=True), room("r4")][: int(asked.query["limit"])], cursor=None)


def test_the_list(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms"] = three_pages
    ended = command("rooms")
    heading, *rows = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert heading.split() == ["room", "type", "users", "connections", "limit", "guests", "age"]
    assert [row.split()[0] for row in rows] == ["r0", "r1", "r3", "r4"]
    assert rows[2].split()[:6] == ["r3", "public", "3", "4", "10", "yes"]
    assert [asked.query.get("limit") for asked in stub.asked] == ["100", "98", "98"]


def test_so_many_and_no_more(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms"] = three_pages
    ended = command("rooms", "--limit", "2")
    assert len(ended.out.splitlines()) == 3 and len(stub.asked) == 1
    assert ended.err == "There are more than these 2: --all, --limit or --prefix.\n"
    assert json.loads(command("rooms", "--limit", "2", "--json").out)["more"] is True


def test_all_of_them_for_scripts(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms"] = three_pages
    found = json.loads(command("rooms", "--all", "--json", "--prefix", "r").out)
    assert [one["id"] for one in found["rooms"]] == ["r0", "r1", "r3", "r4"] and found["more"] is False
    assert found["rooms"][2]["connectionCount"] == 4
    assert [asked.query for asked in stub.asked] == [
        {"prefix": "r", "limit": "1000"}, {"prefix": "r", "limit": "1000", "cursor": "r1"}, {"prefix": "r", "limit": "1000", "cursor": "r2"},
    ]  # fmt: skip


def test_a_cursor_that_leads_nowhere_ends(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms"] = RoomPage(rooms=[room("r0")], cursor="r0")
    assert command("rooms", "--all").code == 0 and len(stub.asked) == 2


def test_no_rooms(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms"] = RoomPage(rooms=[], cursor=None)
    assert command("rooms") == (0, "There are no rooms.\n", "")
    assert command("rooms", "--prefix", "x") == (0, "There are no rooms whose ids begin with x.\n", "")


def test_one_room_with_its_members(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms/tenant_1%2Fa"] = room("tenant_1/a", position={"epoch": "x7Qk", "offset": 12}, max_users=5)
    members = [MemberReport(user_id="user_\x1b[2J1", role="admin", since="2025-11-23T12:00:00.000Z"), MemberReport(user_id="b", role=None, since="")]
    stub.answers["GET /rooms/tenant_1%2Fa/presence"] = PresenceReport(room_id="tenant_1/a", members=members, count=2)
    ended = command("rooms", "tenant_1/a")
    assert ended.code == 0 and "\x1b" not in ended.out
    assert "position     offset 12, epoch x7Qk\n" in ended.out and "users        1 of at most 5\n" in ended.out
    assert "user_\\u001b[2J1  admin  2025-11-23 " in ended.out
    found = json.loads(command("rooms", "tenant_1/a", "--json").out)
    assert found["room"]["position"] == {"epoch": "x7Qk", "offset": 12} and [one["userId"] for one in found["members"]] == ["user_\x1b[2J1", "b"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nosuch"], ExitCode.REFUSED, "There is no such room."),
        (["a b"], ExitCode.NAME, "'a b'"),
        (["a", "--all"], ExitCode.USAGE, "--prefix and --all are for the list"),
        (["--limit", "0"], ExitCode.USAGE, "'--limit'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(command: Command, stub: StubApi, words: list[str], code: ExitCode, says: str) -> None:
    ended = command("rooms", *words)
    assert ended.code == code and ended.out == "" and says in ended.err


def test_no_page_is_larger_than_a_server_gives() -> None:
    from aibos_realtime.admin.operations import ROOMS_AT_ONCE

    assert module.PAGE <= ROOMS_AT_ONCE
