"""The dashboard's files and the browser client, by their paths: the same for everybody, and without data, which come over the WebSocket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from ..transport.asgi import Receive, Scope, Send
from .files import COMMON, Headers, read_files, send_file

FOLDER = Path(__file__).with_name("page")
CLIENT = "client.js"
POLICY = (
    b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)

PAGE: Headers = [
    (b"content-security-policy", POLICY),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
SHARED: Headers = [(b"cross-origin-resource-policy", b"cross-origin")]


class Site:
    """Answers `/dashboard/…` and `/client.js`, whatever they are mounted under; `/dashboard` leads to `/dashboard/`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = str(scope["path"]), str(scope["method"])
        if method not in ("GET", "HEAD"):
            await _answer(send, method, 405, [(b"allow", b"GET, HEAD, OPTIONS")], _problem("bad_request", "GET is answered here."))
            return
        if path == "/dashboard":
            query = bytes(scope.get("query_string", b""))
            await _answer(send, method, 307, [(b"location", b"dashboard/" + (b"?" + query if query else b""))], b"")
            return
        name = path.removeprefix("/dashboard/") if path.startswith("/dashboard/") else path.removeprefix("/")
        files = await asyncio.to_thread(read_files, FOLDER)
        found = files.get(name or "index.html")
        if found is None or (not path.startswith("/dashboard/") and name != CLIENT):
            await _answer(send, method, 404, [], _problem("not_found", "There is nothing on this path."))
            return
        await send_file(scope, send, found, PAGE if path.startswith("/dashboard/") else SHARED)


def _problem(code: str, message: str) -> bytes:
    return msgspec.json.encode({"code": code, "message": message, "retryable": False})


async def _answer(send: Send, method: str, status: int, headers: Headers, body: bytes | None) -> None:
    """`body`: None where there is none, and so no length of one either."""
    fields = [*COMMON, *headers]
    if body is not None:
        fields.append((b"content-length", str(len(body)).encode()))
        if status >= 400:
            fields.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" or body is None else body})
