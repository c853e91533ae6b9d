"""The handshake on raw sockets: capacity, pace, time, and what comes before and behind it. The matrices are in `tests/attacks`."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme

from aibos_realtime import RealtimeServer
from aibos_realtime.errors import AuthenticationError
from aibos_realtime.protocol.frames import TEXT
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.transport.websocket import WebSocketTransport
from tests.network.raw import MASK, echoes, frame, make_server, raw, request, serving, text, upgraded

pytestmark = pytest.mark.usefixtures("clean_log")

APP = "https://app.example"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_a_wrong_version_is_told_the_right_one() -> None:
    async with serving() as server, raw(server.port) as connection:
        await connection.send(request(fields={"Sec-WebSocket-Version": "8"}))
        assert (await connection.response()).fields["sec-websocket-version"] == "13"


async def test_one_answer_for_every_bad_token() -> None:
    clock = ManualClock()
    async with serving(clock=clock, limits={"failed_authentications_per_minute": None}) as server:
        good = server.auth.issue(user_id="ann")
        expired = server.auth.issue(user_id="ann", expires_in=60)
        await clock.advance(120)
        answers = set()
        for token in ("", "x", "a.b.c", good[:-3] + "AAA", good + ".", expired):
            async with raw(server.port) as connection:
                await connection.send(request(f"Authorization: Bearer {token}"))
                response = await connection.response()
                answers.add((response.status, response.body))
    [(status, body)] = answers
    assert status == 401 and AuthenticationError.default_message.encode() in body


# — capacity and pace —


async def test_no_place() -> None:
    async with serving(connections={"max_connections": 1}) as server, upgraded(server.port) as first:
        async with raw(server.port) as second:
            await second.send(request())
            response = await second.response()
        assert response.status == 503 and int(response.fields["retry-after"]) >= 1 and response.problem["retryable"] is True
        await first.message("connected")
        await echoes(first)


@pytest.mark.parametrize(
    "limits",
    [{"handshakes_per_second": 1}, {"handshakes_per_second_per_address": 1, "handshakes_burst_per_address": 2}, {"connections_per_address": 2}],
)
async def test_too_many(limits: dict[str, Any]) -> None:
    clock = ManualClock()
    async with serving(clock=clock, limits=limits) as server:
        async with upgraded(server.port), upgraded(server.port), raw(server.port) as third:
            await third.send(request())
            response = await third.response()
        assert response.status == 429 and int(response.fields["retry-after"]) >= 1
        assert (response.problem["code"], response.problem["retryable"]) == ("rate_limited", True)


async def test_a_place_that_is_taken_while_a_handshake_waits() -> None:
    """The answer to a bad token in the subprotocol comes a second late; meanwhile the last place goes to somebody else."""
    clock = ManualClock()
    limits = {"failed_authentications_per_minute": 1}
    async with serving(clock=clock, limits=limits, connections={"max_connections": 1}) as server:
        bad = request("Sec-WebSocket-Protocol: aibos.realtime.v1, bearer.no.good.token")
        async with raw(server.port) as first:
            await first.send(bad)
            assert (await first.response()).status == 101
            assert await first.close_code() == 4500
        async with raw(server.port) as late:
            await late.send(bad)
            async with asyncio.timeout(5):
                await clock.until_planned(1.0)
            async with upgraded(server.port) as other:
                await other.message("connected")
                await clock.advance(1.0)
                assert (await late.response()).status == 503
                await late.ended()
                await echoes(other)


async def test_a_handshake_that_waits_while_the_server_stops() -> None:
    clock = ManualClock()
    async with serving(clock=clock, limits={"failed_authentications_per_minute": 1}) as server:
        async with raw(server.port) as first:
            await first.send(request("Authorization: Bearer no.good.token"))
            assert (await first.response()).status == 401
        async with raw(server.port) as waiting:
            await waiting.send(request("Authorization: Bearer no.good.token"))
            async with asyncio.timeout(5):
                await clock.until_planned(1.0)
                await server.stop(drain=0)
            assert await waiting.ended() == b""


# — time —


async def test_a_head_that_does_not_come() -> None:
    async with serving(limits={"handshake_seconds": 0.2}) as server, raw(server.port) as silent, raw(server.port) as slow:
        await slow.send(request()[:40])
        response = await slow.response()
        assert (response.status, response.problem["retryable"]) == (408, True)
        assert await slow.ended() == b""
        assert await silent.ended() == b""


async def test_a_head_byte_by_byte_has_no_more_time() -> None:
    async with serving(limits={"handshake_seconds": 0.3}) as server, raw(server.port) as slow:
        answer = asyncio.ensure_future(slow.response())
        for byte in request()[:-1]:
            slow.write(bytes((byte,)))
            await asyncio.wait((answer,), timeout=0.02)
            if answer.done():
                break
        assert (await answer).status == 408


async def test_an_empty_line_after_an_answer_does_not_keep_the_connection() -> None:
    async with serving(limits={"handshake_seconds": 0.2}) as server, raw(server.port) as connection:
        await connection.send(HEALTH)
        assert (await connection.response()).status == 200
        await connection.send(b"\r\n")
        assert b"200" not in await connection.ended()


async def test_a_body_that_does_not_come_does_not_keep_the_connection() -> None:
    async with serving(limits={"handshake_seconds": 0.2}) as server, raw(server.port) as connection:
        await connection.send(b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nfew")
        assert (await connection.response()).status == 405
        await connection.send(b"more")
        assert await connection.ended() == b""


# — HTTP beside it —


async def test_keep_alive_then_an_upgrade() -> None:
    async with serving() as server, raw(server.port) as connection:
        for _ in range(3):
            await connection.send(HEALTH)
            response = await connection.response()
            assert (response.status, response.body) == (200, b'{"status":"ok"}')
        await connection.send(request())
        assert (await connection.response()).status == 101
        await connection.message("connected")
        await echoes(connection)


@pytest.mark.parametrize("count", [1, 3])
async def test_pipelined_requests_are_answered_in_order_and_then_upgraded(count: int) -> None:
    async with serving() as server, raw(server.port) as connection:
        await connection.send(HEALTH * count + request() + text({"event": "ping", "ref": "early"}))
        for _ in range(count):
            response = await connection.response()
            assert (response.status, response.body) == (200, b'{"status":"ok"}')
        assert (await connection.response()).status == 101
        await connection.message("connected")
        assert (await connection.message())["ref"] == "early"
        await echoes(connection)


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    for bad, status in ((b"no HTTP\r\n\r\n", 400), (request(line="GET /x HTTP/1.1"), 404), (request("X: " + "a" * 9000), 431)):
        async with serving() as server, raw(server.port) as connection:
            await connection.send(HEALTH + bad)
            assert (await connection.response()).status == 200
            assert (await connection.response()).status == status
            assert await connection.ended() == b""


async def test_another_upgrade_than_ours_is_answered_as_if_it_were_none() -> None:
    async with serving() as server, raw(server.port) as connection:
        further = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
        await connection.send(f"GET /health HTTP/1.1\r\nHost: localhost\r\n{further}\r\n\r\n".encode())
        assert (await connection.response()).status == 200
        assert await connection.ended() == b""


async def test_early_bytes_come_after_the_welcome() -> None:
    early = text({"event": "ping", "ref": 1}) + text({"event": "ping", "ref": 2})[:5]
    async with serving() as server, upgraded(server.port, data=early) as connection:
        await connection.send(text({"event": "ping", "ref": 2})[5:])
        assert (await connection.message())["event"] == "connected"
        assert [(await connection.message())["ref"] for _ in range(2)] == [1, 2]


async def test_a_request_byte_by_byte() -> None:
    async with serving() as server, raw(server.port) as connection:
        for byte in request() + text({"event": "ping", "ref": 1}):
            connection.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await connection.response()).status == 101
        await connection.message("connected")
        assert (await connection.message())["ref"] == 1


async def test_health_checks() -> None:
    async with serving() as server:
        rows = [
            (b"GET /health HTTP/1.0\r\n\r\n", "GET", 200),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET", 200),
            (b"HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HEAD", 200),
            (b"GET /ready HTTP/1.0\r\n\r\n", "GET", 200),
            (b"GET /status HTTP/1.0\r\n\r\n", "GET", 200),
            (b"HEAD /nothing HTTP/1.0\r\n\r\n", "HEAD", 404),
            (b"DELETE /health HTTP/1.0\r\n\r\n", "DELETE", 405),
        ]
        for sent, method, status in rows:
            async with raw(server.port) as connection:
                await connection.send(sent)
                response = await connection.response(method=method)
                assert response.status == status and int(response.fields["content-length"]) > 0
                assert await connection.ended() == b""


async def test_a_plain_request_needs_one_host() -> None:
    for fields in (b"", b"Host: a\r\nHost: b\r\n"):
        async with serving() as server, raw(server.port) as connection:
            await connection.send(b"GET /health HTTP/1.1\r\n" + fields + b"\r\n")
            assert (await connection.response()).status == 400


async def test_a_body_beside_its_head_is_not_taken_for_one() -> None:
    async with serving() as server, raw(server.port) as connection:
        await connection.send(b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + bytes(50000) + HEALTH)
        assert (await connection.response()).status == 405
        assert (await connection.response()).status == 200


async def test_options() -> None:
    async with serving(cors={"origin": [APP], "credentials": True}) as server, raw(server.port) as connection:
        for origin, allowed in ((APP, APP), ("https://evil.example", None)):
            await connection.send(f"OPTIONS /health HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\n\r\n".encode())
            response = await connection.response()
            assert response.status == 204 and "content-length" not in response.fields
            assert response.fields.get("access-control-allow-origin") == allowed
        await connection.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await connection.response()).status == 204


# — proxies and TLS —


async def remote_address(server: RealtimeServer, *further: str) -> str:
    async with upgraded(server.port, *further) as connection:
        await connection.message("connected")
        [socket] = server.pool
        return socket.remote_address


async def test_forwarded_addresses_are_believed_from_trusted_proxies_alone() -> None:
    forwarded = "X-Forwarded-For: 203.0.113.9, 198.51.100.7"
    for trusted, expected in (
        ([], "127.0.0.1"),
        (["10.0.0.0/8"], "127.0.0.1"),
        (["127.0.0.1"], "198.51.100.7"),
        (["127.0.0.0/8", "198.51.100.0/24"], "203.0.113.9"),
    ):
        gone = asyncio.Event()
        async with serving(trusted_proxies=trusted) as server:
            server.on("disconnect", lambda socket, reason, gone=gone: gone.set())
            assert await remote_address(server, forwarded) == expected
            async with asyncio.timeout(5):
                await gone.wait()
            assert await remote_address(server, "X-Forwarded-For: not an address") == "127.0.0.1"


async def test_limits_of_an_address_are_those_of_the_client_behind_a_trusted_proxy() -> None:
    async with serving(trusted_proxies=["127.0.0.1"], limits={"connections_per_address": 1}) as server:
        async with upgraded(server.port, "X-Forwarded-For: 203.0.113.1"), upgraded(server.port, "X-Forwarded-For: 203.0.113.2"):
            async with raw(server.port) as third:
                await third.send(request("X-Forwarded-For: 203.0.113.2"))
                assert (await third.response()).status == 429


async def test_a_forged_address_does_not_escape_its_limit() -> None:
    async with serving(limits={"connections_per_address": 1}) as server, upgraded(server.port, "X-Forwarded-For: 203.0.113.1"):
        async with raw(server.port) as second:
            await second.send(request("X-Forwarded-For: 203.0.113.2"))
            assert (await second.response()).status == 429


async def test_a_proxy_that_ended_tls_makes_the_origin_https() -> None:
    for proto, status in (("https", 403), ("http", 101)):
        async with serving(trusted_proxies=["127.0.0.1"]) as server, raw(server.port) as connection:
            await connection.send(request("Origin: http://localhost", f"X-Forwarded-Proto: {proto}"))
            assert (await connection.response()).status == status


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_tls_takes_the_same_path() -> None:
    for_server, for_client = tls_contexts()
    server = make_server(tls=for_server)
    async with server:
        assert server.url.startswith("wss://")
        token = server.auth.issue(user_id="ann", tenant_id="1")
        async with upgraded(server.port, f"Authorization: Bearer {token}", data=text({"event": "ping", "ref": 0}), tls=for_client) as connection:
            await connection.message("connected")
            assert (await connection.message())["ref"] == 0
            assert (await connection.ask("join-room", "tenant_1"))["event"] == "joined-room"
            assert (await connection.ask("x", "a" * 60_000, room="tenant_1"))["event"] == "ack"
            [socket] = server.pool
            assert isinstance(socket.transport, WebSocketTransport)
            await connection.send(bytes((0x83, 0x80)) + MASK)
            assert await connection.close_code() == 1002
            await connection.ended()
        for sent, status in ((request(line="POST / HTTP/1.1"), 405), (request(fields={"Host": None}), 400), (HEALTH, 200), (b"no HTTP\r\n\r\n", 400)):
            async with raw(server.port, tls=for_client) as connection:
                await connection.send(sent)
                assert (await connection.response()).status == status
        async with raw(server.port, tls=for_client) as connection:
            await connection.send(request("Origin: http://localhost"))
            assert (await connection.response()).status == 403
        async with raw(server.port) as plain:
            await plain.send(request())
            assert b"HTTP" not in await plain.ended()


async def test_an_address_that_floods_does_not_lock_out_another() -> None:
    async with serving(limits={"handshakes_per_second_per_address": 1, "handshakes_burst_per_address": 1}) as server:
        async with upgraded(server.port, source="127.0.0.2"):
            async with raw(server.port, source="127.0.0.2") as second:
                await second.send(request())
                assert (await second.response()).status == 429
            async with upgraded(server.port, source="127.0.0.3") as other:
                await other.message("connected")
                await echoes(other)


async def test_the_first_frame_may_come_with_the_welcome_unread() -> None:
    async with serving() as server, upgraded(server.port, data=frame(TEXT, b"no message")) as connection:
        await connection.message("connected")
        assert (await connection.message("error"))["data"]["code"] == "bad_request"
        await echoes(connection)
