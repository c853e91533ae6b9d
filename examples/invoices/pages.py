"""The front end: the files of `web/`, which a browser gets with a strict policy. What they show comes from the API and the realtime connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # ask each time, and get a 304: a new version is seen at once
}


class Pages(StaticFiles):
    """An ASGI app, to be mounted at the root after everything else."""

    def __init__(self) -> None:
        super().__init__(directory=Path(__file__).parent / "web", html=True)

    def file_response(self, *arguments: Any, **keywords: Any) -> Response:
        response = super().file_response(*arguments, **keywords)
        response.headers.update(HEADERS)
        return response
