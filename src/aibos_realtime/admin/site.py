"""The files of the dashboard and the browser client, as an ASGI app. They are the same for everybody and hold no data: those come over the WebSocket.

What is served is a fixed table, read once: nothing of a request is ever taken as the name of a file.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from ..transport.asgi import Receive, Scope, Send

FOLDER = Path(__file__).with_name("page")
CLIENT = "client.js"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
POLICY = (
    b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
_REFUSED = re.compile(rb";\s*q=0(\.0*)?\s*$")
Headers = list[tuple[bytes, bytes]]

COMMON: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),  # kept, and asked for again with its ETag: a new version is seen at once
]
PAGE: Headers = [
    (b"content-security-policy", POLICY),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
SHARED: Headers = [(b"cross-origin-resource-policy", b"cross-origin")]


class File(Struct, frozen=True):
    """`small`: the content under gzip. `tag`: what the content's ETag begins with."""

    content: bytes
    small: bytes
    type: bytes
    tag: bytes


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
        files = await asyncio.to_thread(read_files)
        found = files.get(name or "index.html")
        if found is None or (not path.startswith("/dashboard/") and name != CLIENT):
            await _answer(send, method, 404, [], _problem("not_found", "There is nothing on this path."))
            return
        await _send_file(send, method, found, dict(scope["headers"]), PAGE if path.startswith("/dashboard/") else SHARED)


@cache
def read_files() -> dict[str, File]:
    """Every file of the page, by its path within it. Blocks while it reads, the first time."""
    found = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in TYPES and path.is_file()}
    return {name: _read(path) for name, path in found.items()}


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, gzip.compress(content, mtime=0), TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:24].encode())


async def _send_file(send: Send, method: str, file: File, asked: dict[bytes, bytes], further: Headers) -> None:
    is_small = _takes_gzip(asked.get(b"accept-encoding", b""))
    tag = b'"' + file.tag + (b"-gzip" if is_small else b"") + b'"'
    headers = [(b"etag", tag), (b"vary", b"accept-encoding"), *further]
    if is_small:
        headers.append((b"content-encoding", b"gzip"))
    if tag in asked.get(b"if-none-match", b""):
        await _answer(send, method, 304, headers, None)
    else:
        await _answer(send, method, 200, [(b"content-type", file.type), *headers], file.small if is_small else file.content)


def _takes_gzip(accepted: bytes) -> bool:
    """RFC 9110, section 12.5.3; a weight of 0 is a no."""
    return any(part.split(b";")[0].strip() == b"gzip" and not _REFUSED.search(part) for part in accepted.lower().split(b","))


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
