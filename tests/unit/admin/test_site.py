"""The files of the dashboard: a fixed table, the same for everybody, under a strict policy."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from aibos_realtime import RealtimeServer
from aibos_realtime.admin.files import TYPES, read_files
from aibos_realtime.admin.site import FOLDER, Site
from aibos_realtime.testing import memory_server


async def ask(path: str) -> int:
    """The status for a path, exactly as it is."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        raise AssertionError("no body is read")

    await Site()({"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}, receive, send)
    return statuses[0]


def make_server(**options: Any) -> RealtimeServer:
    return RealtimeServer(authentication={"jwt_secret": "x" * 32}, persistence={"database": {"url": "memory://"}}, **options)


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Site())
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example", headers={"accept-encoding": "identity"}) as client:
        yield client


async def test_the_page_and_everything_that_it_names(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/dashboard/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"app.js", "style.css", "vendor/uPlot.iife.min.js", "vendor/uPlot.min.css", "icon.svg"} == set(names)
    for name in names:
        found = await browser.get(f"/dashboard/{name}")
        assert found.status_code == 200, name
        assert found.headers["content-type"].encode() in TYPES.values()
        assert int(found.headers["content-length"]) == len(found.content)


async def test_every_module_that_is_imported_is_there(browser: httpx.AsyncClient) -> None:
    for path in FOLDER.rglob("*.js"):
        if path.parent.name == "vendor":
            continue
        for name in re.findall(r"^import [^;]*?'([^']+)';", path.read_text(), re.MULTILINE | re.DOTALL):
            address = httpx.URL(f"http://a.example/dashboard/{path.relative_to(FOLDER).as_posix()}").join(name)
            assert (await browser.get(address)).status_code == 200, (path, name)


async def test_nothing_is_fetched_from_elsewhere_and_nothing_is_inline() -> None:
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"(?:https?:)?//[\w.]", page) == []
    assert re.findall(r"<script>|<style|\sstyle=|\son\w+=|javascript:", page) == []
    for path in [*FOLDER.glob("*.js"), *FOLDER.glob("views/*.js")]:
        if path.name != "client.js":
            assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", path.read_text()) == [], path


async def test_the_policy_of_every_answer(browser: httpx.AsyncClient) -> None:
    for path in ("/dashboard/", "/dashboard/app.js", "/dashboard/style.css", "/dashboard/views/rooms.js"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
        assert "unsafe" not in policy and "*" not in policy and "data:" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"], headers["referrer-policy"]) == ("nosniff", "DENY", "no-referrer")
        assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_the_client_is_for_pages_of_others_too(browser: httpx.AsyncClient) -> None:
    found = await browser.get("/client.js")
    assert (found.status_code, found.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "RealtimeClient" in found.text
    assert found.headers["cross-origin-resource-policy"] == "cross-origin"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in found.headers


async def test_without_the_slash_one_is_led_on(browser: httpx.AsyncClient) -> None:
    found = await browser.get("/dashboard")
    assert (found.status_code, found.headers["location"]) == (307, "dashboard/")
    assert (await browser.get("/dashboard?a=b")).headers["location"] == "dashboard/?a=b"
    assert httpx.URL("http://a.example/mounted/dashboard").join(found.headers["location"]).path == "/mounted/dashboard/"


async def test_a_copy_that_is_still_good_is_not_sent_again(browser: httpx.AsyncClient) -> None:
    first = await browser.get("/dashboard/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await browser.get("/dashboard/app.js", headers={"if-none-match": f'W/"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert "content-length" not in again.headers
    assert (await browser.get("/dashboard/app.js", headers={"if-none-match": '"other"'})).status_code == 200


async def test_it_is_sent_small_to_those_who_can_take_that(browser: httpx.AsyncClient) -> None:
    whole = await browser.get("/dashboard/style.css")
    async with browser.stream("GET", "/dashboard/style.css", headers={"accept-encoding": "gzip, br"}) as found:
        raw = b"".join([part async for part in found.aiter_raw()])
    assert (found.headers["content-encoding"], found.headers["vary"]) == ("gzip", "accept-encoding")
    assert gzip.decompress(raw) == whole.content and len(raw) < len(whole.content) / 2
    assert found.headers["etag"] != whole.headers["etag"]
    refused = await browser.get("/dashboard/style.css", headers={"accept-encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers


async def test_a_head_says_how_long_it_would_be(browser: httpx.AsyncClient) -> None:
    whole, head = await browser.get("/dashboard/app.js"), await browser.head("/dashboard/app.js")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(whole.content)))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_else_than_reading(browser: httpx.AsyncClient, method: str) -> None:
    found = await browser.request(method, "/dashboard/")
    assert (found.status_code, found.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert found.json()["code"] == "bad_request"


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/../site.py", "/dashboard/%2e%2e/site.py", "/dashboard/..%2fsite.py", "/dashboard//etc/passwd", "/dashboard/vendor/../../site.py",
        "/dashboard/views", "/dashboard/app.js/", "/dashboard/app.js%00", "/dashboard/APP.JS", "/dashboard/index.html\\..\\x", "/app.js",
        "/style.css", "/index.html", "/", "/dashboard/site.py", "/dashboard/__init__.py",
    ],
)  # fmt: skip
async def test_no_other_file_can_be_named(path: str) -> None:
    """The path comes to the app as the server has decoded it: here as it is, and decoded once more."""
    for said in (path, httpx.URL("http://a.example").join(path).path, path.replace("%2e", ".").replace("%2f", "/").replace("%00", "\0")):
        if said in ("/dashboard/", "/site.py"):
            continue
        assert await ask(said) == 404, said


@pytest.mark.parametrize("dashboard", [True, False])
async def test_without_a_dashboard_the_client_stays(dashboard: bool) -> None:
    transport = httpx.ASGITransport(app=(server := make_server(http={"dashboard": dashboard})).asgi())
    async with memory_server(server), httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        assert (await client.get("/client.js")).status_code == 200
        for path in ("/dashboard", "/dashboard/", "/dashboard/app.js"):
            assert ((await client.get(path)).status_code < 400) is dashboard, path


def test_licences_stand_beside_what_is_of_others() -> None:
    assert "MIT" in (FOLDER / "vendor" / "uPlot.LICENSE.txt").read_text()
    assert "vendor/uPlot.LICENSE.txt" in read_files(FOLDER)
