"""People over HTTP: who is connected, and what an operator does about it."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.testing.server import MemoryServer
from tests.unit.admin.api.rig import Rig, check_problem


async def test_connections_by_what_is_known_of_them(rig: Rig) -> None:
    net = MemoryServer(rig.server)
    ann = await net.connect("ann", tenant_id="1", address="192.0.2.7")
    bob = await net.connect("bobolink", tenant_id="2")
    nobody = await net.connect(None, wait=False)
    await ann.request("join-room", "tenant_1")

    async def found(query: str) -> list[str | None]:
        body = (await rig.ask("GET", f"/connections?{query}")).json()
        assert body["total"] == 3 and body["matching"] >= len(body["connections"])
        return [one["userId"] for one in body["connections"]]

    assert set(await found("")) == {"ann", "bobolink", None}
    assert await found("userId=ann") == ["ann"] and await found("roomId=tenant_1") == ["ann"] and await found("search=192.0.2.7") == ["ann"]
    assert await found(f"search={nobody.socket.id.upper()}") == [None] and await found("search=BOBOLI") == ["bobolink"]
    assert len(await found("limit=2&order=outbox")) == 2
    told = (await rig.ask("GET", f"/connections/{ann.socket.id}")).json()["connection"]
    assert (told["rooms"], told["roomCount"], told["address"], told["state"]) == (["tenant_1"], 1, "192.0.2.7", "open")
    bob.close()


async def test_a_connection_nobody_remembers(rig: Rig) -> None:
    for id in ("never", "a%2Fb", "%00", "%C3%BC"):
        check_problem(await rig.ask("GET", f"/connections/{id}"), 404, "connection_not_found")
    check_problem(await rig.ask("GET", f"/connections/{'x' * 129}"), 422, "validation_failed")


async def test_closing_connections(rig: Rig) -> None:
    net = MemoryServer(rig.server)
    ann, again = await net.connect("ann"), await net.connect("ann")
    assert (await rig.ask("POST", "/disconnect", {"socketId": ann.socket.id, "code": 4000})).json() == {"count": 1}
    assert await ann.closed() == 4000
    assert (await rig.ask("POST", "/disconnect", {"userId": "ann"})).json() == {"count": 1} and await again.closed() == 4503
    assert (await rig.ask("POST", "/disconnect", {"userId": "ann"})).json() == {"count": 0}


@pytest.mark.parametrize(
    "body", [{}, {"userId": "a", "socketId": "b"}, {"userId": ""}, {"userId": "a", "code": 999}, {"userId": "a", "code": 1006},
             {"userId": "a", "code": 3000},
             {"userId": "a", "code": "4000"}, {"user_id": "a"}, {"userId": "x" * 1025}, [], "a", None, 5],
)  # fmt: skip
async def test_what_closes_nothing(rig: Rig, body: Any) -> None:
    answer = await rig.ask("POST", "/disconnect", b"null" if body is None else body)
    check_problem(answer, 422, "validation_failed")


async def test_revoking_and_changing_a_role(rig: Rig) -> None:
    net = MemoryServer(rig.server)
    ann, bob = await net.connect("ann"), await net.connect("bob")
    assert (await rig.ask("POST", "/role", {"userId": "bob", "role": "guest"})).json() == {"count": 1}
    assert bob.socket.user is not None and bob.socket.user.role == "guest"
    revoked = await rig.ask("POST", "/revoke", {"userId": "ann"})
    assert (revoked.status_code, revoked.content) == (204, b"") and await ann.closed() == 4503
    token = rig.server.auth.issue(user_id="carl", token_id="one")
    assert (await rig.ask("POST", "/revoke", {"tokenId": "one"})).status_code == 204
    check_problem(await rig.ask("GET", "/rooms", by=token), 401, "not_authenticated")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/revoke", {}), ("/revoke", {"userId": "a", "tokenId": "b"}), ("/revoke", {"userId": "a\nb"}), ("/role", {"userId": "a", "role": ""}),
     ("/role", {"userId": "a", "role": "a\tb"}), ("/role", {"userId": "a"})],
)  # fmt: skip
async def test_what_revokes_nothing_and_is_no_role(rig: Rig, path: str, body: Any) -> None:
    check_problem(await rig.ask("POST", path, body), 422, "validation_failed")


async def test_what_operators_did_is_in_the_audit_log(rig: Rig) -> None:
    net = MemoryServer(rig.server)
    ann = await net.connect("ann")
    await rig.ask("POST", "/disconnect", {"userId": "ann"}, by="operator")
    await ann.closed()
    acts = (await rig.ask("GET", "/acts?userId=ann&limit=10")).json()["acts"]
    assert "user:operator_1" in [act["by"] for act in acts if act["act"] == "disconnect"]
