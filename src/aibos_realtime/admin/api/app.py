"""The HTTP API put together: the gate, the routes by subject, the public pages, and what becomes of errors."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from ...auth.operators import HttpOptions
from ...clock import Clock
from ...errors import RealtimeError
from ...logs import get_logger
from ...transport.asgi import Receive, Scope, Send
from ..access import Access
from ..operations import Operations
from . import nodes, people, publishing, queues, rooms
from .document import BASE, describe
from .gate import App, Gate
from .pages import Pages
from .problems import MEDIA_TYPE, Headers, Problem, Refused, headers_of, internal, is_told, problem, problem_of, send_problem, unfit

logger = get_logger("aibos_realtime.api")

COMMON: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
METHODS = ("GET", "POST", "DELETE")
NOTHING_HERE = "There is nothing on this path."


def create_api(operations: Operations, access: Access, *, options: HttpOptions, clock: Clock) -> Api:
    """The ASGI app for every path under `/api/`."""
    routes, pages = _prepare()
    gate = Gate(routes, operations=operations, access=access, options=options, clock=clock)
    return Api(Faults(gate), pages)


@cache
def _prepare() -> tuple[FastAPI, Pages]:
    """What is the same for every server of a process, and takes a while to make."""
    routes = create_routes()
    return routes, Pages(describe(routes))


class Api:
    """Everything under `/api/`: the pages to anybody, `/api/v1/` through the gate."""

    def __init__(self, gate: App, pages: Pages) -> None:
        self._gate = gate
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = _answering(send, str(scope["method"]))
        path = str(scope["path"])
        if path.startswith(f"{BASE}/"):
            await self._gate(scope, receive, answering)
        elif (file := await self._pages.find(path)) is not None:
            await self._pages.answer(scope, answering, file)
        else:
            await send_problem(answering, problem(404, "not_found", NOTHING_HERE))


class Faults:
    """Turns what nobody expected into a problem that says no more than a number, under which the log has the rest."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            incident = secrets.token_hex(6)
            logger.error("a request to the API failed (%s %s, incident %s)", scope["method"], _route_of(scope), incident, exc_info=error)
            if not has_begun:
                await send_problem(send, internal(incident))


def create_routes() -> FastAPI:
    """The routes alone, without the gate."""
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, generate_unique_id_function=_operation_id,
        exception_handlers={HTTPException: _http_error, RequestValidationError: _unfit, RealtimeError: _error, Refused: _refused}, **_QUIET,
    )  # fmt: skip
    whole = APIRouter(prefix=BASE, responses={"default": {"description": ""}})
    for name, module in (("publishing", publishing), ("rooms", rooms), ("people", people), ("queues", queues), ("nodes", nodes)):
        whole.include_router(module.router, tags=[name])
    app.include_router(whole)
    app.add_middleware(Faults)  # within the framework too, whose own last resort is a page of text, and a trace in the log
    return app


_QUIET: dict[str, Any] = {"telemetry": {name: False for name in ("tracing", "metrics", "logs", "operation_spans", "auto_configure")}}
"""The framework's own traces, of versions that have them, would tell of every request a second time, and of what is in it."""


def _operation_id(route: APIRoute) -> str:
    first, *rest = route.name.split("_")
    return first + "".join(part.title() for part in rest)


# — errors —


def _respond(found: Problem, headers: Headers | None = None) -> Response:
    fields = {name.decode(): value.decode() for name, value in [*headers_of(found), *(headers or [])]}
    return JSONResponse(found.to_wire(), found.status, fields, MEDIA_TYPE)


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RealtimeError)
    if not is_told(error):
        raise error
    return _respond(problem_of(error))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _respond(error.problem, error.headers)


async def _unfit(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(unfit(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: a path, or a method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _respond(problem(404, "not_found", NOTHING_HERE))
    if error.status_code == 405:
        allowed = ", ".join([*_allowed(request), "OPTIONS"])
        return _respond(problem(405, "bad_request", f"Allowed on this path: {allowed}."), [(b"allow", allowed.encode())])
    return _respond(problem(error.status_code, "bad_request", "The request cannot be understood."))


def _allowed(request: Request) -> list[str]:
    """The methods that the path of a request has."""
    found = []
    for method in METHODS:
        scope = {"type": "http", "path": request.scope["path"], "root_path": "", "method": method, "headers": []}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found += ["GET", "HEAD"] if method == "GET" else [method]
    return found


def _route_of(scope: Scope) -> str:
    """The path as the routes name it, without what a request put into it."""
    return str(getattr(scope.get("route"), "path", BASE))


def _answering(send: Send, method: str) -> Send:
    """`send`, with what every answer has; of a HEAD without a body."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in message.get("headers", ())}
            message = message | {"headers": [*message.get("headers", ()), *(field for field in COMMON if field[0] not in names)]}
        elif method == "HEAD":
            message = message | {"body": b""}
        await send(message)

    return sending
