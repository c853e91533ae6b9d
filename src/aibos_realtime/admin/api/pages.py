"""What is public of the API: its description (OpenAPI), and the page that shows it. Neither holds any data of the server.

The page is Swagger UI, kept beside this module in compressed form (`docs/`, with its licence): it asks no other host for anything.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from ...transport.asgi import Scope, Send
from ..files import File, pack, read_files, send_file
from .problems import Headers, problem, send_problem

FOLDER = Path(__file__).with_name("docs")
ROOT = "/api"
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE: Headers = [(b"content-security-policy", POLICY), (b"x-frame-options", b"DENY")]


class Pages:
    """Answers `/api/openapi.json`, `/api/docs` and what is below it."""

    def __init__(self, document: dict[str, object]) -> None:
        self._document = pack(msgspec.json.encode(document), b"application/json")

    async def find(self, path: str) -> File | None:
        """The file on a path, if there is one."""
        if path == f"{ROOT}/openapi.json":
            return self._document
        if path != f"{ROOT}/docs" and not path.startswith(f"{ROOT}/docs/"):
            return None
        name = path.removeprefix(f"{ROOT}/docs").removeprefix("/") if path != f"{ROOT}/docs" else "index.html"
        return (await asyncio.to_thread(read_files, FOLDER)).get(name)

    async def answer(self, scope: Scope, send: Send, file: File) -> None:
        """Answer a request for a file that was found."""
        if scope["method"] in ("GET", "HEAD"):
            await send_file(scope, send, file, PAGE)
        else:
            await send_problem(send, problem(405, "bad_request", "GET is answered here."), [(b"allow", b"GET, HEAD, OPTIONS")])
