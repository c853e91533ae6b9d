"""What every request passes on its way to a route: who asks, how often, the path, and a body of JSON within its bounds, read whole.

All of it comes before the framework sees anything: who is not known is told so without his body being read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from ...auth.operators import HttpOptions
from ...clock import Clock
from ...errors import MessageTooLarge, ProtocolError, RateLimitExceeded, RealtimeError, ValidationError
from ...pipeline.throttle import Buckets
from ...protocol.codec import MALFORMED, decode_json
from ...protocol.limits import check_value
from ...transport.asgi import Receive, Scope, Send
from ..access import Access
from ..operations import Operations
from .asking import KEY, Asking
from .problems import Refused, is_told, problem_of, send_problem

BODY_SECONDS = 10.0
"""For a body to arrive in."""
LEVELS = 3
"""Of an envelope around the data of an event: `items`, an item, its `data`."""

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gone(Exception):
    """Who asked has hung up."""


class Gate:
    """An ASGI app before another one."""

    def __init__(self, app: App, *, operations: Operations, access: Access, options: HttpOptions, clock: Clock) -> None:
        self._app = app
        self._operations = operations
        self._access = access
        self._most = options.body_bytes
        self._buckets = Buckets(options.requests_per_second, None, factor=2.0)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = str(scope["method"])
        try:
            caller = await self._access.identify(scope)
            if wait := self._buckets.spend(caller.name, self._clock.monotonic()):
                raise RateLimitExceeded("Too many requests: wait before the next one.", retry_after=wait)
            _check_query(bytes(scope["query_string"]))
            body = await self._read(scope, receive) if method == "POST" else b""
        except Gone:
            return
        except Refused as refused:
            await send_problem(send, refused.problem, refused.headers)
            return
        except RealtimeError as error:
            if not is_told(error):
                raise
            await send_problem(send, problem_of(error))
            return
        path = encoded_path(scope)
        place = {"path": path, "raw_path": path.encode(), "root_path": ""}
        asking = {KEY: Asking(self._operations, caller), "method": "GET" if method == "HEAD" else method}
        await self._app({**scope, **place, **asking}, _again(body, receive), send)

    # — the body —

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The body, which is JSON that can go anywhere. Raises `Refused`, `ProtocolError`, `MessageTooLarge`, `Gone`."""
        headers = dict(scope["headers"])
        self._check_kind(headers)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._most:
            raise self._too_large()
        body = await self._receive_all(receive)
        if not body:
            raise ProtocolError("A body of JSON is needed.")
        try:
            value = decode_json(body)
            check_value(value, -LEVELS)
        except MALFORMED:
            raise ProtocolError("The body is not valid JSON, or nested too deep.") from None
        return body

    def _check_kind(self, headers: dict[bytes, bytes]) -> None:
        kind, _, parameters = headers.get(b"content-type", b"").partition(b";")
        charset = parameters.strip().lower().replace(b'"', b"")
        if kind.strip().lower() != b"application/json" or charset not in (b"", b"charset=utf-8"):
            raise Refused(
                415,
                "unsupported_media_type",
                "The body has to be JSON in UTF-8, with Content-Type: application/json.",
                [(b"accept-post", b"application/json")],
            )
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise Refused(415, "unsupported_media_type", "The body has to come without a Content-Encoding.", [(b"accept-encoding", b"identity")])

    async def _receive_all(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(None) as limit:
                timer = self._clock.call_later(BODY_SECONDS, limit.reschedule, 0.0)
                try:
                    while True:
                        message = await receive()
                        if message["type"] != "http.request":
                            raise Gone
                        part = message.get("body", b"")
                        size += len(part)
                        if size > self._most:
                            raise self._too_large()
                        parts.append(part)
                        if not message.get("more_body", False):
                            return b"".join(parts)
                finally:
                    timer.cancel()
        except TimeoutError:
            raise Refused(408, "timeout", "The body did not arrive in time.", [(b"connection", b"close")], retryable=True) from None

    def _too_large(self) -> MessageTooLarge:
        return MessageTooLarge(f"The body is larger than {self._most} bytes.")


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose body has been read."""
    first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Any:
        return first.pop() if first else await receive()

    return receiving


def _check_query(query: bytes) -> None:
    """A parameter that is given twice says nothing for sure, and others would silently take the last. Raises `ValidationError`."""
    if not query:
        return
    names = Counter(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if twice := [name for name, count in names.items() if count > 1 and name.isprintable()]:
        raise ValidationError(errors=[{"path": f"query.{name[:50]}", "message": "is given more than once"} for name in twice])


def encoded_path(scope: Scope) -> str:
    """The path, with every part percent-encoded in one way: a part may hold a `/`, and a fixed part is found however it was written."""
    raw = scope.get("raw_path") or quote(str(scope["path"])).encode()
    parts = bytes(raw).partition(b"?")[0].split(b"/")
    return "/".join(quote(unquote_to_bytes(part), safe="") for part in parts)
