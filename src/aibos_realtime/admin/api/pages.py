"""What is public of the API: its description (OpenAPI), and the page that shows it. Neither holds any data of the server.

The page is Swagger UI, kept beside this module in compressed form (`docs/`, with its licence): it asks no other host for anything.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from ...transport.asgi import Scope, Send
from .problems import Headers, problem, send_problem

FOLDER = Path(__file__).with_name("docs")
ROOT = "/api"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".txt": b"text/plain; charset=utf-8",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
COMMON: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", POLICY),
    (b"x-frame-options", b"DENY"),
]


class File(Struct, frozen=True):
    """`small`: the content under gzip, as nearly everybody takes it."""

    small: bytes
    type: bytes
    tag: bytes


class Pages:
    """Answers `/api/openapi.json`, `/api/docs` and what is below it."""

    def __init__(self, document: dict[str, object]) -> None:
        content = msgspec.json.encode(document)
        self._document = File(gzip.compress(content, mtime=0), b"application/json", _tag(content))

    async def find(self, path: str) -> File | None:
        """The file on a path, if there is one."""
        if path == f"{ROOT}/openapi.json":
            return self._document
        if path == f"{ROOT}/docs":
            return (await asyncio.to_thread(read_files))["index.html"]
        if path.startswith(f"{ROOT}/docs/"):
            return (await asyncio.to_thread(read_files)).get(path.removeprefix(f"{ROOT}/docs/"))
        return None

    async def answer(self, scope: Scope, send: Send, file: File) -> None:
        """Answer a request for a file that was found."""
        method = str(scope["method"])
        if method not in ("GET", "HEAD"):
            await send_problem(send, problem(405, "bad_request", "GET is answered here."), [(b"allow", b"GET, HEAD, OPTIONS")])
            return
        asked = dict(scope["headers"])
        is_small = b"gzip" in asked.get(b"accept-encoding", b"")
        tag = b'"' + file.tag + (b"-gzip" if is_small else b"") + b'"'
        headers = [(b"etag", tag), (b"vary", b"accept-encoding"), *COMMON]
        if tag in asked.get(b"if-none-match", b""):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        body = file.small if is_small else gzip.decompress(file.small)
        headers += [(b"content-type", file.type), (b"content-length", str(len(body)).encode())]
        if is_small:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@cache
def read_files() -> dict[str, File]:
    """Every file of the page by its name. Blocks while it reads, the first time."""
    files = [_read(path) for path in FOLDER.iterdir() if Path(path.name.removesuffix(".gz")).suffix in TYPES]
    return dict(files)


def _read(path: Path) -> tuple[str, File]:
    name = path.name.removesuffix(".gz")
    content = path.read_bytes()
    small = content if path.suffix == ".gz" else gzip.compress(content, mtime=0)
    return name, File(small, TYPES[Path(name).suffix], _tag(content))


def _tag(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:24].encode()
