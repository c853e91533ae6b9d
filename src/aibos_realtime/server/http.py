"""The HTTP side of the port, as a small ASGI app: is it alive, is it ready. What it answers to anybody is one word."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from ..auth.origin import OriginPolicy
from ..transport.asgi import Receive, Scope, Send

Status = Callable[[], tuple[bool, str]]


class Reply(Struct, frozen=True):
    """What a route answers, as JSON. `headers`: further ones, names in lower case."""

    status: int
    body: Mapping[str, object]
    headers: tuple[tuple[bytes, bytes], ...] = ()


Route = Callable[[Scope], Awaitable[Reply]]
"""Answers a GET on one path. Raises nothing that a request could cause."""

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class HttpApp:
    """`/health`: the process lives. `/ready`, `/status`: it takes connections; 503 while it starts, drains, or misses what it depends on.

    `status()` gives (ready, word). `routes`: further paths. `apps`: ASGI apps by their path, or by how their paths begin, with a slash at its end.
    """

    def __init__(
        self,
        *,
        status: Status,
        websocket_paths: Sequence[str],
        origins: OriginPolicy,
        routes: Mapping[str, Route] | None = None,
        apps: Mapping[str, App] | None = None,
    ) -> None:
        self._status = status
        self._websocket_paths = frozenset(websocket_paths)
        self._origins = origins
        self._routes = dict(routes or {})
        self._apps = dict(apps or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"
        method = str(scope["method"])
        headers = self._cors(scope)
        if method != "OPTIONS" and path not in self._routes and (app := self._app_of(path)) is not None:
            if self._status()[1] == "stopped":
                message = "The server does not run: pass its lifespan to the app in which it is mounted."
                await _answer(send, 503, problem("unavailable", message, retryable=True), [*headers, (b"retry-after", b"1")], method)
                return
            await app({**scope, "path": path, "raw_path": _raw_path(scope, path), "root_path": ""}, receive, _adding(send, headers))
            return
        if method not in ("GET", "HEAD"):
            if method == "OPTIONS":
                await _answer(send, 204, None, headers)
            else:
                await _answer(send, 405, problem("bad_request", "GET is answered here."), [*headers, (b"allow", b"GET, HEAD, OPTIONS")])
            return
        ready, word = self._status()
        if path == "/health":
            await _answer(send, 200, {"status": "ok"}, headers, method)
        elif path == "/ready":
            await _answer(send, 200 if ready else 503, {"status": word}, headers, method)
        elif path == "/status":
            await _answer(send, 200, {"status": word}, headers, method)
        elif path in self._websocket_paths:
            message = "This is a WebSocket endpoint: connect with ws:// or wss://, for example with `aibos-realtime listen ROOM`."
            await _answer(send, 426, problem("bad_request", message), [*headers, (b"upgrade", b"websocket"), (b"connection", b"upgrade")], method)
        elif (route := self._routes.get(path)) is not None:
            reply = await route(scope)
            await _answer(send, reply.status, reply.body, [*headers, *reply.headers], method)
        else:
            await _answer(send, 404, problem("not_found", "There is nothing on this path."), headers, method)

    def _app_of(self, path: str) -> App | None:
        if (app := self._apps.get(path)) is not None:
            return app
        return next((app for prefix, app in self._apps.items() if prefix.endswith("/") and path.startswith(prefix)), None)

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        fields = dict(scope["headers"])
        origin, host = fields.get(b"origin"), fields.get(b"host")
        return self._origins.response_headers(
            origin.decode("latin-1") if origin is not None else None,
            host.decode("latin-1") if host is not None else None,
            scope.get("scheme") == "https",
            preflight=scope["method"] == "OPTIONS",
        )


def _raw_path(scope: Scope, path: str) -> bytes:
    """The path as it was written, below where this is mounted: `path` does not tell a `/` from a `%2F`."""
    raw = bytes(scope.get("raw_path") or b"").partition(b"?")[0].removeprefix(quote(str(scope.get("root_path", ""))).encode())
    return raw if unquote(raw.decode("latin-1")) == path else quote(path).encode()


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """`send`, with further headers on the answer."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return sending


def problem(code: str, message: str, *, retryable: bool = False) -> dict[str, object]:
    """The body of an answer that is an error."""
    return {"code": code, "message": message, "retryable": retryable}


async def _answer(send: Send, status: int, body: Mapping[str, object] | None, headers: list[tuple[bytes, bytes]], method: str = "GET") -> None:
    content = msgspec.json.encode(body) if body is not None else b""
    fields = [(b"cache-control", b"no-store"), *headers]
    if body is not None:  # a 204 must not tell a length (RFC 9110, section 8.6)
        fields += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})
