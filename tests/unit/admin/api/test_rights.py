"""Every route, and everybody who may ask it or not."""

from __future__ import annotations

import pytest

from aibos_realtime.admin.api.app import create_routes
from aibos_realtime.admin.api.document import describe
from tests.unit.admin.api.rig import Rig, check_problem, running

CALLERS = ("nobody", "bad token", "bad key", "guest", "user", "admin", "manager", "operator", "key")
"""`admin`: of a tenant, without the right to manage. `manager`: of the room tenant_1."""

# (method, path, body, what the manager of tenant_1 is answered). Operators get whatever is not 401 or 403, others 403.
ROOM = [
    ("POST", "/publish", {"room": "tenant_1", "event": "a"}, 200),
    ("GET", "/rooms/tenant_1", None, 200),
    ("GET", "/rooms/tenant_1/presence", None, 200),
    ("GET", "/rooms/tenant_1/history", None, 200),
    ("POST", "/rooms/tenant_1/kick", {"userId": "nobody"}, 404),
    ("DELETE", "/rooms/tenant_1", None, 204),
]
OTHER = [
    ("POST", "/publish", {"room": "tenant_2", "event": "a"}, 403),
    ("GET", "/rooms/tenant_2", None, 403),
    ("GET", "/rooms/missing", None, 403),
    ("GET", "/rooms/tenant_2/presence", None, 403),
    ("GET", "/rooms/tenant_2/history", None, 403),
    ("POST", "/rooms/tenant_2/kick", {"userId": "nobody"}, 403),
    ("DELETE", "/rooms/tenant_2", None, 403),
]
OPERATORS = [
    ("GET", "/connections", None, 403),
    ("GET", "/connections/abc", None, 403),
    ("POST", "/disconnect", {"userId": "nobody"}, 403),
    ("POST", "/revoke", {"userId": "nobody"}, 403),
    ("POST", "/role", {"userId": "nobody", "role": "user"}, 403),
    ("GET", "/queues", None, 403),
    ("GET", "/queues/work/dead", None, 403),
    ("POST", "/queues/work/requeue", {}, 403),
    ("POST", "/queues/work/purge", {"dead": True}, 403),
    ("GET", "/nodes", None, 403),
    ("GET", "/acts", None, 403),
]
OPEN = [("GET", "/rooms", None, 200), ("POST", "/batch", {"items": [{"room": "tenant_1", "event": "a"}]}, 200)]
"""Answered to everybody who is known, with what is his; a batch has a result for each item."""


def fields(rig: Rig, caller: str) -> dict[str, str]:
    if caller == "nobody":
        return {}
    if caller == "bad token":
        return {"Authorization": "Bearer " + rig.server.auth.issue(user_id="a", role="operator")[:-4] + "AAAA"}
    return {"X-API-Key": "rk_this_key_was_never_given_to_anybody"} if caller == "bad key" else rig.fields(caller)


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_may_ask_what(caller: str) -> None:
    async with running(limits={"failed_authentications_per_minute": None}) as rig:
        for tenant in "12":
            await rig.server.rooms.create_room(f"tenant_{tenant}")
        for method, path, body, of_manager in ROOM + OTHER + OPERATORS + OPEN:
            answer = await rig.ask(method, path, body, by=None, headers=fields(rig, caller))
            where = (caller, method, path, answer.status_code)
            if caller in ("nobody", "bad token", "bad key"):
                check_problem(answer, 401, "not_authenticated")
                assert answer.headers["www-authenticate"] == "Bearer", where
            elif caller in ("operator", "key"):
                assert answer.status_code in (200, 204, 404), where
            elif caller == "manager":
                assert answer.status_code == of_manager, where
            elif (method, path) in [(one[0], one[1]) for one in OPEN]:
                assert answer.status_code == 200 and not answer.json().get("rooms") and not answer.json().get("published"), where
            else:
                check_problem(answer, 403, "permission_denied")


def test_the_table_has_every_route() -> None:
    document = describe(create_routes())
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item} - {("GET", "/instances")}
    names = {"tenant_1": "{room}", "work": "{name}", "abc": "{id}"}
    asked = {(method, "/".join(names.get(part, part) for part in path.split("/"))) for method, path, _, _ in ROOM + OPERATORS + OPEN}
    assert asked == told


async def test_a_missing_room_and_one_of_others_are_answered_alike(rig: Rig) -> None:
    await rig.server.rooms.create_room("tenant_2")
    for path in ("", "/presence", "/history"):
        there, missing = [await rig.ask("GET", f"/rooms/{room}{path}", by="manager") for room in ("tenant_2", "tenant_3")]
        assert (there.status_code, there.content) == (missing.status_code, missing.content)


async def test_a_token_that_was_revoked_or_lost_its_role_asks_no_more(rig: Rig) -> None:
    token = rig.server.auth.issue(user_id="op", role="operator")
    assert (await rig.ask("GET", "/nodes", by=token)).status_code == 200
    assert (await rig.ask("POST", "/revoke", {"userId": "op"})).status_code == 204
    check_problem(await rig.ask("GET", "/nodes", by=token), 401, "not_authenticated")


async def test_which_roles_operate_is_an_option() -> None:
    async with running(http={"operator_roles": "support, boss"}) as rig:
        assert [(await rig.ask("GET", "/nodes", by=role)).status_code for role in ("support", "boss", "operator")] == [200, 200, 403]


async def test_failed_authentications_count_as_those_of_handshakes_do() -> None:
    async with running(limits={"failed_authentications_per_minute": 1}) as rig:
        for _ in range(2):
            answer = await rig.ask("GET", "/rooms", by=None)
            check_problem(answer, 401, "not_authenticated")
        assert answer.elapsed.total_seconds() >= 0.9
        assert (await rig.ask("GET", "/rooms")).status_code == 200


async def test_the_api_can_be_switched_off() -> None:
    async with running(http={"api": False}) as rig:
        assert (await rig.ask("GET", "/rooms")).status_code == 404
