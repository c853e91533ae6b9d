"""The protocol, "Connection": the handshake, who one is, and how a connection ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec.msgpack as pack
import pytest
import websockets

from aibos_realtime import RealtimeServer
from aibos_realtime.testing.clock import ManualClock
from tests.contracts.peer import PROTOCOL, SECRET, Peer, connecting, joined, open_by_hand, read_frame, serving


@asynccontextmanager
async def serving_by_hand(**options: Any) -> AsyncIterator[tuple[RealtimeServer, ManualClock]]:
    clock = ManualClock()
    async with serving(clock=clock, **options) as server:
        yield server, clock


async def refused(connection: Any) -> websockets.InvalidStatus:
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with connection:
            raise AssertionError("the handshake was accepted")
    return caught.value


# — the first message —


async def test_connected_says_everything_that_the_protocol_lists(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1", tenant_id="1", role="admin")
    async with connecting(server, token) as peer:
        message = await peer.next("connected")
    assert set(message) == {"event", "data"}
    data = message["data"]
    assert set(data) == {"socketId", "protocol", "node", "user", "expiresAt", "heartbeat", "limits", "streams"}
    assert data["protocol"] == 1
    assert isinstance(data["socketId"], str) and isinstance(data["node"], str)
    assert data["user"] == {"id": "user_1", "role": "admin", "tenantId": "1"}
    assert isinstance(data["expiresAt"], int | float)
    assert data["heartbeat"] == {"interval": 30, "timeout": 60}
    assert data["limits"]["messageBytes"] == 65536 and data["limits"]["rooms"] == 128
    assert set(data["streams"]) == {"user:user_1", "all"}
    assert all(set(position) == {"epoch", "offset"} for position in data["streams"].values())


async def test_without_a_token_one_is_connected_as_nobody(server: RealtimeServer) -> None:
    async with connecting(server) as peer:
        data = (await peer.next("connected"))["data"]
    assert data["user"] is None and data["expiresAt"] is None
    assert not data.get("streams")


@pytest.mark.parametrize("path", ["", "/", "/ws"])
async def test_paths(server: RealtimeServer, path: str) -> None:
    async with connecting(server, path=path) as peer:
        await peer.next("connected")


async def test_no_websocket_on_another_path(server: RealtimeServer) -> None:
    assert (await refused(connecting(server, path="/elsewhere"))).response.status_code == 404


# — where the token comes from —


async def test_a_bad_token_in_the_header_is_401_before_the_upgrade(server: RealtimeServer) -> None:
    assert (await refused(connecting(server, "no.good.token"))).response.status_code == 401


async def test_every_bad_token_gets_the_same_401(server: RealtimeServer) -> None:
    other = RealtimeServer(authentication={"jwt_secret": SECRET[::-1]})
    good = server.auth.issue(user_id="u")
    answers = set()
    for token in ("", "x", "a.b.c", good[:-2], other.auth.issue(user_id="u"), good + "."):
        response = (await refused(connecting(server, token))).response
        answers.add((response.status_code, bytes(response.body or b"")))
    assert len(answers) == 1 and next(iter(answers))[0] == 401


async def test_a_token_in_the_subprotocol(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1")
    async with connecting(server, protocols=[PROTOCOL, f"bearer.{token}"]) as peer:
        assert (await peer.next("connected"))["data"]["user"]["id"] == "user_1"
        assert peer.connection.subprotocol == PROTOCOL


async def test_a_bad_token_in_the_subprotocol_is_4500_after_the_upgrade(server: RealtimeServer) -> None:
    async with connecting(server, protocols=[PROTOCOL, "bearer.no.good.token"]) as peer:
        assert await peer.closed() == 4500


async def test_an_unknown_version_is_4506(server: RealtimeServer) -> None:
    async with connecting(server, protocols=["aibos.realtime.v99"]) as peer:
        assert await peer.closed() == 4506


async def test_the_query_string_is_not_looked_at_by_default(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1")
    async with connecting(server, path=f"/?token={token}&access_token={token}") as peer:
        assert (await peer.next("connected"))["data"]["user"] is None


# — authenticate —


@pytest.mark.parametrize("shape", [lambda token: token, lambda token: {"token": token}], ids=["text", "object"])
async def test_authenticate(server: RealtimeServer, shape: Callable[[str], Any]) -> None:
    token = server.auth.issue(user_id="user_1", tenant_id="1")
    async with connecting(server) as peer:
        await peer.next("connected")
        answer = await peer.ask("authenticate", shape(token))
        assert answer["event"] == "authenticated"
        data = answer["data"]
        assert data["success"] is True
        assert data["user"] == {"id": "user_1", "role": "user", "tenantId": "1"}
        assert isinstance(data["expiresAt"], int | float)
        assert set(data["streams"]) == {"user:user_1", "all"}
        assert (await peer.data("join-room", "tenant_1"))["roomId"] == "tenant_1"


async def test_authenticate_with_a_bad_token(server: RealtimeServer) -> None:
    async with connecting(server) as peer:
        await peer.next("connected")
        answer = await peer.ask("authenticate", "no.good.token")
        assert answer["event"] == "authenticated"
        assert set(answer["data"]) == {"success", "error"}
        assert answer["data"]["success"] is False and isinstance(answer["data"]["error"], str)
        assert await peer.closed() == 4500


async def test_a_token_past_its_end_says_no_more_than_a_forged_one(server: RealtimeServer) -> None:
    other = RealtimeServer(authentication={"jwt_secret": SECRET}, clock=ManualClock())
    texts = set()
    for token in (other.auth.issue(user_id="u"), "no.good.token"):
        async with connecting(server) as peer:
            texts.add((await peer.ask("authenticate", token))["data"]["error"])
    assert len(texts) == 1


async def test_not_authenticated_in_time() -> None:
    async with serving_by_hand(limits={"authentication_seconds": 10}) as (server, clock), connecting(server) as peer:
        await peer.next("connected")
        await clock.advance(8)
        await peer.ask("ping")
        await clock.advance(4)
        assert await peer.closed() == 4502


async def test_whoever_authenticated_in_time_stays() -> None:
    async with serving_by_hand(limits={"authentication_seconds": 10}, heartbeat={"interval": None, "timeout": None}) as (server, clock):
        async with connecting(server) as peer:
            await peer.data("authenticate", server.auth.issue(user_id="u"))
            await clock.advance(60)
            await peer.ask("ping")


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("join-room", {"data": "tenant_1"}),
    ("leave-room", {"data": "tenant_1"}),
    ("history", {"data": {"roomId": "tenant_1"}}),
    ("presence", {"data": {"roomId": "tenant_1"}}),
    ("invoice.created", {"data": {}, "room": "tenant_1"}),
]


@pytest.mark.parametrize(("event", "members"), REQUESTS, ids=[event for event, _ in REQUESTS])
async def test_nobody_may_nothing(server: RealtimeServer, event: str, members: dict[str, Any]) -> None:
    async with connecting(server) as peer:
        await peer.next("connected")
        data = await peer.refusal(event, **members)
        assert data["code"] == "not_authenticated" and data["retryable"] is False
        assert (await peer.ask("ping"))["event"] == "pong"


# — refresh, expiry, revocation —


async def test_a_refresh_keeps_the_connection(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        data = await peer.data("authenticate", {"token": server.auth.issue(user_id="user_1", tenant_id="1", role="admin")})
        assert data["success"] is True and data["user"]["role"] == "admin"
        await peer.data("x", room="tenant_1")
        assert (await peer.next())["room"] == "tenant_1"


async def test_a_refresh_as_another_user_is_refused(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        answer = await peer.ask("authenticate", server.auth.issue(user_id="user_2", tenant_id="1"))
        assert answer["event"] != "authenticated" or answer["data"]["success"] is False
        assert server.pool.get_user_connections("user_2") == []


async def test_a_refresh_that_takes_a_right_away_ends_the_membership(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        await peer.data("authenticate", server.auth.issue(user_id="user_1", tenant_id="2"))
        closed = await peer.next("room-closed")
        assert closed["data"]["roomId"] == "tenant_1" and closed["data"]["reason"]
        await server.broadcaster.broadcast_to_room("tenant_1", "x", {})
        assert await peer.heard() == []


async def test_expiry_is_announced_and_then_enforced() -> None:
    options = {"jwt_secret": SECRET, "leeway": 0, "expiry_grace": 25}
    async with serving_by_hand(authentication=options, heartbeat={"interval": None, "timeout": None}) as (server, clock):
        token = server.auth.issue(user_id="u", expires_in=600)
        async with connecting(server, token) as peer:
            expires_at = (await peer.next("connected"))["data"]["expiresAt"]
            assert expires_at == pytest.approx(clock.now() + 600, abs=1)
            await clock.advance(599)
            assert (await peer.next("token-expiring"))["data"] == {"expiresAt": expires_at}
            await clock.advance(30)
            assert await peer.closed() == 4005


async def test_a_refresh_in_time_moves_the_expiry() -> None:
    options = {"jwt_secret": SECRET, "leeway": 0, "expiry_grace": 5}
    async with serving_by_hand(authentication=options, heartbeat={"interval": None, "timeout": None}) as (server, clock):
        async with connecting(server, server.auth.issue(user_id="u", expires_in=600)) as peer:
            await clock.advance(599)
            await peer.next("connected")
            await peer.next("token-expiring")
            data = await peer.data("authenticate", server.auth.issue(user_id="u", expires_in=600))
            assert data["expiresAt"] == pytest.approx(clock.now() + 600, abs=1)
            await clock.advance(500)
            await peer.ask("ping")


async def revoke_user(server: RealtimeServer) -> None:
    await server.auth.revoke(user_id="user_1")


async def revoke_token(server: RealtimeServer) -> None:
    await server.auth.revoke(token_id="token-1")


async def disconnect_user(server: RealtimeServer) -> None:
    await server.disconnect(user_id="user_1")


@pytest.mark.parametrize("act", [revoke_user, revoke_token, disconnect_user])
async def test_4503(server: RealtimeServer, act: Callable[[RealtimeServer], Awaitable[None]]) -> None:
    token = server.auth.issue(user_id="user_1", token_id="token-1")
    async with connecting(server, token) as peer, joined(server, user_id="user_2") as other:
        await peer.next("connected")
        await act(server)
        assert await peer.closed() == 4503
        await other.ask("ping")
    if act is not disconnect_user:
        assert (await refused(connecting(server, token))).response.status_code == 401


async def test_disconnect_by_socket_id(server: RealtimeServer) -> None:
    async with joined(server) as one, joined(server) as two:
        [first, _] = server.pool.get_user_connections("user_1")
        await server.disconnect(socket_id=first.id)
        assert await one.closed() == 4503
        await two.ask("ping")


# — no entry —


async def test_an_origin_that_is_not_on_the_list() -> None:
    async with serving(cors={"origin": ["https://app.aibos.com"], "credentials": True}) as server:
        async with connecting(server, origin="https://app.aibos.com") as peer:
            await peer.next("connected")
        for origin in ("https://app.aibos.com.example.com", "http://app.aibos.com", "https://app.aibos.com:8443", "null"):
            assert (await refused(connecting(server, origin=origin))).response.status_code == 403


async def test_by_default_pages_of_the_same_host_may_connect(server: RealtimeServer) -> None:
    async with connecting(server, origin=server.url.replace("ws://", "http://")) as peer:
        await peer.next("connected")
    assert (await refused(connecting(server, origin="https://app.aibos.com"))).response.status_code == 403


async def test_no_place_is_503() -> None:
    async with serving(connections={"max_connections": 1}) as server, connecting(server) as peer:
        await peer.next("connected")
        response = (await refused(connecting(server))).response
        assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("limit", [{"handshakes_per_second": 1}, {"handshakes_per_second_per_address": 1, "handshakes_burst_per_address": 2}])
async def test_too_fast_is_429(limit: dict[str, Any]) -> None:
    async with serving_by_hand(limits=limit) as (server, clock):
        for _ in range(2):
            async with connecting(server) as peer:
                await peer.next("connected")
        response = (await refused(connecting(server))).response
        assert response.status_code == 429 and int(response.headers["Retry-After"]) >= 1
        await clock.advance(1)
        async with connecting(server) as peer:
            await peer.next("connected")


async def test_connections_of_one_user() -> None:
    async with serving(limits={"connections_per_user": 1}) as server, joined(server) as first:
        async with connecting(server, server.auth.issue(user_id="user_1")) as second:
            assert await second.closed() == 4504
        async with connecting(server) as third:
            await third.next("connected")
            await third.send("authenticate", server.auth.issue(user_id="user_1"))
            assert await third.closed() == 4504
        await first.ask("ping")


async def test_connections_of_one_address() -> None:
    async with serving(limits={"connections_per_address": 1}) as server, connecting(server) as first:
        await first.next("connected")
        assert (await refused(connecting(server))).response.status_code in (429, 503)


# — life and end —


async def test_ping_and_pong(server: RealtimeServer) -> None:
    async with connecting(server) as peer:
        await peer.next("connected")
        for ref in (7, "eight"):
            answer = await peer.ask("ping", ref=ref)
            assert answer["event"] == "pong" and answer["ref"] == ref and answer.get("data") is None
        await peer.send("ping")
        assert (await peer.next("pong")).get("ref") is None


async def test_a_peer_that_answers_pings_stays() -> None:
    async with serving_by_hand(heartbeat={"interval": 30, "timeout": 60}) as (server, clock):
        async with connecting(server, server.auth.issue(user_id="u")) as peer:
            await peer.next("connected")
            for _ in range(3):
                await clock.advance(31)
                await (await peer.connection.ping())
            await peer.ask("ping")


async def test_a_peer_without_a_sign_of_life_is_pinged_and_then_closed() -> None:
    async with serving_by_hand(heartbeat={"interval": 30, "timeout": 60}) as (server, clock):
        reader, writer = await open_by_hand(server, server.auth.issue(user_id="u"))
        try:
            async with asyncio.timeout(5):
                assert json.loads((await read_frame(reader))[1])["event"] == "connected"
                await clock.advance(32)
                assert (await read_frame(reader))[0] == 0x9
                await clock.advance(32)
                opcode, payload = await read_frame(reader)
            assert opcode == 0x8 and int.from_bytes(payload[:2], "big") == 4012
        finally:
            writer.close()
            await writer.wait_closed()


async def test_stopping_tells_when_to_come_back() -> None:
    async with serving() as server, joined(server) as peer:
        await server.stop(drain=1)
        data = (await peer.next("reconnect"))["data"]
        assert set(data) <= {"delayMin", "delayMax", "reason", "url"} and data["reason"]
        assert 0 <= data["delayMin"] <= data["delayMax"]
        assert await peer.closed() == 4001


async def test_messagepack(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1", tenant_id="1")
    async with connecting(server, token, protocols=[f"{PROTOCOL}.msgpack"]) as peer, joined(server, "tenant_1", user_id="user_2") as other:
        assert peer.connection.subprotocol == f"{PROTOCOL}.msgpack"

        async def receive() -> Any:
            frame = await asyncio.wait_for(peer.connection.recv(), 5)
            assert isinstance(frame, bytes)
            return pack.decode(frame)

        assert (await receive())["event"] == "connected"
        await peer.send_text(pack.encode({"event": "join-room", "data": "tenant_1", "ref": 1}))
        assert (await receive())["data"]["roomId"] == "tenant_1"
        await other.data("x", {"a": [1, None, "ü"]}, room="tenant_1")
        event = await receive()
        assert event | {"id": "", "timestamp": ""} == (await other.next("x")) | {"id": "", "timestamp": ""}
        await peer.send_text(pack.encode({"event": "y", "data": {"b": 2}, "room": "tenant_1", "ref": 2}))
        assert {(await receive())["event"] for _ in range(2)} == {"ack", "y"}
        assert (await other.next("y"))["data"] == {"b": 2}


async def test_a_connection_that_closes_itself_is_forgotten(server: RealtimeServer) -> None:
    gone = asyncio.Event()
    server.on("disconnect", lambda socket, reason: gone.set())
    async with connecting(server) as peer:
        await peer.next("connected")
        assert isinstance(peer, Peer) and len(server.pool) == 1
    async with asyncio.timeout(5):
        await gone.wait()
    assert len(server.pool) == 0
