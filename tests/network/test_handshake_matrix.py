"""The handshake on raw sockets: every good request gets its 101, every bad one its status, one sentence, and the end; none a traceback."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import pytest
import trustme

from aibos_realtime import RealtimeServer
from aibos_realtime.errors import AuthenticationError
from aibos_realtime.protocol.frames import TEXT
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.transport.websocket import WebSocketTransport
from tests.network.raw import ACCEPT, KEY, MASK, echoes, frame, make_server, raw, request, serving, text, upgraded

pytestmark = pytest.mark.usefixtures("clean_log")

Fields = dict[str, str | None]
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

GOOD: dict[str, bytes] = {
    "as in the RFC": request(),
    "as Firefox": request(fields={"Connection": "keep-alive, Upgrade"}),
    "Connection in two fields": request("Connection: keep-alive"),
    "Connection in two fields, the other way round": request("Connection: Upgrade", fields={"Connection": "keep-alive"}),
    "Upgrade in other letters": request(fields={"Upgrade": "WebSocket", "Connection": "UPGRADE"}),
    "a list in Upgrade": request(fields={"Upgrade": "h2c, websocket"}),
    "Upgrade in two fields": request("Upgrade: h2c"),
    "names in lower case": request().lower().replace(b"get / http", b"GET / HTTP").replace(KEY.lower().encode(), KEY.encode()),
    "the other path": request(line="GET /ws HTTP/1.1"),
    "with a query": request(line="GET /?a=b HTTP/1.1"),
    "an absolute URL": request(line="GET http://localhost/ws HTTP/1.1"),
    "empty lines before it": b"\r\n\r\n" + request(),
    "60 fields": request(*(f"X-{number}: a" for number in range(55))),
    "a long field": request("X: " + "a" * 8000),
    "a long URL": request(line="GET /?" + "a" * 8000 + " HTTP/1.1"),
    "an extension that nobody knows": request("Sec-WebSocket-Extensions: x-foo; y=1"),
    "a foreign subprotocol": request("Sec-WebSocket-Protocol: soap"),
    "no subprotocol in the list": request("Sec-WebSocket-Protocol: "),
}
BAD: dict[str, tuple[bytes, int]] = {
    "POST": (request(line="POST / HTTP/1.1"), 405),
    "PUT": (request(line="PUT / HTTP/1.1"), 405),
    "CONNECT": (request(line="CONNECT localhost:1 HTTP/1.1"), 400),
    "a method in lower case": (request(line="get / HTTP/1.1"), 400),
    "HTTP/1.0": (request(line="GET / HTTP/1.0"), 400),
    "HTTP/2.0": (request(line="GET / HTTP/2.0"), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),
    "HTTP/2's first words": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no path": (request(line="GET ws HTTP/1.1"), 400),
    "a path that is not ASCII": (request(line="GET /\xff HTTP/1.1"), 400),
    "another path": (request(line="GET /other HTTP/1.1"), 404),
    "two slashes": (request(line="GET //host/ws HTTP/1.1"), 404),
    "no Host": (request(fields={"Host": None}), 400),
    "two Hosts": (request("Host: other"), 400),
    "an empty Host": (request(fields={"Host": ""}), 400),
    "no Upgrade": (request(fields={"Upgrade": None}), 426),
    "no Connection": (request(fields={"Connection": None}), 426),
    "another Upgrade": (request(fields={"Upgrade": "h2c"}), 426),
    "no key": (request(fields={"Sec-WebSocket-Key": None}), 400),
    "a short key": (request(fields={"Sec-WebSocket-Key": "c2hvcnQ="}), 400),
    "a long key": (request(fields={"Sec-WebSocket-Key": "A" * 44}), 400),
    "a key that is not base64": (request(fields={"Sec-WebSocket-Key": "!" * 24}), 400),
    "two keys": (request(f"Sec-WebSocket-Key: {KEY}"), 400),
    "no version": (request(fields={"Sec-WebSocket-Version": None}), 426),
    "version 8": (request(fields={"Sec-WebSocket-Version": "8"}), 426),
    "two versions": (request("Sec-WebSocket-Version: 8"), 426),
    "a folded field": (request("X: a", " b"), 400),
    "a space before the colon": (request("X : a"), 400),
    "NUL": (request("X: a\0b"), 400),
    "a control character": (request("X: a\x01b"), 400),
    "a bare line feed": (request().replace(b"websocket\r\n", b"websocket\n"), 400),
    "line feeds alone": (request().replace(b"\r\n", b"\n"), 400),
    "two lengths at odds": (request("Content-Length: 4", "Transfer-Encoding: chunked", line="POST / HTTP/1.1"), 400),
    "200 fields": (request(*(f"X-{number}: a" for number in range(200))), 431),
    "2,000 fields": (request(*(f"X-{number}: a" for number in range(2000))), 431),
    "a field of 16 KiB": (request("X: " + "a" * 16384), 431),
    "a field without an end": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, 431),
    "fields of 20 KiB in all": (request(*(f"X-{number}: " + "a" * 5000 for number in range(4))), 431),
    "a URL of 9 KiB": (request(line="GET /?" + "a" * 9216 + " HTTP/1.1"), 414),
    "a URL of 64 KiB": (request(line="GET /?" + "a" * 65536 + " HTTP/1.1"), 414),
    "extensions that are no list": (request('Sec-WebSocket-Extensions: permessage-deflate; a="b'), 400),
    "subprotocols with a hole": (request("Sec-WebSocket-Protocol: a,,b"), 400),
    "a subprotocol twice": (request("Sec-WebSocket-Protocol: a, a"), 400),
    "7,000 spaces in the subprotocols": (request("Sec-WebSocket-Protocol: b" + " " * 7000 + "c"), 400),
    "two tokens in the subprotocols": (request("Sec-WebSocket-Protocol: bearer.a, bearer.b"), 400),
    "two Origins": (request("Origin: http://localhost", "Origin: http://localhost"), 400),
    "a bad token": (request("Authorization: Bearer no.good.token"), 401),
    "two tokens": (request("Authorization: Bearer a", "Authorization: Bearer b"), 401),
    "another Origin": (request("Origin: https://evil.example"), 403),
}


@pytest.mark.parametrize("sent", GOOD.values(), ids=GOOD)
async def test_good_requests(sent: bytes) -> None:
    async with serving() as server:
        async with raw(server.port) as connection:
            await connection.send(sent)
            response = await connection.response()
            assert response.status == 101
            assert response.fields["sec-websocket-accept"] == ACCEPT
            assert (response.fields["upgrade"].lower(), response.fields["connection"].lower()) == ("websocket", "upgrade")
            assert "sec-websocket-protocol" not in response.fields and "sec-websocket-extensions" not in response.fields
            await connection.message("connected")
            await echoes(connection)


@pytest.mark.parametrize(("sent", "status"), BAD.values(), ids=BAD)
async def test_bad_requests(sent: bytes, status: int) -> None:
    async with serving() as server:
        async with raw(server.port) as connection:
            begin = time.perf_counter()
            await connection.send(sent)
            response = await connection.response()
            assert time.perf_counter() - begin < 1.0
            assert response.status == status
            assert response.fields["content-type"] == "application/json"
            assert set(response.problem) == {"code", "message", "retryable"}
            assert response.problem["message"].endswith((".", "`"))
            assert response.problem["retryable"] is False
            if status == 426:
                assert response.fields["upgrade"] == "websocket"
            if status == 405:
                assert "GET" in response.fields["allow"]
            if response.fields.get("connection") == "close":
                assert await connection.ended() == b""
        async with upgraded(server.port) as canary:
            await canary.message("connected")
            await echoes(canary)
        assert len(server.pool) <= 1


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


# — origin (cross-site WebSocket hijacking) —

APP = "https://app.example"
ORIGINS: dict[str, tuple[str | None, int]] = {
    "on the list": (APP, 101),
    "the other on the list, with its port": ("https://admin.example:8443", 101),
    "in capitals": ("HTTPS://APP.EXAMPLE", 101),
    "the default port written out": (f"{APP}:443", 101),
    "none: not a browser": (None, 101),
    "null": ("null", 403),
    "empty": ("", 403),
    "not TLS": ("http://app.example", 403),
    "another port": (f"{APP}:8443", 403),
    "a port left out": ("https://admin.example", 403),
    "a suffix": ("https://evilapp.example", 403),
    "a prefix": ("https://app.example.evil.example", 403),
    "a trailing dot": ("https://app.example.", 403),
    "user information": ("https://app.example@evil.example", 403),
    "two in one": (f"{APP}, {APP}", 403),
    "two with a space": (f"{APP} https://evil.example", 403),
    "with a path": (f"{APP}/", 403),
    "a look-alike": ("https://\xe0pp.example", 403),
    "a file": ("file://", 403),
    "a star": ("*", 403),
}


@pytest.mark.parametrize(("origin", "status"), ORIGINS.values(), ids=ORIGINS)
async def test_origins(origin: str | None, status: int) -> None:
    async with serving(cors={"origin": [APP, "https://admin.example:8443"], "credentials": True}) as server, raw(server.port) as connection:
        await connection.send(request("Cookie: session=1", fields={"Origin": origin}))
        response = await connection.response()
        assert response.status == status
        if status == 403:
            assert "cors.origin" in response.problem["message"]


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost", "localhost", 101),
        ("http://localhost:3001", "localhost:3001", 101),
        ("http://LOCALHOST", "localhost", 101),
        ("https://localhost", "localhost", 101),
        ("http://localhost:3001", "localhost:3002", 403),
        ("http://app.example", "localhost", 403),
        ("null", "localhost", 403),
    ],
)
async def test_without_a_list_the_origin_is_the_host(origin: str, host: str, status: int) -> None:
    async with serving() as server, raw(server.port) as connection:
        await connection.send(request(fields={"Origin": origin, "Host": host}))
        assert (await connection.response()).status == status


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
        for sent, status in ((BAD["POST"][0], 405), (BAD["no key"][0], 400), (HEALTH, 200), (BAD["200 fields"][0], 431)):
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
