"""The port: HTTP/1.1 by uvicorn's protocol class, in this process, on the loop's own transports; WebSocket handshakes leave it here.

A handshake goes to a `Gate`, which decides and afterwards owns the connection. Everything else goes to an ASGI app. Not here: what the gate
decides by.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Any, Protocol

import httptools
import msgspec
from msgspec import Struct
from uvicorn.config import Config
from uvicorn.server import ServerState

from .answering import AnsweringProtocol

Headers = list[tuple[bytes, bytes]]

_EARLY_BYTES = 64 * 1024
LINGER = 1.0
"""Seconds for which a refused peer may go on sending into the void before the connection is cut."""


class HttpLimits(Struct, frozen=True):
    """Bytes of a URL, of one header field, of all; the number of fields; seconds for a request's head (None = off), a decision included.

    `answer_seconds`: see `Draining`. `requests_ahead`: of one connection, that wait for the answer to one before.
    """

    url_bytes: int = 8 * 1024
    header_fields: int = 64
    header_bytes: int = 8 * 1024
    headers_bytes: int = 16 * 1024
    handshake_seconds: float | None = 10.0
    answer_seconds: float | None = 30.0
    requests_ahead: int = 32


class UpgradeRequest(Struct, frozen=True):
    """A request to become a WebSocket, as it came. Header names are in lower case."""

    method: str
    path: str
    query: bytes
    http_version: str
    headers: Headers
    peer_address: str
    is_secure: bool
    is_raw: bool = True
    """False: another server has checked the WebSocket part of the request already."""


class Refusal(Struct, frozen=True):
    """A handshake that ends as a plain HTTP answer. `message`: one sentence that says what to do."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


class Acceptance(Struct, frozen=True):
    """A handshake that ends as a WebSocket. `headers`: further ones of the 101; `open(stream, early)` takes the stream over once that is written.

    `writes_head`: `open(stream, early, head)` writes the 101 itself, together with what it has to say next.
    """

    headers: tuple[tuple[str, str], ...]
    open: Callable[..., None]
    writes_head: bool = False

    def act(self, stream: asyncio.Transport, early: bytes) -> None:
        """Write the 101, and let the stream go. `early`: bytes that came with the request."""
        further = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{further}\r\n".encode("latin-1")
        if self.writes_head:
            self.open(stream, early, head)
        else:
            stream.write(head)
            self.open(stream, early)


Verdict = Refusal | Acceptance


class Gate(Protocol):
    """Decides about handshakes."""

    http_limits: HttpLimits

    def is_ours(self, path: str) -> bool:
        """Whether a handshake on this path is the gate's to decide; others go to the ASGI app, if one was given."""

    def decide(self, request: UpgradeRequest) -> Verdict | Awaitable[Verdict]:
        """Let in or refuse. Raises nothing that a request could cause."""

    def refused(self, status: int) -> None:
        """Count a request that was refused before it could be decided."""


class HttpProtocol(AnsweringProtocol):
    """One connection, from accept to its end or to the 101."""

    def __init__(self, gate: Gate, *, has_app: bool, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state, answer_seconds=gate.http_limits.answer_seconds)
        self._gate = gate
        self._has_app = has_app
        self._limits = gate.http_limits
        self._in_head = True
        self._is_between = False
        self._head_bytes = 0
        self._field_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._postponed: Callable[[], None] | None = None
        self._deciding: asyncio.Task[None] | None = None
        self._early = b""
        self._violation: tuple[int, str] | None = None
        self._is_over = False

    # — the life of the connection —

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def take_over(self, transport: asyncio.Transport, seconds: float | None) -> None:
        """Go on with a connection that began elsewhere. `seconds`: what is left for the head of its first request; None = no limit."""
        super().connection_made(transport)
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._too_late)

    def settle(self, verdict: Verdict | Awaitable[Verdict], early: bytes) -> None:
        """Act on what the gate says of a request that was read elsewhere. `early`: bytes that came after it."""
        self._in_head = False
        self._early = early
        self._decide(verdict)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        if self._deciding is not None:
            self._deciding.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._deciding is not None or self._postponed is not None or self.transport.is_closing():
            self._early += data[: max(0, _EARLY_BYTES - len(self._early))]
            return
        self._unset_keepalive_if_required()
        if self._is_between:  # what ends the wait for a next request may be less than its first byte: an empty line
            self._is_between = False
            self._expect_head()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._early = data[upgrade.args[0] :]
            if self._violation is None:
                self._leave_http()
        except httptools.HttpParserError:
            if self._violation is None:
                self._refuse(_NOT_UNDERSTOOD)
        if self._violation is not None:
            self._refuse(Refusal(self._violation[0], "bad_request", self._violation[1]))
        elif self._in_head and self._head_bytes > self._limits.url_bytes + self._limits.headers_bytes:
            self._refuse(Refusal(431, "bad_request", "The head of the request is larger than allowed."))

    def _expect_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._start_deadline()

    def _start_deadline(self) -> None:
        if self._deadline is None and self._limits.handshake_seconds is not None:
            self._deadline = self.loop.call_later(self._limits.handshake_seconds, self._too_late)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._in_head and self._head_bytes:
            self._refuse(Refusal(408, "timeout", "The request did not arrive in time."))
        else:
            self.close()

    # — what the parser tells —

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= self._limits.requests_ahead:
            self._violation = (429, f"More than {self._limits.requests_ahead} requests were sent ahead of their answers.")
            raise ValueError  # stops the parser
        super().on_message_begin()
        self._field_bytes = 0
        self._is_between = False
        if not self._in_head:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.url_bytes:
            self._violation = self._violation or (414, f"The URL is longer than {self._limits.url_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        limits = self._limits
        self._field_bytes += len(name) + len(value)
        if len(self.headers) > limits.header_fields:
            self._violation = self._violation or (431, f"There are more than {limits.header_fields} header fields.")
        elif len(name) + len(value) > limits.header_bytes:
            self._violation = self._violation or (431, f"A header field is longer than {limits.header_bytes} bytes.")
        elif self._field_bytes > limits.headers_bytes:
            self._violation = self._violation or (431, f"The header fields are longer than {limits.headers_bytes} bytes.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):  # RFC 9112, section 3.2
            self._violation = self._violation or (400, "Exactly one Host field is needed.")
        if self._violation is None:
            if not self._is_upgrade():
                self._end_deadline()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._violation is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._violation is None:
            super().on_message_complete()
            if not self._is_upgrade():
                self._end_deadline()
                self._is_between = True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self._postponed is not None:
            act, self._postponed = self._postponed, None
            self._unset_keepalive_if_required()
            self._start_deadline()
            act()
        elif self.cycle.more_body:
            self._start_deadline()  # the answer is out, and the rest of the request still to come: not for ever

    def _after_answers(self, act: Callable[[], None]) -> None:
        """Act at once, or when the requests that came before on this connection are answered (RFC 9112, section 9.3.2)."""
        if self.cycle is None or self.cycle.response_complete:
            act()
        else:
            self._end_deadline()
            self.flow.pause_reading()
            self._postponed = act

    def _is_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self._should_upgrade()

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == b"websocket"

    def _get_upgrade(self) -> bytes | None:
        return b"websocket" if b"websocket" in self._tokens(b"upgrade") and b"upgrade" in self._tokens(b"connection") else None

    def _tokens(self, field: bytes) -> set[bytes]:
        return {token for name, value in self.headers if name == field for token in tokens_of(value)}

    # — the handshake —

    def _leave_http(self) -> None:
        """The parser has met an upgrade, and takes nothing more."""
        if self._should_upgrade():
            self._after_answers(self._upgrade)
        else:
            # Another protocol than ours, such as h2c: the offer is ignored (RFC 9110, section 7.8), and the request answered as it is.
            self.cycle.keep_alive = False
            self._is_over = True

    def _upgrade(self) -> None:
        try:
            url = httptools.parse_url(self.url) if not self.url.startswith(b"*") else None
        except httptools.HttpParserInvalidURLError:
            self._refuse(_NOT_UNDERSTOOD)
            return
        path = url.path.decode("ascii", "replace") if url is not None and url.path else "/"
        if not self._gate.is_ours(path) and self._has_app:
            self._end_deadline()
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.handle_websocket_upgrade()
            return
        request = UpgradeRequest(
            self.parser.get_method().decode("ascii"),
            path,
            (url.query if url is not None else None) or b"",
            self.parser.get_http_version(),
            self.headers,
            self.client[0] if self.client else "",
            self.scheme == "https",
        )
        self._decide(self._gate.decide(request))

    def _decide(self, verdict: Verdict | Awaitable[Verdict]) -> None:
        if isawaitable(verdict):
            self.transport.pause_reading()
            self._deciding = self.loop.create_task(self._wait(verdict))
        else:
            self._act(verdict)

    async def _wait(self, verdict: Awaitable[Verdict]) -> None:
        self._act(await verdict)

    def _act(self, verdict: Verdict) -> None:
        if self.transport.is_closing():
            return
        if isinstance(verdict, Refusal):
            self._refuse(verdict, count=False)
            return
        self._end_deadline()
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.transport.pause_reading()
        stream, early = self.transport, self._early
        self.parser = self.flow = self.transport = None  # type: ignore[assignment]
        # uvloop keeps the last `data_received` that a stream had, also under a buffered protocol: without this, each WebSocket would keep all of
        # the above.
        stream.set_protocol(_NOBODY)
        verdict.act(stream, early)

    def _refuse(self, refusal: Refusal, *, count: bool = True) -> None:
        self._after_answers(partial(self._refuse_now, refusal, count))

    def _refuse_now(self, refusal: Refusal, count: bool) -> None:
        self._end_deadline()
        if self.transport.is_closing() or self._is_over:
            return
        self._is_over = True
        if count:
            self._gate.refused(refusal.status)
        self.transport.write(refusal_response(refusal))
        if self._in_head and self.transport.can_write_eof():
            # More of the request may be on its way: closing now would make the kernel send a reset, which eats the answer.
            self.transport.write_eof()
            self._deadline = self.loop.call_later(LINGER, self.transport.abort)
        else:
            self.close()


def tokens_of(value: bytes) -> set[bytes]:
    """The entries of a list in a header field, in lower case."""
    return {token.strip().lower() for token in value.split(b",")}


_NOBODY = asyncio.Protocol()
_NOT_UNDERSTOOD = Refusal(400, "bad_request", "This is not an HTTP/1.1 request that can be understood.")


def refusal_body(refusal: Refusal) -> bytes:
    """What a refusal says, in JSON."""
    return msgspec.json.encode({"code": refusal.code, "message": refusal.message, "retryable": refusal.status in (408, 429, 503)})


def refusal_response(refusal: Refusal) -> bytes:
    """The whole HTTP answer of a refusal; the connection ends with it."""
    body = refusal_body(refusal)
    further = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers)
    phrase = http.HTTPStatus(refusal.status).phrase
    head = (
        f"HTTP/1.1 {refusal.status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{further}\r\n"
    )
    return head.encode("latin-1") + body
