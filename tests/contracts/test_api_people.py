"""The public API, "Connections", "Authentication and authorization"."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
import websockets

from aibos_realtime import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLimitExceeded,
    ConnectionMonitor,
    ConnectionPool,
    RealtimeError,
    RealtimeServer,
    TokenExpired,
    TokenRevoked,
    ValidationError,
    WebSocketAuth,
    WebSocketAuthorization,
)
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.types import ConnectionMetrics, User
from tests.contracts.peer import SECRET, connecting, joined, serving

AUTH = {"jwt_secret": SECRET}


# — connections —


async def test_the_pool(server: RealtimeServer) -> None:
    pool = server.pool
    async with joined(server) as _, joined(server) as _, joined(server, user_id="user_2") as _:
        assert len(pool) == 3 and len(list(pool)) == 3 and len(pool.get_all_connections()) == 3
        [first, second] = pool.get_user_connections("user_1")
        assert pool.get_connection(first.id) is first and pool.get_connection("nobody") is None
        assert pool.get_user_connections("nobody") == []
        pool.add_connection(first)
        assert len(pool) == 3, "adding one twice changes nothing"
        pool.remove_connection(first.id)
        assert pool.get_connection(first.id) is None and pool.get_user_connections("user_1") == [second] and len(pool) == 2
        pool.remove_connection(first.id)
        pool.add_connection(first)
        assert len(pool) == 3 and first in pool.get_user_connections("user_1")


async def test_a_full_pool(server: RealtimeServer) -> None:
    small = ConnectionPool(max_connections=1, connection_timeout=30, heartbeat_interval=30, heartbeat_timeout=60)
    async with joined(server) as _, joined(server) as _:
        first, second = server.pool.get_all_connections()
        small.add_connection(first)
        with pytest.raises(ConnectionLimitExceeded):
            small.add_connection(second)
        small.remove_connection(first.id)
        small.add_connection(second)


async def test_a_pool_of_ones_own_is_the_servers() -> None:
    pool = ConnectionPool(max_connections=1000, connection_timeout=30, heartbeat_interval=30, heartbeat_timeout=60)
    async with serving(connections=pool) as server, joined(server):
        assert len(pool) == 1 and len(pool.get_user_connections("user_1")) == 1


def count_ends(server: RealtimeServer) -> asyncio.Queue[str]:
    """One entry, the reason, for every connection that has ended."""
    ended: asyncio.Queue[str] = asyncio.Queue()
    server.on("disconnect", lambda socket, reason: ended.put_nowait(reason))
    return ended


async def test_the_monitor(server: RealtimeServer) -> None:
    ended = count_ends(server)
    monitor = ConnectionMonitor(pool=server.pool, metrics={"enable_metrics": True, "sample_rate": 1.0})
    before = await monitor.get_metrics()
    assert isinstance(before, ConnectionMetrics)
    assert (before.active_connections, before.total_connections, before.avg_duration, before.error_rate) == (0, 0, 0, 0)
    async with joined(server, "tenant_1") as peer:
        await peer.data("x", {}, room="tenant_1")
        during = await monitor.get_metrics()
        assert (during.active_connections, during.total_connections, during.error_rate) == (1, 1, 0)
        assert during.messages_in > 0 and during.messages_out > 0 and during.bytes_in > 0 and during.bytes_out > 0
    async with joined(server) as peer:
        await server.disconnect(user_id="user_1")
        await peer.closed()
    async with asyncio.timeout(5):
        await ended.get()
        await ended.get()
    after = await monitor.get_metrics()
    assert (after.active_connections, after.total_connections, after.peak_connections) == (0, 2, 1)
    assert after.avg_duration > 0 and 0 < after.error_rate <= 1, "one of two ended by an administrator"
    assert after.close_codes == {1000: 1, 4503: 1}
    assert await server.monitor.get_metrics() == after


async def test_avg_duration_is_in_seconds() -> None:
    clock = ManualClock()
    async with serving(clock=clock, heartbeat={"interval": None, "timeout": None}) as server:
        ended = count_ends(server)
        async with connecting(server, server.auth.issue(user_id="u")) as peer:
            await peer.next("connected")
            await clock.advance(40)
        await asyncio.wait_for(ended.get(), 5)
        assert (await server.monitor.get_metrics()).avg_duration == pytest.approx(40, abs=2)


@pytest.mark.parametrize("metrics", [{"enable_metric": True}, {"sample_rate": 2}, {"sample_rate": "all"}])
def test_a_mistake_in_the_monitors_options(metrics: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(metrics))):
        ConnectionMonitor(pool=ConnectionPool(), metrics=metrics)


BAD_POOLS = [{"max_connections": 0}, {"heartbeat_interval": 60, "heartbeat_timeout": 30}, {"connection_timeout": -1}]


@pytest.mark.parametrize("options", BAD_POOLS, ids=str)
def test_a_mistake_in_the_pools_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ConnectionPool(**options)


# — authentication —


async def test_the_program_of_the_page(server: RealtimeServer) -> None:
    auth = WebSocketAuth(jwt_secret=SECRET, token_header="Authorization", token_prefix="Bearer ", exclude_paths=["/health", "/status"])
    result = await auth.authenticate(None, auth.issue(user_id="user_123", role="admin", tenant_id="123", expires_in="24h"))
    assert result.success is True and result.error is None
    assert isinstance(result.user, User) and (result.user.id, result.user.role, result.user.tenant_id) == ("user_123", "admin", "123")
    refused = await auth.authenticate(None, "no good")
    assert refused.success is False and refused.user is None and isinstance(refused.error, str)


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "user_1", "exp": int(time.time()) + 60} | more


def token(payload: dict[str, Any], key: str = SECRET, algorithm: str | None = "HS256", **headers: Any) -> str:
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers or None)


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "no sub": {"exp": 1},
    "sub empty": claims(sub=""),
    "sub too long": claims(sub="x" * 129),
    "sub not printable": claims(sub="a\nb"),
    "sub with NUL": claims(sub="a\0"),
    "sub a number": claims(sub=5),
    "no exp": {"sub": "user_1"},
    "exp in the past": claims(exp=int(time.time()) - 3600),
    "exp a text": claims(exp="tomorrow"),
    "exp beyond thirty days": claims(exp=int(time.time()) + 31 * 86_400),
    "exp without end": claims(exp=1e400),
    "nbf in the future": claims(nbf=int(time.time()) + 600),
    "iat in the future": claims(iat=int(time.time()) + 600),
    "role a list": claims(role=["admin"]),
    "tenant a number": claims(tenant_id=5),
}


@pytest.mark.parametrize("payload", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_claims_that_are_refused(payload: dict[str, Any]) -> None:
    payload = payload if "exp" not in payload or payload["exp"] != 1 else payload | {"exp": int(time.time()) + 60}
    assert (await WebSocketAuth(jwt_secret=SECRET).authenticate(None, token(payload))).success is False


async def test_claims() -> None:
    auth = WebSocketAuth(jwt_secret=SECRET)
    user = (await auth.authenticate(None, token(claims(department="sales", jti="x", iat=int(time.time()))))).user
    assert user is not None and (user.id, user.role, user.tenant_id) == ("user_1", "user", None)
    assert user.claims == {"department": "sales"}
    assert (await auth.authenticate(None, token(claims(sub="x" * 128)))).success is True


FORGED = {
    "another key": lambda: token(claims(), key=SECRET[::-1]),
    "another algorithm": lambda: token(claims(), key=SECRET + SECRET, algorithm="HS512"),
    "no algorithm": lambda: token(claims(), key="", algorithm=None),
    "a key in the header": lambda: token(claims(), jwk={"kty": "oct", "k": "AAAA"}),
    "critical": lambda: token(claims(), crit=["nothing-that-is-known"]),
    "empty": lambda: "",
    "three dots": lambda: "...",
    "not ASCII": lambda: "ü.ü.ü",
    "huge": lambda: "a" * 100_000,
    "surrogates": lambda: "\ud800.a.b",
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED.keys())
async def test_forged_tokens(make: Any) -> None:
    result = await WebSocketAuth(jwt_secret=SECRET).authenticate(None, make())
    good_error = (await WebSocketAuth(jwt_secret=SECRET).authenticate(None, "x")).error
    assert result.success is False and result.error == good_error, "one answer for every failure"


async def test_audience_and_issuer_are_exact() -> None:
    auth = WebSocketAuth(jwt_secret=SECRET, audience="realtime", issuer="https://app.aibos.com")
    good = claims(aud="realtime", iss="https://app.aibos.com")
    assert (await auth.authenticate(None, token(good))).success is True
    for change in ({"aud": "realtime2"}, {"aud": None}, {"iss": "https://app.aibos.com/"}, {"iss": None}):
        payload = {key: value for key, value in (good | change).items() if value is not None}
        assert (await auth.authenticate(None, token(payload))).success is False
    assert (await auth.authenticate(None, auth.issue(user_id="u"))).success is True


async def test_leeway() -> None:
    late = token(claims(exp=int(time.time()) - 5))
    assert (await WebSocketAuth(jwt_secret=SECRET, leeway=30).authenticate(None, late)).success is True
    assert (await WebSocketAuth(jwt_secret=SECRET, leeway=0).authenticate(None, late)).success is False


@pytest.mark.parametrize("expires_in", ["24h", "30m", "90s", "7d", 86_400, timedelta(hours=1)], ids=str)
async def test_issue(expires_in: Any) -> None:
    auth = WebSocketAuth(jwt_secret=SECRET)
    result = await auth.authenticate(None, auth.issue(user_id="user_1", expires_in=expires_in))
    assert result.success is True


WRONG_TO_ISSUE: list[dict[str, Any]] = [{"user_id": ""}, {"user_id": "x" * 129}, {"user_id": "a\n"}]
WRONG_TO_ISSUE += [{"user_id": "u", "expires_in": "31d"}, {"user_id": "u", "expires_in": "soon"}]


@pytest.mark.parametrize("given", WRONG_TO_ISSUE, ids=lambda given: str(given)[:40])
def test_issue_refuses_what_it_would_not_accept(given: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, ConfigurationError)):
        WebSocketAuth(jwt_secret=SECRET).issue(**given)


async def test_identify_tells_the_application_why() -> None:
    clock = ManualClock()
    auth = WebSocketAuth(jwt_secret=SECRET, clock=clock)
    kept = auth.issue(user_id="user_1", token_id="one", expires_in=60)
    other = auth.issue(user_id="user_2", expires_in=60)
    await auth.revoke(token_id="one")
    with pytest.raises(TokenRevoked):
        await auth.identify(kept)
    assert (await auth.identify(other)).user.id == "user_2"
    await clock.advance(120)
    with pytest.raises(TokenExpired):
        await auth.identify(other)
    with pytest.raises(AuthenticationError) as caught:
        await auth.identify("x.y.z")
    assert "x.y.z" not in str(caught.value) and caught.value.__cause__ is None


async def test_revoking_a_user_leaves_him_a_new_token() -> None:
    clock = ManualClock()
    auth = WebSocketAuth(jwt_secret=SECRET, clock=clock)
    old = auth.issue(user_id="user_1")
    await auth.revoke(user_id="user_1")
    assert (await auth.authenticate(None, old)).success is False
    await clock.advance(2)
    assert (await auth.authenticate(None, auth.issue(user_id="user_1"))).success is True


async def test_revoke_asks_for_exactly_one() -> None:
    auth = WebSocketAuth(jwt_secret=SECRET)
    with pytest.raises(RealtimeError):
        await auth.revoke()
    with pytest.raises(RealtimeError):
        await auth.revoke(user_id="a", token_id="b")


async def test_another_header_and_prefix() -> None:
    async with serving(authentication=AUTH | {"token_header": "X-Token", "token_prefix": ""}) as server:
        async with connecting(server, headers={"X-Token": server.auth.issue(user_id="user_1")}) as peer:
            assert (await peer.next("connected"))["data"]["user"]["id"] == "user_1"


async def test_the_query_string_where_it_is_switched_on() -> None:
    async with serving(authentication=AUTH | {"query_parameter": "token"}) as server:
        async with connecting(server, path=f"/?token={server.auth.issue(user_id='user_1')}") as peer:
            assert (await peer.next("connected"))["data"]["user"]["id"] == "user_1"


async def test_guessing_tokens_is_slowed_down_and_good_tokens_are_not(server: RealtimeServer) -> None:
    async def guess() -> None:
        with pytest.raises(websockets.InvalidStatus):
            async with connecting(server, "no.good.token"):
                pass

    for _ in range(5):
        await guess()
    guessing = asyncio.create_task(guess())
    async with joined(server):
        assert not guessing.done(), "the sixth bad one waits for its answer; a good one does not"
    await asyncio.wait_for(guessing, 5)


# — authorization —


async def test_the_authorization_of_the_page() -> None:
    authz = WebSocketAuthorization(permissions={"tenant_123": ["read", "write"], "tenant_456": ["read"]})
    user = User(id="user_1")
    assert await authz.check_permission(user, "tenant_123", "write") is True
    assert await authz.check_permission(user, "tenant_456", "read") is True
    assert await authz.check_permission(user, "tenant_456", "write") is False
    assert await authz.check_permission(user, "tenant_789", "read") is False
    assert await authz.check_permission(None, "tenant_123", "read") is False


async def test_without_configuration_it_is_ones_own_tenant() -> None:
    authz = WebSocketAuthorization()
    user = User(id="user_1", tenant_id="1")
    for action in ("read", "write"):
        assert await authz.check_permission(user, "tenant_1", action) is True
        for room in ("tenant_2", "tenant_11", "tenant_", "tenant_1:x", "all", "user:user_2", "anything"):
            assert await authz.check_permission(user, room, action) is False, room
        assert await authz.check_permission(User(id="user_1"), "tenant_", action) is False
        assert await authz.check_permission(User(id="user_1"), "tenant_None", action) is False
    assert await authz.check_permission(user, "tenant_1", "manage") is False


async def test_roles_and_patterns() -> None:
    roles = {"admin": {"tenant_{tenant_id}": ["read", "write", "manage"]}, "auditor": {"tenant_*": ["read"]}}
    authz = WebSocketAuthorization(permissions={"bench:*": ["read"]}, roles=roles)
    admin, auditor = User(id="a", role="admin", tenant_id="1"), User(id="b", role="auditor", tenant_id="1")
    assert await authz.check_permission(admin, "tenant_1", "manage") is True
    assert await authz.check_permission(admin, "tenant_2", "read") is False
    assert await authz.check_permission(auditor, "tenant_2", "read") is True
    assert await authz.check_permission(auditor, "tenant_2", "write") is False
    assert await authz.check_permission(auditor, "bench:1", "read") is True
    assert await authz.check_permission(auditor, "benchmark", "read") is False


@pytest.mark.parametrize("tenant_id", ["*", "?", "[a-z]", "1*", ""])
async def test_a_tenant_is_never_a_pattern(tenant_id: str) -> None:
    authz = WebSocketAuthorization(roles={"user": {"tenant_{tenant_id}": ["read"], "tenant_{tenant_id}:*": ["read"]}})
    user = User(id="a", tenant_id=tenant_id)
    for room in ("tenant_1", "tenant_12", "tenant_a", "tenant_:x", "tenant_1:x"):
        assert await authz.check_permission(user, room, "read") is False, room


async def test_a_check_of_ones_own() -> None:
    asked: list[tuple[str | None, str, str]] = []

    async def check(user: User, resource: str, action: str) -> bool:
        asked.append((user.id, resource, action))
        return resource == "project_1"

    async with serving(authorization={"check": check}) as server, joined(server, "project_1") as peer:
        assert ("user_1", "project_1", "read") in asked
        await peer.data("x", room="project_1")
        assert ("user_1", "project_1", "write") in asked
        assert (await peer.ask("join-room", "project_2"))["event"] == "permission_denied"


async def test_a_check_that_fails_says_no_to_one_request(server: RealtimeServer) -> None:
    async def check(user: User, resource: str, action: str) -> bool:
        if resource == "bad":
            raise ValueError("the database is away")
        return True

    async with serving(authorization={"check": check}) as guarded, joined(guarded, "good") as peer:
        answer = await peer.ask("join-room", "bad")
        assert answer["event"] in ("error", "permission_denied") and "database" not in str(answer)
        await peer.data("x", room="good")


async def test_handlers_can_ask(server: RealtimeServer) -> None:
    async with joined(server):
        [socket] = server.pool
        assert await server.authorization.check_permission(socket.user, "tenant_1", "write") is True
        assert await server.authorization.check_permission(socket.user, "tenant_2", "write") is False
