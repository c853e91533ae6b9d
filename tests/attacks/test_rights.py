"""Everything that a client can ask for, by everybody who must not have it: each cell is refused, and says of a room nothing but that it is refused.

A request that is new has to get a row here: the first test fails until it has one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from aibos_realtime import RealtimeServer
from aibos_realtime.protocol.messages import RESERVED
from tests.attacks.arena import Arena, Field
from tests.network.raw import Raw, request, text

AUTHORIZATION = {
    "permissions": {"tenant_{tenant_id}": ["read", "write"], "desk:{user_id}": ["read", "write"], "{tenant_id}/*": ["read", "write"]},
    "roles": {"member": {"board:{tenant_id}": ["read", "write"]}, "boss": {"*": ["read", "write", "manage"]}},
}
QUIET = {"messages_per_second": None, "publishes_per_second": None, "failed_authentications_per_minute": None}
START = {"epoch": "e", "offset": 0}
HERE: dict[str, Any] = {"authorization": AUTHORIZATION, "limits": QUIET}

Ask = Callable[[str], tuple[str, Any, dict[str, Any]]]
"""From the room to the event, the data and further members of a request."""

OF_ROOMS: dict[str, Ask] = {
    "join-room": lambda room: ("join-room", room, {}),
    "join-room, recovering": lambda room: ("join-room", {"roomId": room, "recover": START}, {}),
    "join-room, rewinding": lambda room: ("join-room", {"roomId": room, "rewind": 300}, {}),
    "join-room, watching": lambda room: ("join-room", {"roomId": room, "presence": True}, {}),
    "leave-room": lambda room: ("leave-room", room, {}),
    "history": lambda room: ("history", {"roomId": room}, {}),
    "history before": lambda room: ("history", {"roomId": room, "before": START}, {}),
    "history after": lambda room: ("history", {"roomId": room, "after": START}, {}),
    "presence": lambda room: ("presence", room, {}),
    "publish": lambda room: ("x", "forged", {"room": room}),
    "publish under an id": lambda room: ("x", "forged", {"room": room, "id": "known"}),
    "publish under a handler's name": lambda room: ("block", 0, {"room": room}),
}
OPERATORS: dict[str, Any] = {
    "realtime.nodes": {},
    "realtime.rooms": {},
    "realtime.room": {"roomId": "tenant_1"},
    "realtime.presence": {"roomId": "tenant_1"},
    "realtime.history": {"roomId": "tenant_1"},
    "realtime.connections": {},
    "realtime.connection": {"socketId": "x"},
    "realtime.queues": {},
    "realtime.dead": {"queue": "x"},
    "realtime.requeue": {"queue": "x"},
    "realtime.disconnect": {"userId": "ann"},
    "realtime.kick": {"roomId": "tenant_1", "userId": "ann"},
    "realtime.acts": {},
}
WITHOUT_RIGHTS = frozenset({"ping", "ack"})
"""Requests that anybody may make: they concern the connection alone."""


async def test_every_request_has_a_row(arena: Arena) -> None:
    async with arena("every name of the protocol", limits=QUIET) as field, field.member("ann") as ann:
        requests = set()
        for name in RESERVED - WITHOUT_RIGHTS - {"authenticate"}:
            answer = await ann.ask(name, {"roomId": "tenant_1"})
            if "is not a message that a client sends" not in str(answer["data"]):
                requests.add(name)
        rows = {ask("r")[0] for ask in OF_ROOMS.values()}
        assert requests == rows & RESERVED
    router = RealtimeServer(authentication={"jwt_secret": "x7Qz-0pLr5Tn2Wx8" * 3}, persistence={"database": {"url": "memory://"}})._parts.router
    assert set(router.routes) == set(OPERATORS)


# — who must not —


@asynccontextmanager
async def nobody(field: Field) -> AsyncIterator[Raw]:
    async with field.upgraded() as connection:
        await connection.message("connected")
        yield connection


def of(user_id: str, **options: Any) -> Callable[[Field], AbstractAsyncContextManager[Raw]]:
    return lambda field: field.member(user_id, **options)


@asynccontextmanager
async def demoted(field: Field) -> AsyncIterator[Raw]:
    """Was a member, in the room, until an operator changed his role."""
    async with field.member("eve", "board:1", role="member") as connection:
        changed = await field.http("POST", "/api/v1/role", {"userId": "eve", "role": "user"}, token=field.token("op", role="operator"))
        assert changed.problem == {"count": 1}
        assert (await connection.message("room-closed"))["data"] == {"roomId": "board:1", "reason": "permission"}
        yield connection


@asynccontextmanager
async def moved(field: Field) -> AsyncIterator[Raw]:
    """Was of the tenant, in the room, until his token said another."""
    async with field.member("eve", "board:1", role="member") as connection:
        assert (await connection.ask("authenticate", field.token("eve", role="member", tenant_id="2")))["data"]["success"]
        yield connection


FORBIDDEN: dict[str, tuple[Callable[[Field], AbstractAsyncContextManager[Raw]], str, str, str]] = {
    # who, the room, one that is not there and has a name as long, the code
    "no token": (nobody, "tenant_1", "tenant_7", "not_authenticated"),
    "wrong role": (of("eve"), "board:1", "board:7", "permission_denied"),
    "another tenant's": (of("eve", tenant_id="2", role="member"), "board:1", "board:7", "permission_denied"),
    "no tenant": (of("eve", tenant_id=None), "tenant_1", "tenant_7", "permission_denied"),
    "a private room, guessed": (of("eve"), "desk:ann", "desk:joe", "permission_denied"),
    "somebody's own stream": (of("eve"), "user:ann", "user:joe", "permission_denied"),
    "somebody's own stream, by who may everything": (of("eve", role="boss"), "user:ann", "user:joe", "permission_denied"),
    "a role that was taken": (demoted, "board:1", "board:7", "permission_denied"),
    "a tenant that was left": (moved, "board:1", "board:7", "permission_denied"),
}


@pytest.mark.parametrize("state", FORBIDDEN)
async def test_what_is_forbidden_and_what_is_not_there_are_one_answer(arena: Arena, state: str) -> None:
    become, room, missing, code = FORBIDDEN[state]
    async with arena(f"{len(OF_ROOMS)} requests, {state}", api=True, **HERE) as field:
        async with field.member("ann", "tenant_1", "desk:ann", "board:1", role="member") as ann, become(field) as eve:
            for name in ("tenant_1", "desk:ann", "board:1"):
                assert (await ann.ask("x", "private", room=name, id="known"))["event"] == "ack"
            wrong: dict[str, Any] = {}
            for row, ask in OF_ROOMS.items():
                event, data, members = ask(room)
                there, absent = await eve.ask(event, data, **members), await _ask(eve, ask(missing))
                expected = "not_in_room" if event == "leave-room" and code == "permission_denied" else code
                if there["data"].get("code") != expected or str(there).replace(room, missing) != str(absent):
                    wrong[row] = (there, absent)
            for name, data in OPERATORS.items():
                answer = await eve.ask(name, data)
                if answer["data"].get("code") != code:
                    wrong[name] = (answer, None)
            assert wrong == {}
            for name in ("tenant_1", "desk:ann", "board:1"):
                assert await written(ann, name) == ["private"]
                assert [one["userId"] for one in (await ann.ask("presence", name))["data"]["members"]] == ["ann"]


async def written(connection: Raw, room: str) -> list[Any]:
    """What stands in a room, without what the arena wrote to warm up."""
    events = (await connection.ask("history", {"roomId": room}))["data"]["events"]
    return [event["data"] for event in events if event["event"] != "warm.up"]


async def _ask(connection: Raw, row: tuple[str, Any, dict[str, Any]]) -> dict[str, Any]:
    event, data, members = row
    return await connection.ask(event, data, **members)


async def test_refusals_take_the_same_time(arena: Arena) -> None:
    """The time does not tell a private room with a long history from one that was never there."""
    async with arena("1,600 guesses of rooms", **HERE) as field:
        async with field.member("ann", "desk:ann") as ann, field.member("eve") as eve:
            for _ in range(50):
                ann.say("x", "private" * 100, room="desk:ann")
            await ann.ask("ping")
            medians = {}
            for row in ("join-room", "history", "presence", "publish"):
                times: dict[str, list[float]] = {"desk:ann": [], "desk:joe": []}
                for _ in range(200):
                    for room, found in times.items():
                        begin = time.perf_counter()
                        await _ask(eve, OF_ROOMS[row](room))
                        found.append(time.perf_counter() - begin)
                medians[row] = abs(statistics.median(times["desk:ann"]) - statistics.median(times["desk:joe"]))
            field.figures["worst difference of medians, µs"] = round(1e6 * max(medians.values()))
            assert max(medians.values()) < 0.001, medians


async def test_requests_right_behind_a_bad_token(arena: Arena) -> None:
    """What came in one segment with a token that is refused was sent by nobody."""
    async with arena("requests behind a bad token", **HERE) as field, field.member("ann", "tenant_1") as ann:
        for row, ask in OF_ROOMS.items():
            event, data, members = ask("tenant_1")
            behind = text({"event": "authenticate", "data": "no.good.token", "ref": 1}) + text({"event": event, "data": data, "ref": 2, **members})
            async with field.upgraded(data=behind) as eve:
                assert (await eve.message("connected"))["data"]["user"] is None
                assert (await eve.message())["data"]["success"] is False
                assert await eve.close_code() == 4500, row
        assert await written(ann, "tenant_1") == []


# — who may no longer —


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_whose_token_is_gone_is_gone(arena: Arena, how: str) -> None:
    """Neither does his connection live on, nor does he come back with it, by any road."""
    options = HERE | {"authentication": {"expiry_grace": 0, "leeway": 0.5}}
    async with arena(f"a token that is {how}", api=True, **options) as field:
        token = field.token("eve", expires_in=None if how == "revoked" else 1)
        async with field.member("ann", "tenant_1") as ann, field.upgraded(f"Authorization: Bearer {token}") as eve:
            await eve.message("connected")
            assert (await eve.ask("join-room", "tenant_1"))["event"] == "joined-room"
            if how == "revoked":
                done = await field.http("POST", "/api/v1/revoke", {"userId": "eve"}, token=field.token("op", role="operator"))
                assert done.status == 204
                eve.say("x", "late", room="tenant_1")
            assert await eve.close_code() == (4503 if how == "revoked" else 4005)
            assert (await ann.ask("x", "after", room="tenant_1"))["event"] == "ack"
            assert b"after" not in await eve.ended()
            assert await written(ann, "tenant_1") == ["after"]
        await field.until(lambda figures: figures["connections"] == 1)
        async with field.raw() as again:
            await again.send(request(f"Authorization: Bearer {token}"))
            assert (await again.response()).status == 401
        async with nobody(field) as again:
            again.say("authenticate", token)
            assert await again.close_code() == 4500
        assert (await field.http("GET", "/api/v1/rooms", token=token)).status == 401
        assert (await field.http("GET", "/api/v1/instances", token=token)).status == 401


@pytest.mark.parametrize("how", ["left", "kicked"])
async def test_who_is_out_of_a_room_hears_nothing_of_it(arena: Arena, how: str) -> None:
    async with arena(f"a member who {how}", api=True, **HERE) as field:
        async with field.member("ann", "tenant_1") as ann, field.member("eve", "tenant_1") as eve:
            if how == "left":
                assert (await eve.ask("leave-room", "tenant_1"))["event"] == "left-room"
            else:
                await field.http("POST", "/api/v1/rooms/tenant_1/kick", {"userId": "eve"}, token=field.token("op", role="operator"))
                await eve.message("room-closed")
            for number in range(50):
                ann.say("x", number, room="tenant_1")
            assert (await ann.ask("ping"))["event"] == "pong"
            eve.say("ping", ref="mark")
            assert (await eve.message())["event"] == "pong", "nothing came before it"
            assert (await eve.ask("leave-room", "tenant_1"))["data"]["code"] == "not_in_room"
            assert [one["userId"] for one in (await ann.ask("presence", "tenant_1"))["data"]["members"]] == ["ann"]


# — names that are taken for others —


async def test_names_of_tenants_and_rooms_that_are_taken_for_others(arena: Arena) -> None:
    """A tenant whose id is a pattern, a path or a part of another's gets the rooms that are called so, and no other's."""
    tenants = [
        "*",
        ".*",
        "1*",
        "{tenant_id}",
        "{user_id}",
        "1/..",
        "../1",
        "1 ",
        "\u0661",
        "\uff11",
        "1\u0307",
        "%31",
        "1|2",
        "1)(",
        "[1]",
        "1$",
        "^1",
    ]
    rooms = ["tenant_1", "tenant_1/..", "tenant_1/../tenant_1", "tenant_01", "TENANT_1", "tenant_1.", "1/a", "1/../2/a", "2/a", "tenant_", "/a"]
    async with arena("names taken for others", attackers=len(tenants), **HERE) as field:
        async with field.member("ann", "tenant_1", "1/a", "1/../2/a") as ann:
            assert (await ann.ask("x", "private", room="tenant_1"))["event"] == "ack"
            let_in = {}
            for tenant in tenants:
                async with field.member("eve", tenant_id=tenant) as eve:
                    found = [room for room in rooms if (await eve.ask("join-room", room))["event"] == "joined-room"]
                    own = [room for room in rooms if room == f"tenant_{tenant}" or room.startswith(f"{tenant}/")]
                    if found != own:
                        let_in[tenant] = found
            assert let_in == {}
            for room in rooms:
                is_own = room == "tenant_1" or room.startswith("1/")
                assert ((await ann.ask("history", {"roomId": room}))["event"] == "history") is is_own, room


# — what one user can learn of another —


async def test_ids_of_others(arena: Arena) -> None:
    """An id is its publisher's own: somebody else learns by it neither that it was used nor where, and takes it from nobody."""
    async with arena("ids of other users", **HERE) as field:
        async with field.member("ann", "tenant_1") as ann, field.member("eve", "tenant_1") as eve:
            first = (await ann.ask("x", "of ann", room="tenant_1", id="pay-1"))["data"]
            probe = (await eve.ask("x", "of eve", room="tenant_1", id="pay-1"))["data"]
            assert probe["duplicate"] is False and probe["offset"] == first["offset"] + 1
            taken = (await eve.ask("x", "of eve", room="tenant_1", id="pay-2"))["data"]
            after = (await ann.ask("x", "of ann", room="tenant_1", id="pay-2"))["data"]
            assert after["duplicate"] is False and after["offset"] == taken["offset"] + 1
            again = (await ann.ask("x", "of ann", room="tenant_1", id="pay-1"))["data"]
            assert again["duplicate"] is True and again["offset"] == first["offset"]


async def test_presence_says_who_and_in_which_role_and_no_more(arena: Arena) -> None:
    """Claims of a token (an address, a plan, a debt) are for the application."""
    async with arena("claims in presence", api=True, **HERE) as field:
        token = field.token("ann", claims={"email": "private@ann.example", "debt": 731})
        async with field.upgraded(f"Authorization: Bearer {token}") as ann, field.member("eve") as eve:
            said = [await ann.message("connected"), await eve.ask("join-room", {"roomId": "tenant_1", "presence": True})]
            said.append(await ann.ask("join-room", "tenant_1"))
            said += [await eve.message("user.joined"), await eve.ask("presence", "tenant_1")]
            operator = field.token("op", role="operator")
            for path in ("/rooms/tenant_1/presence", "/connections", "/nodes", "/acts"):
                said.append({"answer": str((await field.http("GET", f"/api/v1{path}", token=operator)).body)})
            assert not [one for one in said if "private@" in str(one) or "731" in str(one.get("data"))]
