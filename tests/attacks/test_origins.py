"""Other people's web pages: from which origins a browser gets in, at every door of the server, with the user's cookies in its hand.

A page is stopped in two ways: its WebSocket gets a 403 before the upgrade, and of an HTTP answer its browser shows it nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from aibos_realtime import RealtimeServer
from tests.attacks.arena import Arena, Field
from tests.network.raw import SECRET, Response, raw, request

APP, OTHER = "https://app.example", "https://admin.example:8443"
COOKIE = "Cookie: session=1; realtime_token=1"
ORIGINS: dict[str, tuple[str, bool]] = {
    "on the list": (APP, True),
    "the other on the list, with its port": (OTHER, True),
    "in capitals": ("HTTPS://APP.EXAMPLE", True),
    "the default port written out": (f"{APP}:443", True),
    "null": ("null", False),
    "empty": ("", False),
    "not TLS": ("http://app.example", False),
    "the scheme of a WebSocket": ("wss://app.example", False),
    "another port": (f"{APP}:8443", False),
    "a port left out": ("https://admin.example", False),
    "a port with a zero before it": (f"{APP}:0443", False),
    "a port that is none": (f"{APP}:65979", False),
    "a suffix": ("https://evilapp.example", False),
    "a prefix": ("https://app.example.evil.example", False),
    "a subdomain": ("https://a.app.example", False),
    "a trailing dot": (f"{APP}.", False),
    "user information": ("https://app.example@evil.example", False),
    "a user before the host": ("https://evil@app.example", False),
    "two in one": (f"{APP}, {APP}", False),
    "two with a space": (f"{APP} https://evil.example", False),
    "with a path": (f"{APP}/", False),
    "with a query": (f"{APP}?https://evil.example", False),
    "with a fragment": (f"{APP}#evil.example", False),
    "a look-alike": ("https://\xe0pp.example", False),
    "a look-alike in punycode": ("https://xn--pp-6kc.example", False),
    "percent-encoded": ("https://app%2eexample", False),
    "a file": ("file://", False),
    "a star": ("*", False),
    "a pattern": ("https://*.example", False),
    "the server's own host, which is not on the list": ("http://localhost", False),
    "of 4 KB": ("https://" + "a" * 4000 + ".example", False),
}
LIST: dict[str, Any] = {"cors": {"origin": [APP, OTHER], "credentials": True}}


def http(line: str, origin: str, token: str = "") -> bytes:
    """A request of a page."""
    fields = [f"Authorization: Bearer {token}"] if token else []
    if line.startswith("OPTIONS"):
        fields += ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"]
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", COOKIE, f"Origin: {origin}", *fields, "", ""]).encode("latin-1")


def is_shown(response: Response, origin: str) -> bool:
    """Whether a browser shows the page this answer. Fails for an answer that a browser would take in two ways."""
    allowed = response.fields.get("access-control-allow-origin")
    assert allowed in (None, origin) and "Origin" in response.fields["vary"]
    assert allowed is not None or not any(name.startswith("access-control-") for name in response.fields), "a page learns from what is left"
    return allowed is not None


DOORS = ("GET /api/v1/rooms", "OPTIONS /api/v1/publish", "GET /api/openapi.json", "GET /dashboard/", "GET /status", "GET /ws", "GET /nothing")


async def test_origins_at_every_door(arena: Arena) -> None:
    async with arena(f"{len(ORIGINS)} origins at {len(DOORS) + 1} doors", attackers=len(ORIGINS), api=True, **LIST) as field:
        token = field.token("op", role="operator")
        wrong: list[Any] = []
        for name, (origin, is_good) in ORIGINS.items():
            async with field.raw() as connection:
                await connection.send(request(COOKIE, fields={"Origin": origin}))
                response = await connection.response()
            if response.status != (101 if is_good else 403):
                wrong.append((name, "WebSocket", response.status))
            if response.status == 403:
                assert "cors.origin" in response.problem["message"] and APP not in str(response)
            async with field.raw() as connection:
                for door in DOORS:
                    await connection.send(http(door, origin, token))
                    if is_shown(await connection.response(), origin) != is_good:
                        wrong.append((name, door))
        assert wrong == []


async def test_who_is_no_browser_has_no_origin(arena: Arena) -> None:
    """Nothing that a browser sends by itself, such as a cookie, makes somebody of him who has no token."""
    async with arena("no origin", api=True, **LIST) as field, field.upgraded(COOKIE) as connection:
        assert (await connection.message("connected"))["data"]["user"] is None
        assert (await connection.ask("join-room", "tenant_1"))["data"]["code"] == "not_authenticated"
        async with field.raw() as page:
            await page.send(http("GET /api/v1/rooms", APP))
            assert (await page.response()).status == 401


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_without_a_list_the_origin_is_the_host(arena: Arena, tls: bool) -> None:
    rows = {
        ("https://localhost", "localhost"): True,
        ("https://LOCALHOST", "localhost"): True,
        ("https://localhost:3001", "localhost:3001"): True,
        ("http://localhost", "localhost"): not tls,
        ("http://localhost:3001", "localhost:3001"): not tls,
        ("http://localhost:3001", "localhost:3002"): False,
        ("https://localhost", "localhost:80"): False,
        ("http://app.example", "localhost"): False,
        ("https://localhost.evil.example", "localhost"): False,
        ("https://evil.example", "localhost"): False,
        ("ftp://localhost", "localhost"): False,
        ("null", "localhost"): False,
    }
    async with arena(f"origins without a list ({'TLS' if tls else 'plain'})", attackers=len(rows), tls=tls) as field:
        found = {(origin, host): await _is_let_in(field, origin, host) for origin, host in rows}
        assert found == rows


async def _is_let_in(field: Field, origin: str, host: str) -> bool:
    async with field.raw() as connection:
        await connection.send(request(COOKIE, fields={"Origin": origin, "Host": host}))
        return (await connection.response()).status == 101


async def test_a_star_lets_pages_in_and_no_cookies(arena: Arena) -> None:
    """`*` has to be written down, and then no browser sends credentials along; `null` is no page, and stays outside."""
    async with arena("every origin", cors={"origin": "*"}) as field, field.raw() as connection:
        await connection.send(http("OPTIONS /api/v1/publish", "https://evil.example"))
        fields = (await connection.response()).fields
        assert fields["access-control-allow-origin"] == "*" and "access-control-allow-credentials" not in fields
        assert await _is_let_in(field, "https://evil.example", "localhost")
        assert not await _is_let_in(field, "null", "localhost")


async def test_two_origins_are_none(arena: Arena) -> None:
    async with arena("two origins", api=True, **LIST) as field, field.raw() as connection:
        await connection.send(request(f"Origin: {APP}", "Origin: https://evil.example"))
        assert (await connection.response()).status == 400
        async with field.raw() as page:
            await page.send(http("GET /api/v1/rooms", "https://evil.example").replace(b"Cookie:", f"Origin: {APP}\r\nCookie:".encode()))
            assert "access-control-allow-origin" not in (await page.response()).fields


@asynccontextmanager
async def mounted() -> AsyncIterator[int]:
    """The server as an app of another one, uvicorn, in this process; the port of that."""
    realtime = RealtimeServer(authentication={"jwt_secret": SECRET}, persistence={"database": {"url": "memory://"}}, **LIST)
    config = uvicorn.Config(realtime.asgi(), port=0, log_config=None, lifespan="on", ws="websockets-sansio")
    front = uvicorn.Server(config)
    serving = asyncio.ensure_future(front._serve())
    try:
        while not front.started:
            assert not serving.done()
            await asyncio.sleep(0)
        yield front.servers[0].sockets[0].getsockname()[1]
    finally:
        front.should_exit = True
        await serving


async def test_origins_where_the_server_is_mounted() -> None:
    async with mounted() as port:
        wrong = []
        for name, (origin, is_good) in ORIGINS.items():
            async with raw(port) as connection:
                await connection.send(request(COOKIE, fields={"Origin": origin}))
                status = (await connection.response()).status
            async with raw(port) as connection:
                await connection.send(http("OPTIONS /api/v1/publish", origin))
                shown = is_shown(await connection.response(), origin)
            if status != (101 if is_good else 403) or shown != is_good:
                wrong.append((name, status, shown))
        assert wrong == []
