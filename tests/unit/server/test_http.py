"""What the HTTP side answers to anybody: one word."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.auth.origin import OriginPolicy
from aibos_realtime.server.http import HttpApp


class Caller:
    def __init__(self, ready: bool = True, word: str = "ok", **cors: Any) -> None:
        self.app = HttpApp(status=lambda: (ready, word), websocket_paths=("/", "/ws"), origins=OriginPolicy(cors or None))

    async def ask(self, path: str, method: str = "GET", *headers: tuple[bytes, bytes], root: str = "") -> tuple[int, bytes, dict[bytes, bytes]]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        async def receive() -> Any:
            raise AssertionError("no body is read")

        scope = {"type": "http", "path": path, "method": method, "headers": [(b"host", b"a.example"), *headers], "root_path": root, "scheme": "http"}
        await self.app(scope, receive, send)
        return said[0]["status"], said[1]["body"], dict(said[0]["headers"])


async def test_alive_and_ready() -> None:
    for path in ("/health", "/ready", "/status"):
        status, body, headers = await Caller().ask(path)
        assert (status, body, headers[b"cache-control"]) == (200, b'{"status":"ok"}', b"no-store")


async def test_draining_is_alive_and_not_ready() -> None:
    caller = Caller(False, "draining")
    assert (await caller.ask("/health"))[:2] == (200, b'{"status":"ok"}')
    assert (await caller.ask("/ready"))[:2] == (503, b'{"status":"draining"}')
    assert (await caller.ask("/status"))[:2] == (200, b'{"status":"draining"}')


@pytest.mark.parametrize(("path", "method", "status"), [("/x", "GET", 404), ("/ws", "GET", 426), ("/", "GET", 426), ("/health", "POST", 405)])
async def test_other_paths_and_methods(path: str, method: str, status: int) -> None:
    found, body, headers = await Caller().ask(path, method)
    assert found == status and b'"message"' in body and int(headers[b"content-length"]) == len(body)


async def test_a_head_has_no_body_and_says_how_long_it_would_be() -> None:
    status, body, headers = await Caller().ask("/health", "HEAD")
    assert (status, body, headers[b"content-length"]) == (200, b"", b"15")


async def test_mounted_under_a_path() -> None:
    assert (await Caller().ask("/realtime/health", root="/realtime"))[0] == 200


async def test_cors_from_the_same_list() -> None:
    caller = Caller(origin=["https://app.example.com"], credentials=True)
    _, _, headers = await caller.ask("/health", "GET", (b"origin", b"https://app.example.com"))
    assert headers[b"access-control-allow-origin"] == b"https://app.example.com"
    status, _, headers = await caller.ask("/health", "OPTIONS", (b"origin", b"https://app.example.com"))
    assert status == 204 and b"access-control-allow-methods" in headers
    _, _, headers = await caller.ask("/health", "GET", (b"origin", b"https://evil.example"))
    assert b"access-control-allow-origin" not in headers


class Passing:
    """An app that keeps what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("scope", "path", "raw"),
    [({"path": "/api/a/b", "raw_path": b"/api/a%2Fb"}, "/api/a/b", b"/api/a%2Fb"),
     ({"path": "/in/api/a/b", "raw_path": b"/in/api/a%2Fb?x=1", "root_path": "/in"}, "/api/a/b", b"/api/a%2Fb"),
     ({"path": "/in t/api/\u00fc", "raw_path": b"/in%20t/api/%C3%BC", "root_path": "/in t"}, "/api/\u00fc", b"/api/%C3%BC"),
     ({"path": "/in/api/a b", "root_path": "/in"}, "/api/a b", b"/api/a%20b"),
     ({"path": "/api/a", "raw_path": b"/something/else"}, "/api/a", b"/api/a")],
)  # fmt: skip
async def test_an_app_gets_the_path_below_this_one_as_it_was_written(scope: dict[str, Any], path: str, raw: bytes) -> None:
    caller, app = Caller(), Passing()
    caller.app._apps["/api/"] = app
    said: list[Any] = []

    async def nothing() -> Any:
        raise AssertionError("no body is read")

    async def send(message: Any) -> None:
        said.append(message)

    await caller.app({"type": "http", "method": "GET", "headers": [], "scheme": "http"} | scope, nothing, send)
    (found,) = app.scopes
    assert (found["path"], found["raw_path"], found["root_path"]) == (path, raw, "")
    assert said[0]["headers"] == [(b"x-own", b"1"), (b"vary", b"Origin")]


async def test_an_app_of_a_server_that_does_not_run_is_not_asked() -> None:
    for word in ("stopped", "draining"):
        caller, app = Caller(False, word), Passing()
        caller.app._apps["/api/"] = app
        status, body, headers = await caller.ask("/api/x", "POST")
        assert (status, len(app.scopes)) == ((503, 0) if word == "stopped" else (200, 1))
        assert word != "stopped" or (b'"unavailable"' in body and headers[b"retry-after"] == b"1")
