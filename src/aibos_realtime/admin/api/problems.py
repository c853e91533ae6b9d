"""What is answered where something does not do: a problem (RFC 9457), one for every kind of error. Which error it is is decided elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from ...errors import (
    AuthenticationError,
    BackendError,
    ConnectionError,
    IdempotencyConflict,
    MessageTooLarge,
    NotInRoom,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    QueueError,
    QueueFull,
    RateLimitExceeded,
    RealtimeError,
    RequestTimeout,
    RoomError,
    RoomNotFound,
    UnrecoverablePosition,
    ValidationError,
)  # fmt: skip
from ...transport.asgi import Send
from ..reports import Report

MEDIA_TYPE = "application/problem+json"
SHOWN = 20
"""Faults of one request that are told."""

Headers = list[tuple[bytes, bytes]]

STATUSES: dict[type[RealtimeError], int] = {
    AuthenticationError: 401, PermissionDenied: 403, RoomNotFound: 404, NotInRoom: 404, RoomError: 409, IdempotencyConflict: 409,
    UnrecoverablePosition: 410, MessageTooLarge: 413, ProtocolError: 400, ValidationError: 422, RateLimitExceeded: 429,
    QueueFull: 503, QueueError: 404, Overloaded: 503, BackendError: 503, ConnectionError: 503, RequestTimeout: 504,
}  # fmt: skip
"""By the error's nearest class."""


class Fault(Report):
    """One thing that does not fit. `path`: where, `$.…` in the body."""

    path: str
    message: str


class Problem(Report):
    """An error, as RFC 9457 writes it. `title`: of the status. `detail`: a sentence for people. `code`: a word for programs. `retryable`: whether the
    same request may succeed later, `retry_after` in how many seconds. `errors`: what does not fit, where the body or a parameter does not.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = False
    retry_after: float | None = None
    errors: list[Fault] | None = None

    def to_wire(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class Refused(Exception):
    """A request that is refused for what it is as HTTP."""

    def __init__(self, status: int, code: str, detail: str, headers: Headers | None = None, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.problem = problem(status, code, detail, retryable=retryable)
        self.headers = headers or []


def problem(status: int, code: str, detail: str, *, retryable: bool = False, errors: Sequence[Fault] = ()) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(title=title, status=status, detail=detail, code=code, retryable=retryable, errors=list(errors[:SHOWN]) or None)


def is_told(error: RealtimeError) -> bool:
    """Whether an error is for who asked; others are our own, and for the log."""
    return _status(error) is not None


def problem_of(error: RealtimeError) -> Problem:
    """The problem that an error is. Of a kind that is not told (`is_told`) it says nothing."""
    status = _status(error)
    if status is None:
        return internal("")
    code = "queue_not_found" if isinstance(error, QueueError) and status == 404 else error.code
    found = problem(status, code, error.message, retryable=error.retryable, errors=_faults(error))
    if isinstance(error, RateLimitExceeded):
        return found.model_copy(update={"retry_after": math.ceil(error.retry_after * 1000) / 1000})
    return found.model_copy(update={"retry_after": 1.0}) if status == 503 else found


def internal(incident: str) -> Problem:
    """Our own fault. `incident`: under which the log has the rest."""
    said = f" (incident {incident})" if incident else ""
    return problem(500, "internal", f"The server failed to do this{said}.", retryable=True)


def headers_of(found: Problem) -> Headers:
    """The header fields that go with a problem."""
    headers: Headers = []
    if found.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if found.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(found.retry_after)).encode()))
    return headers


async def send_problem(send: Send, found: Problem, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Answer a request with a problem."""
    content = msgspec.json.encode(found.to_wire())
    fields = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(content)).encode()), *headers_of(found), *headers]
    await send({"type": "http.response.start", "status": found.status, "headers": fields})
    await send({"type": "http.response.body", "body": content})


def unfit(errors: Sequence[Any]) -> Problem:
    """What pydantic says of a request, without what was given."""
    faults = [Fault(path=_path(one["loc"]), message=_message(one)) for one in errors]
    return problem(422, "validation_failed", "The request does not fit what is expected here.", errors=faults)


def _message(error: Any) -> str:
    return "is not known here" if error.get("type") == "extra_forbidden" else str(error["msg"]).removeprefix("Value error, ")


def _path(place: Sequence[object]) -> str:
    """`$.items[3].event` in the body, `query.limit`, `path.room`."""
    first, *rest = place or ("body",)
    text = "$" if first == "body" else str(first)
    for part in rest:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    text = json.dumps(text, ensure_ascii=False)[1:-1] if not text.isprintable() else text
    return text if len(text) <= 200 else f"{text[:199]}…"


def _status(error: RealtimeError) -> int | None:
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)


def _faults(error: RealtimeError) -> list[Fault]:
    if not isinstance(error, ValidationError):
        return []
    return [Fault(path=str(one.get("path", "$")), message=str(one.get("message", ""))) for one in error.errors]
