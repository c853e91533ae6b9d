"""Rooms over HTTP: their ids in paths, pages, history, and acts."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.testing.server import MemoryServer
from tests.unit.admin.api.rig import Rig, check_problem

ODD = ("a/b", "a:b", "a@b/c.d:e-f_g", "history", "presence", "x/history", "rooms", "a//b", "/", "/x/")


async def pages(rig: Rig, by: str, **query: Any) -> list[list[str]]:
    found: list[list[str]] = []
    while True:
        body = (await rig.ask("GET", "/rooms", by=by, params=query)).json()
        found.append([room["id"] for room in body["rooms"]])
        if body["cursor"] is None:
            return found
        query["cursor"] = body["cursor"]


async def test_pages_of_rooms(rig: Rig) -> None:
    for number in range(5):
        await rig.server.rooms.create_room(f"room_{number}")
    await rig.server.rooms.create_room("other")
    assert await pages(rig, "key", limit=2, prefix="room_") == [["room_0", "room_1"], ["room_2", "room_3"], ["room_4"]]
    assert await pages(rig, "key") == [["other", *(f"room_{number}" for number in range(5))]]


async def test_others_than_operators_see_their_rooms_and_learn_of_no_other(rig: Rig) -> None:
    for name in ("aaa", "secret_1", "tenant_1", "tenant_2", "zzz"):
        await rig.server.rooms.create_room(name)
    answer = await rig.ask("GET", "/rooms?limit=1", by="manager")
    assert [room["id"] for room in answer.json()["rooms"]] == ["tenant_1"] and answer.json()["cursor"] is None
    for other in ("aaa", "secret", "tenant_2", "zzz"):
        assert other not in answer.text
    assert (await rig.ask("GET", "/rooms", by="user")).json() == {"rooms": [], "cursor": None}
    assert await pages(rig, "overseer", limit=2) == [["aaa", "secret_1"], ["tenant_1", "tenant_2"], ["zzz"]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "prefix=a%00", "prefix=" + "a" * 129, "cursor=%C3%BC", "Prefix=a", "user_id=a"]
)
async def test_what_is_no_query(rig: Rig, query: str) -> None:
    body = check_problem(await rig.ask("GET", f"/rooms?{query}"), 422, "validation_failed")
    assert body["errors"][0]["path"].startswith("query.")
    if query in ("Prefix=a", "user_id=a"):
        assert [fault["message"] for fault in body["errors"]] == ["is not known here"]


async def test_a_parameter_that_is_given_twice(rig: Rig) -> None:
    for query in ("limit=1&limit=2", "prefix=a&limit=1&prefix=a", "%6Cimit=1&limit=1"):
        body = check_problem(await rig.ask("GET", f"/rooms?{query}"), 422, "validation_failed")
        assert [fault["message"] for fault in body["errors"]] == ["is given more than once"]
    assert (await rig.ask("GET", "/rooms?prefix=&limit=1")).status_code == 200


async def test_a_room_and_its_position(rig: Rig) -> None:
    await rig.server.rooms.create_room("tenant_1", name="First", type="tenant", settings={"max_users": 3})
    at = (await rig.publish())["epoch"]
    body = (await rig.ask("GET", "/rooms/tenant_1", by="manager")).json()
    told = {name: value for name, value in body.items() if name not in ("createdAt",)}
    assert told == {
        "id": "tenant_1", "name": "First", "type": "tenant", "userCount": 0, "connectionCount": 0, "maxUsers": 3, "allowGuests": False,
        "position": {"epoch": at, "offset": 1},
    }  # fmt: skip
    check_problem(await rig.ask("GET", "/rooms/tenant_9"), 404, "room_not_found")


@pytest.mark.parametrize("room", ODD)
async def test_any_room_id_can_stand_in_a_path(rig: Rig, room: str) -> None:
    part = room.replace("%", "%25").replace("/", "%2F").replace(":", "%3A").replace("@", "%40")
    await rig.server.rooms.create_room(room)
    await rig.publish(room, data=room)
    for path in (part, part.replace("%3A", ":").replace("%40", "@").replace("%2F", "%2f")):
        assert (await rig.ask("GET", f"/rooms/{path}")).json()["id"] == room
        assert (await rig.ask("GET", f"/rooms/{path}/history")).json()["events"][0]["data"] == room
        assert (await rig.ask("GET", f"/rooms/{path}/presence")).json() == {"roomId": room, "members": [], "count": 0}
    assert (await rig.ask("DELETE", f"/rooms/{part}")).status_code == 204


@pytest.mark.parametrize(("part", "status"), [("%00", 400), ("%FF", 400), ("a%20b", 400), ("x" * 129, 400), ("%C3%BC", 400), ("user%3A", 422)])
async def test_what_is_no_room_id(rig: Rig, part: str, status: int) -> None:
    answer = await rig.ask("GET", f"/rooms/{part}")
    check_problem(answer, status, "bad_request" if status == 400 else "validation_failed")


async def test_a_slash_that_is_not_encoded_divides_the_path(rig: Rig) -> None:
    await rig.server.rooms.create_room("a/b")
    check_problem(await rig.ask("GET", "/rooms/a/b"), 404, "not_found")
    check_problem(await rig.ask("DELETE", "/rooms/a/history"), 405, "bad_request")


async def test_presence_kick_and_end_of_a_room(rig: Rig) -> None:
    net = MemoryServer(rig.server)
    ann = await net.connect("ann", tenant_id="1")
    await ann.request("join-room", "tenant_1")
    body = (await rig.ask("GET", "/rooms/tenant_1/presence", by="manager")).json()
    assert (body["count"], body["members"][0]["userId"], body["members"][0]["role"]) == (1, "ann", "user")
    assert (await rig.ask("POST", "/rooms/tenant_1/kick", {"userId": "ann"}, by="manager")).status_code == 204
    assert (await ann.receive("room-closed"))["data"] == {"roomId": "tenant_1", "reason": "kicked"}
    check_problem(await rig.ask("POST", "/rooms/tenant_1/kick", {"userId": "ann"}), 404, "not_in_room")
    check_problem(await rig.ask("POST", "/rooms/tenant_9/kick", {"userId": "ann"}), 404, "room_not_found")
    await ann.request("join-room", "tenant_1")
    ended = await rig.ask("DELETE", "/rooms/tenant_1", by="manager")
    assert (ended.status_code, ended.content) == (204, b"") and "content-type" not in ended.headers
    assert (await ann.receive("room-closed"))["data"]["reason"] == "destroyed"
    check_problem(await rig.ask("DELETE", "/rooms/tenant_1"), 404, "room_not_found")


async def test_pages_of_history(rig: Rig) -> None:
    epoch = [await rig.publish(data=number) for number in range(5)][0]["epoch"]

    async def read(query: str) -> tuple[list[Any], bool]:
        body = (await rig.ask("GET", f"/rooms/tenant_1/history?{query}", by="manager")).json()
        return [event["data"] for event in body["events"]], body["more"]

    assert await read("limit=2") == ([3, 4], True)
    assert await read(f"limit=2&before={epoch}:4") == ([1, 2], True)
    assert await read(f"limit=2&after={epoch}%3A0") == ([0, 1], True)
    assert await read(f"after={epoch}:3") == ([3, 4], False)
    check_problem(await rig.ask("GET", "/rooms/tenant_1/history?after=other:1"), 410, "unrecoverable_position")
    check_problem(await rig.ask("GET", f"/rooms/tenant_1/history?after={epoch}:99"), 410, "unrecoverable_position")
    check_problem(await rig.ask("GET", f"/rooms/tenant_1/history?after={epoch}:1&before={epoch}:3"), 422, "validation_failed")


@pytest.mark.parametrize(
    "query", ["limit=301", "limit=0", "before=5", "before=a:b", "after=:1", "after=a:-1", "after=a:1e3", f"after=a:{'9' * 16}", "offset=1"]
)
async def test_what_is_no_place_in_a_history(rig: Rig, query: str) -> None:
    check_problem(await rig.ask("GET", f"/rooms/tenant_1/history?{query}"), 422, "validation_failed")
