"""The API as a whole: errors of every kind, methods, CORS, and where it can be mounted."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from aibos_realtime import BrokerUnavailable, ConfigurationError, Overloaded, RealtimeServer, RequestTimeout
from aibos_realtime.admin.operations import Operations
from tests.unit.admin.api.rig import KEY, OPTIONS, Rig, check_problem, running

ORIGIN = "https://app.example.com"


@pytest.mark.parametrize("path", ["/x", "/rooms/a/b/c", "/publish/", "/Rooms", "/rooms/a/history/", "//rooms", "/v2/rooms"])
async def test_a_path_that_is_none(rig: Rig, path: str) -> None:
    check_problem(await rig.ask("GET", path), 404, "not_found")


@pytest.mark.parametrize("path", ["/api/", "/api/v1", "/api/v2/rooms", "/api/docs/nothing.js", "/api/docs/../app.py", "/api/docs/%2e%2e/app.py"])
async def test_a_path_beside_the_routes(rig: Rig, path: str) -> None:
    check_problem(await rig.http.get(path, headers=rig.fields("key")), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/rooms/a", "GET, HEAD, DELETE, OPTIONS"), ("GET", "/publish", "POST, OPTIONS"), ("DELETE", "/rooms", "GET, HEAD, OPTIONS"),
     ("PATCH", "/queues/a/purge", "POST, OPTIONS"), ("POST", "/rooms/a/history", "GET, HEAD, OPTIONS")],
)  # fmt: skip
async def test_a_method_that_a_path_has_not(rig: Rig, method: str, path: str, allowed: str) -> None:
    answer = await rig.ask(method, path, {} if method != "GET" else None)
    check_problem(answer, 405, "bad_request")
    assert answer.headers["allow"] == allowed
    if method in ("PUT", "PATCH"):  # that comes before anything about the body, which curl sends as a form
        check_problem(await rig.http.request(method, f"/api/v1{path}", headers=rig.fields("key"), content=b"a=1"), 405, "bad_request")


async def test_a_head_is_a_get_without_its_body(rig: Rig) -> None:
    got, head = await rig.ask("GET", "/rooms"), await rig.ask("HEAD", "/rooms")
    assert (head.status_code, head.content) == (200, b"") and head.headers["content-length"] == str(len(got.content))
    assert (await rig.ask("HEAD", "/rooms/none")).status_code == 404 and (await rig.ask("HEAD", "/rooms", by=None)).status_code == 401


async def test_a_head_has_no_body_whatever_server_it_is_mounted_in() -> None:
    server = RealtimeServer(**OPTIONS)
    async with server.lifespan():
        for path in ("/api/v1/rooms", "/api/v1/nothing", "/api/docs", "/api/openapi.json", "/api/nothing"):
            said: list[Any] = []

            async def receive() -> Any:
                raise AssertionError("nothing is read")

            async def send(message: Any, said: list[Any] = said) -> None:
                said.append(message)

            scope = {"type": "http", "method": "HEAD", "path": path, "headers": [(b"x-api-key", KEY.encode())], "query_string": b"", "scheme": "http"}
            await server.asgi()(scope, receive, send)
            assert int(dict(said[0]["headers"])[b"content-length"]) > 20 and [message["body"] for message in said[1:]] == [b""], path


async def test_nothing_is_kept_by_caches_or_taken_for_something_else(rig: Rig) -> None:
    for answer in (await rig.ask("GET", "/rooms"), await rig.ask("GET", "/rooms", by=None), await rig.ask("GET", "/x")):
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [(Overloaded(), 503, "overloaded", "1"), (BrokerUnavailable(), 503, "unavailable", "1"), (RequestTimeout(), 504, "timeout", None)],
)
async def test_what_may_be_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    async def fail(*given: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr(Operations, "nodes", fail)
    answer = await rig.ask("GET", "/nodes")
    assert check_problem(answer, status, code)["retryable"] and answer.headers.get("retry-after") == retry_after


@pytest.mark.parametrize("error", [ValueError("a secret: hunter2"), ConfigurationError("redis://user:hunter2@host")])
async def test_our_own_fault_says_nothing_but_a_number_that_the_log_has(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fail(*given: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr(Operations, "room", fail)
    with caplog.at_level(logging.ERROR):
        answer = await rig.ask("GET", "/rooms/of_a_customer")
    body = check_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text and body["retryable"]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    incident = body["detail"].split("incident ")[1].rstrip(").")
    assert incident in record.getMessage() and "of_a_customer" not in record.getMessage()
    assert (await rig.ask("GET", "/rooms")).status_code == 200


async def test_a_page_of_another_origin_may_ask_where_that_is_allowed() -> None:
    async with running(cors={"origin": [ORIGIN]}) as rig:
        for method, path in (("POST", "/api/v1/publish"), ("DELETE", "/api/v1/rooms/a%2Fb"), ("GET", "/api/v1/nowhere")):
            asked = {"Origin": ORIGIN, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "idempotency-key,x-api-key"}
            answer = await rig.http.options(path, headers=asked)
            allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
            assert {"authorization", "content-type", "idempotency-key", "x-api-key"} <= allowed and answer.status_code == 204
            assert method in answer.headers["access-control-allow-methods"] and answer.headers["access-control-allow-origin"] == ORIGIN
        for by in ("key", None):
            answer = await rig.ask("GET", "/rooms", by=by, headers={"Origin": ORIGIN})
            assert (
                answer.headers["access-control-allow-origin"] == ORIGIN and "retry-after" in answer.headers["access-control-expose-headers"].lower()
            )
        answer = await rig.ask("GET", "/rooms", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


def mounted(prefix: str, server: RealtimeServer) -> FastAPI:
    """The server inside an app, at one level or two."""
    *outer, last = prefix.strip("/").split("/")
    inner = FastAPI(lifespan=server.lifespan)
    inner.mount(f"/{last}", server.asgi())
    if not outer:
        return inner
    return FastAPI(lifespan=server.lifespan, routes=[Mount("/" + "/".join(outer), inner)])


@pytest.mark.parametrize("prefix", ["/realtime", "/api", "/one/two"])
async def test_mounted_in_another_app(prefix: str) -> None:
    server = RealtimeServer(**OPTIONS)
    app = mounted(prefix, server)
    async with server.lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.example.com") as http:
        await server.rooms.create_room("a/b")
        answer = await http.get(f"{prefix}/api/v1/rooms/a%2Fb", headers={"X-API-Key": KEY})
        assert answer.json()["id"] == "a/b"
        document = f"{prefix}/api/openapi.json"
        place = httpx.URL(f"http://app.example.com{document}").join((await http.get(document)).json()["servers"][0]["url"])
        assert str(place) == f"http://app.example.com{prefix}/api/v1"
        assert (await http.get(f"{prefix}/api/docs/docs.js")).status_code == 200
        check_problem(await http.get(f"{prefix}/api/v1/rooms"), 401, "not_authenticated")


async def test_a_mounted_server_that_nobody_started_says_so() -> None:
    app = mounted("/realtime", RealtimeServer(**OPTIONS))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.example.com") as http:
        answer = await http.get("/realtime/api/v1/rooms", headers={"X-API-Key": KEY})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1") and "lifespan" in answer.text


async def test_an_app_on_the_servers_own_port() -> None:
    app = FastAPI()
    server = RealtimeServer(**OPTIONS)
    app.mount("/realtime", server.asgi())
    server.host_app(app, "/realtime")
    async with server, Rig(server) as rig:
        assert (await rig.http.get("/realtime/api/v1/rooms", headers=rig.fields("operator"))).json() == {"rooms": [], "cursor": None}
        await rig.http.aclose()
        await server.stop(drain=0)
