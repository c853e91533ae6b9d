"""Handshakes that are made to be misread: every bad one gets its status and the end, every good one its 101, on each road into the server.

Beside RFC 6455, section 4.2.1, the rows are what front ends and back ends are known to read in two ways (RFC 9112, section 11).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.attacks.arena import Arena, Field
from tests.network.raw import ACCEPT, KEY, Raw, Response, echoes, frame, request, text

Fields = dict[str, str | None]
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON = 0.05
"""Seconds within which a handshake is decided."""

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
    "7,000 spaces behind the subprotocol": request("Sec-WebSocket-Protocol: b" + " " * 7000),
    "300 offers of one extension": request("Sec-WebSocket-Extensions: " + ", ".join(["x-foo"] * 300)),
    "a length of nothing": request("Content-Length: 0"),
    "an address as Host": request(fields={"Host": "[::1]:3001"}),
    "the key a second time, in a field like it": request("Sec_WebSocket_Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    "who it came through": request("X-Forwarded-For: 203.0.113.7, <script>, ::1", "Forwarded: for=unknown"),
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
    "a path around": (request(line="GET /x/../ws HTTP/1.1"), 404),
    "a path that hides its letters": (request(line="GET /%77s HTTP/1.1"), 404),
    "HEAD": (request(line="HEAD / HTTP/1.1"), 405),
    "a Host with a path": (request(fields={"Host": "localhost/ws"}), 400),
    "a Host with a user": (request(fields={"Host": "localhost@evil.example"}), 400),
    "two Hosts in one": (request(fields={"Host": "localhost, evil.example"}), 400),
    "a Host with a space": (request(fields={"Host": "local host"}), 400),
    "a body": (request("Content-Length: 5") + b"hello", 400),
    "a body that is another request": (request("Content-Length: 39") + HEALTH, 400),
    "a body in chunks": (request("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", 400),
    "a body in a way that nobody knows": (request("Transfer-Encoding: xchunked"), 400),
    "a length and chunks": (request("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "two lengths": (request("Content-Length: 0", "Content-Length: 0"), 400),
    "a length below 0": (request("Content-Length: -1"), 400),
    "a length with a sign": (request("Content-Length: +5") + b"hello", 400),
    "chunks, and then something else": (request("Transfer-Encoding: chunked, identity"), 400),
    "version 13 with a sign": (request(fields={"Sec-WebSocket-Version": "+13"}), 426),
    "versions in one field": (request(fields={"Sec-WebSocket-Version": "13, 8"}), 426),
    "a key in the other alphabet": (request(fields={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZ-=="}), 400),
    "a token folded into a second line": (request("Authorization: Bearer", " no.good.token"), 400),
    "two tokens in other letters": (request("Authorization: Bearer a", "AUTHORIZATION: Bearer b"), 401),
    "a greeting of a proxy": (b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n" + request(), 400),
    "extensions with 7,000 spaces": (request("Sec-WebSocket-Extensions: x" + " " * 7000 + "y"), 400),
}

ROADS: dict[str, dict[str, Any]] = {
    "uvloop, compiled": {},
    "asyncio, in Python": {"loop": "asyncio", "sender": "python"},
    "TLS": {"tls": True},
}


async def ask(field: Field, sent: bytes) -> tuple[Response, float, list[str]]:
    """The answer to these bytes, the seconds until it came, and what is wrong with it beside its status."""
    async with field.raw() as connection:
        begin = time.perf_counter()
        await connection.send(sent)
        response = await connection.response()
        took = time.perf_counter() - begin
        faults = await (_look_at_welcome if response.status == 101 else _look_at_refusal)(connection, response)
    return response, took, faults


async def _look_at_welcome(connection: Raw, response: Response) -> list[str]:
    fields = response.fields
    await connection.message("connected")
    await echoes(connection)
    told = {
        "the key is not answered": fields["sec-websocket-accept"] == ACCEPT,
        "it is no upgrade": (fields["upgrade"].lower(), fields["connection"].lower()) == ("websocket", "upgrade"),
        "what was not offered is chosen": "sec-websocket-protocol" not in fields and "sec-websocket-extensions" not in fields,
    }
    return [fault for fault, is_right in told.items() if not is_right]


async def _look_at_refusal(connection: Raw, response: Response) -> list[str]:
    fields = response.fields
    told = {
        "it is not JSON": fields["content-type"] == "application/json",
        "it does not say Upgrade": response.status != 426 or fields["upgrade"] == "websocket",
        "it does not say Allow": response.status != 405 or "GET" in fields["allow"],
    }
    if response.body:
        told["it is not a sentence"] = response.problem["message"].endswith((".", "`")) and response.problem["retryable"] is False
    if fields.get("connection") == "close":
        told["there is more behind it"] = await connection.ended() == b""
    return [fault for fault, is_right in told.items() if not is_right]


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
async def test_handshakes(arena: Arena, road: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """A body behind a handshake was taken for frames, and a `Host` of two names was taken for one."""
    rows = {name: (sent, 101) for name, sent in GOOD.items()} | BAD
    limits = {"failed_authentications_per_minute": None}
    name = request.node.callspec.id
    async with arena(f"{len(rows)} handshakes ({name})", attackers=len(rows), limits=limits, **road) as field:
        wrong, times = {}, []
        for row, (sent, status) in rows.items():
            response, took, faults = await ask(field, sent)
            times.append(took)
            if response.status != status or faults:
                wrong[row] = (response.status, status, faults)
        assert wrong == {}
        times.sort()
        field.figures["answers, p90 ms"] = round(1000 * times[int(0.9 * len(times))], 1)
        assert times[int(0.9 * len(times))] < SOON and times[-1] < 1.0, times[-3:]
        assert (await field.report())["connections"] == 1, "none of those that were refused is a connection"


# — requests behind others —


async def test_what_is_behind_an_upgrade_is_frames(arena: Arena) -> None:
    """Where a front end reads a second request, nobody may be told of an answer to one."""
    async with arena("requests behind an upgrade") as field:
        for behind in (HEALTH, request(), b"GET /api/v1/rooms HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            async with field.raw() as connection:
                await connection.send(request() + behind)
                assert (await connection.response()).status == 101
                assert await connection.close_code() == 1002
                assert b"HTTP/" not in await connection.ended()


async def test_what_is_behind_a_refused_upgrade_is_nothing(arena: Arena) -> None:
    """A front end that takes a refusal for an upgrade would let the next request pass unread: there is no next request."""
    refused = {
        "version": request(fields={"Sec-WebSocket-Version": "9999"}),
        "key": request(fields={"Sec-WebSocket-Key": None}),
        "token": request("Authorization: Bearer no.good.token"),
        "another protocol": request(fields={"Upgrade": "h2c"}),
    }
    async with arena("requests behind a refused upgrade") as field:
        for name, sent in refused.items():
            async with field.raw() as connection:
                await connection.send(sent + HEALTH)
                assert (await connection.response()).status in (400, 401, 426), name
                assert b"HTTP/" not in await connection.ended(), name


# — who it came through —


@pytest.mark.parametrize(
    ("further", "is_stopped"),
    [
        ({}, True),
        ({"trusted_proxies": ["192.0.2.0/24"]}, True),
        ({"trusted_proxies": ["127.0.0.1"]}, False),
    ],
    ids=["nobody is trusted", "somebody else is", "he is"],
)
async def test_addresses_that_are_made_up(arena: Arena, further: dict[str, Any], is_stopped: bool) -> None:
    """`X-Forwarded-For` gives an attacker a new address each time, where a proxy is trusted and passes it on, and nowhere else."""
    limits = {"handshakes_per_second_per_address": 1.0, "handshakes_burst_per_address": 40}
    async with arena("60 addresses made up", limits=limits, **further) as field:
        statuses = []
        for number in range(60):
            async with field.raw() as connection:
                await connection.send(request(f"X-Forwarded-For: 198.51.100.{number}"))
                statuses.append((await connection.response()).status)
        assert (429 in statuses) == is_stopped
        assert set(statuses) <= {101, 429}


async def test_addresses_of_one_subscriber(arena: Arena) -> None:
    """With one IPv6 line an attacker has 2^64 addresses: every handshake came from a new one, and no limit was his."""
    limits = {"handshakes_per_second_per_address": 1.0, "handshakes_burst_per_address": 40, "connections_per_address": 5}
    async with arena("60 addresses of one IPv6 network", limits=limits, trusted_proxies=["127.0.0.1"]) as field:

        async def status(address: str) -> int:
            async with field.raw() as connection:
                await connection.send(request(f"X-Forwarded-For: {address}"))
                return (await connection.response()).status

        assert 429 in [await status(f"2001:db8:1:2:{number:x}::{number:x}") for number in range(60)]
        assert await status("2001:db8:1:3::1") == 101, "the next subscriber"
        assert await status("::ffff:198.51.100.7") == 101
        held = [field.upgraded("X-Forwarded-For: 2001:db8:9:9::1") for _ in range(5)]
        async with held[0], held[1], held[2], held[3], held[4]:
            assert await status("2001:db8:9:9:ffff::1") == 429
        await field.until(lambda figures: figures["connections"] == 1)
        assert await status("2001:db8:9:9:ffff::1") == 101


async def test_a_request_that_is_never_ended_beside_one_that_is(arena: Arena) -> None:
    """Heads that come byte by byte hold nobody up who shakes hands meanwhile."""
    async with arena("a head byte by byte") as field, field.raw() as slow:
        for byte in request()[:60]:
            slow.write(bytes((byte,)))
            async with field.upgraded() as good:
                await good.message("connected")
        await slow.send(request()[60:] + text({"event": "ping", "ref": 1}) + frame(8))
        assert (await slow.response()).status == 101
        await slow.message("pong")
        await asyncio.wait_for(slow.ended(), 5)
