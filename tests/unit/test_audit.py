"""The audit log: what is kept, what is logged, and what a flood leaves of it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from aibos_realtime.admin.reports import ActReport
from aibos_realtime.audit import KEPT, KEPT_OF_STRANGERS, KINDS_OF_STRANGERS, Audit, AuditEntry, acting, actor
from aibos_realtime.cli.logs import JsonFormatter
from aibos_realtime.errors import AuthenticationError
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.server import MemoryServer, memory_server

OPEN = {"permissions": {"*": ["read", "write"]}}
LOGGER = "aibos_realtime.audit"


def acts(found: Any) -> list[tuple[str, str | None]]:
    """Oldest first."""
    return [(entry.act, entry.user_id) for entry in (found.latest(1000) if isinstance(found, Audit) else found)][::-1]


def audit_of(net: MemoryServer) -> Audit:
    return net.server._parts.audit


# — keeping —


def test_the_latest_first_and_of_one_connection_or_user() -> None:
    clock = ManualClock()
    audit = Audit(clock)
    for user in ("ann", "bob", "ann"):
        clock._monotonic += 1
        audit.note("connect", user_id=user, socket_id=f"s-{user}")
    assert [entry.user_id for entry in audit.latest()] == ["ann", "bob", "ann"]
    assert audit.latest()[0].time == clock.now()
    assert [entry.user_id for entry in audit.latest(2)] == ["ann", "bob"] and audit.latest(0) == []
    assert len(audit.latest(user_id="ann")) == 2 and len(audit.latest(1, user_id="ann")) == 1 and len(audit.latest(socket_id="s-bob")) == 1


async def test_a_flood_of_refusals_leaves_the_rest_and_is_told_in_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    clock = ManualClock()
    audit = Audit(clock)
    audit.note("connect", user_id="ann")
    for second in range(3):
        for number in range(10_000):
            audit.note_stranger("refuse", code=429, address=f"192.0.2.{number % 250}")
        audit.note_stranger("refuse", code=401, address="192.0.2.7")
        await clock.advance(0.5 if second == 2 else 1.0)
    refused = [entry for entry in audit.latest(1000) if entry.code == 429][::-1]
    assert [entry.count for entry in refused] == [1, 9_999, 10_000] and all(entry.address for entry in refused)
    await clock.advance(5.0)
    assert sum(entry.count for entry in audit.latest(1000) if entry.code == 429) == 30_000
    assert sum(entry.count for entry in audit.latest(1000) if entry.code == 401) == 3
    assert ("connect", "ann") in acts(audit) and clock.planned == []
    assert len(caplog.records) == 1 + 4 + 3 and audit.held_back == 30_000 - 4


async def test_the_ring_of_strangers_is_bounded_as_the_other_one() -> None:
    clock = ManualClock()
    audit = Audit(clock)
    for number in range(KEPT_OF_STRANGERS + 100):
        audit.note_stranger("refuse", code=number)
        if number % KINDS_OF_STRANGERS == KINDS_OF_STRANGERS - 1:
            await clock.advance(2.0)
    for _ in range(KEPT + 100):
        audit.note("connect")
    found = audit.latest(10_000)
    assert sum(entry.act == "refuse" for entry in found) == KEPT_OF_STRANGERS and sum(entry.act == "connect" for entry in found) == KEPT
    await clock.advance(2.0)
    assert audit._held == {} and clock.planned == []


async def test_codes_that_strangers_choose_are_no_kinds_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """A peer closes with a code of its choice, and each had a line of its own: two thousand a second."""
    caplog.set_level(logging.INFO, LOGGER)
    clock = ManualClock()
    audit = Audit(clock)
    for code in range(3000, 5000):
        audit.note_stranger("disconnect", code=code)
    assert len(caplog.records) == KINDS_OF_STRANGERS + 1
    await clock.advance(3.0)
    assert sum(entry.count for entry in audit.latest(1000)) == 2000 and audit._held == {}


def test_the_line_has_what_is_known_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    Audit(ManualClock(), node="eu-1").note("kick", user_id="ann", room_id="lobby", by="key:0123abcd")
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert {name: line[name] for name in line if name not in ("time", "process")} == {
        "level": "info", "logger": LOGGER, "message": "kick", "user_id": "ann", "room_id": "lobby", "by": "key:0123abcd",
        "node": "eu-1",
    }  # fmt: skip


def test_the_report_has_every_member() -> None:
    assert set(ActReport.model_fields) - {"node"} == set(AuditEntry.__struct_fields__)


async def test_who_acts_is_known_in_the_task_and_nowhere_else() -> None:
    seen: list[str | None] = []

    async def other() -> None:
        seen.append(actor())

    task = asyncio.create_task(other())
    with acting("user:olga"):
        await settle()
        await other()
        with acting("key:1"):
            await other()
        await other()
    await other()
    await task
    assert seen == [None, "user:olga", "key:1", "user:olga", None]


# — what a server notes —


async def test_one_connections_life() -> None:
    async with memory_server(authorization=OPEN) as net:
        ann = await net.connect("ann", tenant_id="t1", address="198.51.100.7")
        ann.close()
        await ann.closed()
        came, went = audit_of(net).latest(socket_id=ann.socket.id)[::-1]
        assert (came.act, came.user_id, came.tenant_id, came.address) == ("connect", "ann", "t1", "198.51.100.7")
        assert (went.act, went.user_id, went.tenant_id, went.address, went.code) == ("disconnect", "ann", "t1", "198.51.100.7", 1000)


async def test_authenticating_later_once_and_not_at_each_fresh_token() -> None:
    async with memory_server() as net:
        ann = await net.connect()
        for _ in range(2):
            await ann.request("authenticate", {"token": net.server.auth.issue(user_id="ann")})
        await net.server.set_role("ann", "admin")
        assert acts(audit_of(net)) == [("authenticate", "ann"), ("role", "ann")]
        assert net.server.metrics.authentications == 1


async def test_an_application_that_lets_somebody_in_itself_is_noted_too() -> None:
    async with memory_server() as net:

        @net.server.on("connection")
        async def let_in(socket: Any) -> None:
            socket.user = {"id": "eve", "role": "user"}

        await net.connect()
        assert acts(audit_of(net)) == [("connect", "eve")]


async def test_a_bad_token_and_a_stranger_who_goes() -> None:
    async with memory_server() as net:
        eve = await net.connect(address="203.0.113.9")
        with pytest.raises(AuthenticationError):
            answer = await eve.request("authenticate", {"token": "nonsense"})
            raise AuthenticationError(answer["error"])
        assert await eve.closed() == 4500
        refused, went = audit_of(net).latest()[::-1]
        assert (refused.act, refused.code, refused.address) == ("refuse", 401, "203.0.113.9")
        assert (went.act, went.code, went.user_id, went.socket_id) == ("disconnect", 4500, None, eve.socket.id)
        assert net.server.metrics.authentications_failed == 1


async def test_what_the_application_does_to_people() -> None:
    async with memory_server(authorization=OPEN) as net:
        server, audit = net.server, audit_of(net)
        for user in ("ann", "bob", "eve"):
            await (await net.connect(user)).request("join-room", "lobby")
        await server.rooms.kick("lobby", "ann")
        await server.disconnect(user_id="ann", code=4001)
        await server.auth.revoke(user_id="bob")
        await server.auth.revoke(token_id="t-1")
        await settle()
        found = {entry.act: entry for entry in audit.latest() if entry.act != "disconnect"}
        assert (found["kick"].user_id, found["kick"].room_id, found["kick"].by) == ("ann", "lobby", None)
        revoked = [entry for entry in audit.latest() if entry.act == "revoke"][::-1]
        assert [(entry.user_id, entry.reason) for entry in revoked] == [("bob", None), (None, "token t-1")]
        ended = [(entry.user_id, entry.code, entry.reason) for entry in audit.latest() if entry.act == "disconnect"][::-1]
        assert sorted(ended, key=str) == [("ann", 4001, "on request, 1 connection"), ("ann", 4001, None), ("bob", 4503, None)]


async def test_what_an_operator_does_is_noted_once_under_his_name() -> None:
    async with memory_server(authorization=OPEN) as net:
        from aibos_realtime.auth.operators import Caller

        operations, audit, olga = net.server._operation.operations, audit_of(net), Caller("user:olga", None, True)
        await (await net.connect("ann")).request("join-room", "lobby")
        await operations.kick(olga, "lobby", "ann")
        await operations.set_role(olga, "ann", "admin")
        await operations.disconnect(olga, user_id="ann")
        await operations.revoke(olga, user_id="ann")
        await settle()
        by_olga = [entry.act for entry in audit.latest() if entry.by == "user:olga"][::-1]
        assert by_olga == ["kick", "role", "disconnect", "revoke"]
        assert sorted(entry.act for entry in audit.latest() if entry.by is None) == ["connect", "disconnect"]  # the connection's own life


async def test_a_kick_that_did_not_happen_is_not_noted() -> None:
    async with memory_server(authorization=OPEN) as net:
        from aibos_realtime import RoomNotFound

        with pytest.raises(RoomNotFound):
            await net.server.rooms.kick("nowhere", "ann")
        assert acts(audit_of(net)) == []


async def test_nothing_secret_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with memory_server(authorization=OPEN) as net:
        token = net.server.auth.issue(user_id="ann")
        ann = await net.connect()
        await ann.request("authenticate", {"token": token})
        await ann.request("note", {"text": "payload-of-ann"}, room="lobby")
        ann.close()
        await ann.closed()
        everything = caplog.text + "".join(map(repr, audit_of(net).latest(1000))) + "".join(str(vars(record)) for record in caplog.records)
        assert token not in everything and token.rpartition(".")[2] not in everything and "payload-of-ann" not in everything
