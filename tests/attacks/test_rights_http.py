"""Everything that can be asked for over HTTP, by everybody who must not have it. What there is to ask for is read from the server's own description.

A route that is new has to get a row here: the first test fails until it has one.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from tests.attacks.arena import Arena, Field
from tests.attacks.test_rights import QUIET, written
from tests.network.raw import Response

AUTHORIZATION = {
    "permissions": {"tenant_{tenant_id}": ["read", "write"]},
    "roles": {"manager": {"tenant_{tenant_id}": ["read", "write", "manage"]}, "admin": {"*": ["manage"]}},
}
KEY = "rk_a_key_of_these_tests_alone_of_32_characters_or_more"
HERE: dict[str, Any] = {
    "authorization": AUTHORIZATION,
    "limits": QUIET,
    "http": {"api_keys": [KEY], "requests_per_second": None},
    "queue": {"queues": {"jobs": {}}},
    "api": True,
}
EVENT = {"event": "x", "data": "forged"}

Rows = dict[tuple[str, ...], Any]
"""The body by method, path, and where there are several of these what it is about."""

OF_ROOMS: Rows = {
    ("GET", "/rooms/{room}"): None,
    ("DELETE", "/rooms/{room}"): None,
    ("GET", "/rooms/{room}/presence"): None,
    ("GET", "/rooms/{room}/history"): None,
    ("POST", "/rooms/{room}/kick"): {"userId": "ann"},
    ("POST", "/publish"): EVENT | {"room": "{room}"},
}
OF_OPERATORS: Rows = {
    ("GET", "/connections"): None,
    ("GET", "/connections/{id}"): None,
    ("POST", "/disconnect"): {"userId": "ann"},
    ("POST", "/revoke"): {"userId": "ann"},
    ("POST", "/role"): {"userId": "ann", "role": "operator"},
    ("GET", "/queues"): None,
    ("GET", "/queues/{name}/dead"): None,
    ("POST", "/queues/{name}/requeue"): {},
    ("POST", "/queues/{name}/purge"): {"dead": False},
    ("GET", "/nodes"): None,
    ("GET", "/acts"): None,
}
LISTS: Rows = {
    ("GET", "/rooms"): None,
    ("POST", "/batch"): {"items": [EVENT | {"room": "{room}"}]},
    ("GET", "/instances"): None,
}
"""Which answer 200 to everybody with a token, and say in their answer what he may."""
FURTHER: Rows = {("POST", "/publish", "to a user"): EVENT | {"userId": "ann"}, ("POST", "/publish", "to all"): EVENT | {"all": True}}
"""For operators too."""


async def ask(field: Field, row: tuple[str, ...], body: Any, room: str = "tenant_1", **options: Any) -> Response:
    method, path, *_ = row
    path = path.format(room=room, id="abc", name="jobs")
    filled = body if body is None else _filled(body, room)
    return await field.http(method, f"/api/v1{path}", filled, *options.pop("fields", ()), **options)


def _filled(value: Any, room: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(part, room) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, room) for part in value]
    return room if value == "{room}" else value


ALL: Rows = {**OF_ROOMS, **OF_OPERATORS, **LISTS, **FURTHER}


async def test_every_route_has_a_row(arena: Arena) -> None:
    async with arena("the description of the API", api=True) as field:
        described = (await field.http("GET", "/api/openapi.json")).problem["paths"]
        routes = {(method.upper(), path) for path, item in described.items() for method in item}
        assert routes == OF_ROOMS.keys() | OF_OPERATORS.keys() | LISTS.keys()


async def test_nobody_gets_anything(arena: Arena) -> None:
    """Without a token, with a bad one, an expired one, one that was taken back, a wrong key, or a part of a right one: one answer."""
    async with arena("the API without a token", **HERE, authentication={"leeway": 0.5}) as field:
        expired, revoked = field.token("op", role="operator", expires_in=0.001), field.token("gone", role="operator")
        operator = field.token("op", role="operator")
        assert (await field.http("POST", "/api/v1/revoke", {"userId": "gone"}, token=operator)).status == 204
        await field.until_refused(expired)
        wrong: dict[Any, int] = {}
        answers: dict[str, set[bytes]] = {}
        keys = ["", "x", KEY[:-1], KEY + "x", KEY.upper(), "sha256:" + "0" * 64]
        given: dict[str, dict[str, Any]] = {"bad": {"token": "no.good.token"}, "expired": {"token": expired}, "revoked": {"token": revoked}}
        given |= {f"key {key!r}": {"fields": (f"X-API-Key: {key}",)} for key in keys} | {"nothing": {}}
        given |= {"an operator's token beside a bad key": {"token": operator, "fields": ("X-API-Key: x",)}}
        for name, options in given.items():
            for row, body in ALL.items():
                if row[1] == "/instances" and "token" in options and "fields" in options:
                    continue  # it takes tokens, and no keys
                response = await ask(field, row, body, **dict(options))
                if response.status != 401 or "forged" in str(response.body):
                    wrong[name, row] = response.status
                if row[1] != "/instances" and not name.startswith("key"):
                    answers.setdefault(name, set()).add(response.body)
        assert wrong == {}
        assert len(answers["bad"] | answers["expired"] | answers["revoked"]) == 1
        assert (await field.http("GET", "/metrics")).status == 401


CALLERS: dict[str, dict[str, Any]] = {
    "a user": {},
    "a user of another tenant": {"tenant_id": "2"},
    "a manager of another tenant": {"tenant_id": "2", "role": "manager"},
    "an operator by another name": {"role": "Operator"},
    "an admin of a tenant with a star": {"tenant_id": "*", "role": "manager"},
}


@pytest.mark.parametrize("who", CALLERS)
async def test_what_is_forbidden_and_what_is_not_there_are_one_answer(arena: Arena, who: str) -> None:
    async with arena(f"the API by {who}", **HERE) as field, field.member("ann", "tenant_1") as ann:
        token = field.token("eve", **CALLERS[who])
        wrong: Rows = {}
        for row, body in OF_ROOMS.items():
            there, absent = await ask(field, row, body, token=token), await ask(field, row, body, "tenant_7", token=token)
            if there.status != 403 or there.body.replace(b"tenant_1", b"tenant_7") != absent.body:
                wrong[row] = (there.body, absent.body)
        others: Rows = {**OF_OPERATORS, **FURTHER}
        for further, body in others.items():
            if (await ask(field, further, body, token=token)).status != 403:
                wrong[further] = (b"", b"")
        assert wrong == {}
        assert b"tenant_1" not in (await ask(field, ("GET", "/rooms"), None, token=token)).body
        batch = (await ask(field, ("POST", "/batch"), LISTS["POST", "/batch"], token=token)).problem
        assert (batch["published"], batch["results"][0]["status"]) == (0, 403)
        assert (await field.http("GET", "/metrics", token=token)).status == 403
        assert await written(ann, "tenant_1") == []
        assert [one["userId"] for one in (await ann.ask("presence", "tenant_1"))["data"]["members"]] == ["ann"]


async def test_a_manager_manages_his_rooms_and_nothing_else(arena: Arena) -> None:
    """The other side of the table: the rows are not refused for some other reason."""
    async with arena("the API by a manager", **HERE) as field, field.member("ann", "tenant_1") as ann:
        manager, admin = field.token("max", role="manager"), field.token("ada", role="admin")
        for row, body in sorted(OF_ROOMS.items(), key=lambda one: one[0][0] == "DELETE"):
            assert (await ask(field, row, body, token=manager)).status in (200, 204), row
        assert (await ann.message("room-closed"))["data"]["roomId"] == "tenant_1"
        for row, body in OF_OPERATORS.items():
            assert (await ask(field, row, body, token=manager)).status == 403, row
        for stream in ("all", "user:ann", "user:ada"):  # `*` of an admin: every room, and no stream
            for row, body in OF_ROOMS.items():
                assert (await ask(field, row, body, stream, token=admin)).status in (400, 403), (row, stream)
        for row, body in OF_OPERATORS.items():
            assert (await ask(field, row, body, fields=(f"X-API-Key: {KEY}",))).status in (200, 204, 404), row


async def test_paths_that_are_written_otherwise(arena: Arena) -> None:
    """A room is what its path says after decoding, once: nobody gets at another room, or past the gate, by writing it differently."""
    paths = [
        "/api/v1/rooms/tenant_2%2F..%2Ftenant_1",
        "/api/v1/rooms/tenant_2/../tenant_1",
        "/api/v1/rooms/%74enant_1",
        "/api/v1/rooms/tenant%255f1",
        "/api/v1//rooms/tenant_1",
        "/api/v1/./rooms/tenant_1",
        "/api/v1/rooms/tenant_1/",
        "/api/v1/rooms/tenant_1%00",
        "/api/v1/rooms/tenant_1;x=1",
        "/api/v1/rooms/TENANT_1",
        "/API/v1/rooms/tenant_1",
        "/api/v1/../v1/rooms/tenant_1",
        "/api/docs/../v1/rooms/tenant_1",
        "/api/docs/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/dashboard/../api/v1/rooms/tenant_1",
        "/dashboard/..%2f..%2fapi%2f__init__.py",
        "/dashboard/%2e%2e/%2e%2e/auth/keys.py",
        "/dashboard//etc/passwd",
        "/dashboard/..\\..\\keys.py",
        "/client.js/../dashboard/app.js%00",
    ]
    async with arena("paths written otherwise", attackers=len(paths), **HERE) as field, field.member("ann", "tenant_1") as ann:
        token = field.token("max", role="manager", tenant_id="2")
        found = {}
        for path in paths:
            for options in ({"token": token}, {}):
                response = await field.http("GET", path, **options)
                if response.status not in (400, 401, 403, 404) or b"import" in response.body or b"root:" in response.body:
                    found[path] = response.status
        assert found == {}
        assert (await ann.ask("ping"))["event"] == "pong"


async def test_methods_that_are_said_otherwise(arena: Arena) -> None:
    """What a header says of the method is not believed, and a parameter given twice is not chosen from."""
    async with arena("methods and parameters said twice", **HERE) as field, field.member("ann", "tenant_1"):
        token, operator = field.token("eve"), field.token("op", role="operator")
        for override in ("X-HTTP-Method-Override: DELETE", "X-Original-URL: /api/v1/nodes", "X-Rewrite-URL: /api/v1/nodes"):
            assert (await field.http("GET", "/api/v1/rooms/tenant_1", None, override, token=token)).status == 403
        for method in ("PUT", "PATCH", "TRACE", "DELETE"):
            assert (await field.http(method, "/api/v1/nodes", token=token)).status in (400, 405)
        assert (await field.http("GET", "/api/v1/rooms?limit=1&limit=1000", token=operator)).status == 422
        assert (await field.http("GET", "/api/v1/rooms?token=" + operator)).status == 401
        assert (await field.http("GET", "/api/v1/nodes", None, f"Authorization: Bearer {operator}", token=token)).status == 401, "two tokens"
        two = (f"X-API-Key: {KEY}", "X-API-Key: x")
        assert {(await field.http("GET", "/api/v1/nodes", None, *order)).status for order in (two, two[::-1])} == {401}, "two keys"


async def test_a_key_is_not_told_by_time(arena: Arena) -> None:
    async with arena("keys by time", **HERE | {"limits": QUIET | {"failed_authentications_per_minute": None}}) as field:
        times: dict[str, list[float]] = {key: [] for key in (KEY[:-1] + "x", "x" * len(KEY), "rk_" + "x" * 20)}
        async with field.raw() as connection:
            for _ in range(200):
                for key, found in times.items():
                    begin = time.perf_counter()
                    await connection.send(f"GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n\r\n".encode())
                    assert (await connection.response()).status == 401
                    found.append(time.perf_counter() - begin)
        medians = [statistics.median(found) for found in times.values()]
        field.figures["spread of medians, µs"] = round(1e6 * (max(medians) - min(medians)))
        assert max(medians) - min(medians) < 0.001
