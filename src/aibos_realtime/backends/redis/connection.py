"""One connection to one Redis: RESP3 over TCP, TLS or a Unix socket, read by hiredis. Calls share it: replies come in the order of the calls.

Whoever is cancelled leaves his place in that order, so that nobody ever gets the reply to another's call. It knows no other server, and sends
nothing twice.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, cast

from ...clock import SYSTEM_CLOCK, Clock, Timer
from ...errors import ConfigurationError

Push = Callable[[list[Any]], None]
"""What is called with what the server says unasked: `[b"smessage", channel, payload]`, …"""

NOTHING: Any = object()
READ_FIRST = 0.01
"""Seconds that the loop has to read, before what is late is given up."""


class Endpoint(NamedTuple):
    """Where one server listens. Of a Unix socket: `path`."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


@dataclass(frozen=True, slots=True)
class Login:
    """How a connection introduces itself. `tls`: None for plain text."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: ssl.SSLContext | None = None


class ReplyError(Exception):
    """The server's answer is an error. `code`: its first word (`MOVED`, `NOSCRIPT`, …)."""

    def __init__(self, text: str) -> None:
        super().__init__(text.partition(", with args beginning with")[0])  # which may be a payload

    @property
    def code(self) -> str:
        word = str(self).partition(" ")[0]
        return word if word.isalpha() and word.isupper() else "ERR"


class ConnectionLost(Exception):
    """The connection is gone, or no answer came in time: what was sent may have been done or not."""


class Connection(asyncio.Protocol):
    """For one `open`. `on_push` and `on_lost` are called while the loop reads, and must not raise."""

    def __init__(self, *, on_push: Push | None = None, on_lost: Callable[[], None] | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        make_reader, self._pack, self._push, self._garbled = _driver()
        reader = make_reader(replyError=ReplyError, notEnoughData=NOTHING)
        self._gets, self._feed = reader.gets, reader.feed
        self._on_push, self._on_lost = on_push, on_lost
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: deque[tuple[asyncio.Future[Any], float, bool]] = deque()
        self._timer: Timer | None = None
        self._due = 0.0
        self._nobody: asyncio.Future[Any] = self._loop.create_future()  # whose replies are dropped
        self._nobody.cancel()
        self._is_retired = False
        self.endpoint = Endpoint("", 0)
        self.is_usable = False
        """Whether new calls may go on it: it is up, and every call has been answered in time."""
        self.heard_at = clock.monotonic()
        """When bytes came last."""
        self.greeting: dict[bytes, Any] = {}
        """The answer to HELLO: `server`, `version`, `role`, …"""

    async def open(self, endpoint: Endpoint, login: Login, timeout: float) -> None:
        """Connect, sign in, and choose the database. Raises `ConnectionLost` and `ReplyError`. Cancelling leaves nothing open."""
        self.endpoint = endpoint
        try:
            async with asyncio.timeout(timeout):
                if endpoint.path:
                    await self._loop.create_unix_connection(lambda: self, endpoint.path)
                else:
                    await self._loop.create_connection(lambda: self, endpoint.host, endpoint.port, ssl=login.tls)
                hello: list[str | int] = ["HELLO", 3]
                if login.password is not None:
                    hello += ["AUTH", login.username or "default", login.password]
                answers = [self.call((*hello, "SETNAME", "aibos-realtime"), timeout)]
                if login.db:
                    answers.append(self.call(("SELECT", login.db), timeout))
                self.greeting, *_ = await asyncio.gather(*answers)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | TimeoutError | ValueError):  # ValueError: a host that is none
                raise ConnectionLost("no connection") from error
            raise
        self.is_usable = True

    def call(self, words: Sequence[Any], timeout: float, *, before: Sequence[Any] | None = None) -> asyncio.Future[Any]:
        """The reply to one command, which is sent at once. `timeout`: seconds until it fails. `before`: a command that must come directly before.

        It fails with `ReplyError`, or with `ConnectionLost`. Cancelling is safe.
        """
        packed = self._pack(tuple(words))
        if before is None:
            return self._send(packed, timeout)
        self._send(b"", timeout, self._nobody)
        return self._send(self._pack(tuple(before)) + packed, timeout)

    def call_pushed(self, words: Sequence[Any], timeout: float) -> asyncio.Future[None]:
        """Send a command that is answered by pushes (`SSUBSCRIBE`); done when all of them have come. Fails as `call` does.

        A PING goes with it: its reply tells that there will be no more.
        """
        done = self._send(self._pack(tuple(words)), timeout, is_pushed=True)
        self._send(self._pack(("PING",)), timeout, self._nobody)
        return done

    def _send(self, packed: bytes, timeout: float, reply: asyncio.Future[Any] | None = None, is_pushed: bool = False) -> asyncio.Future[Any]:
        if reply is None:
            reply = self._loop.create_future()
        if self._transport is None:
            if not reply.done():
                reply.set_exception(ConnectionLost("closed"))
            return reply
        deadline = self._clock.monotonic() + timeout
        self._calls.append((reply, deadline, is_pushed))
        if self._timer is None or deadline < self._due:
            self._plan_check(deadline, timeout)
        if packed:
            self._transport.write(packed)
        return reply

    def retire(self) -> None:
        """Close it as soon as all calls are answered; it is for no new ones."""
        self._is_retired, self.is_usable = True, False
        if not self._calls:
            self.close()

    def close(self) -> None:
        """End it at once; what waits for an answer fails. Idempotent. `on_lost` is still called, when the loop has closed the socket."""
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._fail(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        end = transport.get_extra_info("socket")
        if end is not None and end.family != socket.AF_UNIX:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_usable = False
        self._transport = None
        self._fail(error)
        if self._on_lost is not None:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._clock.monotonic()
        self._feed(data)
        gets, push = self._gets, self._push
        try:
            while (reply := gets()) is not NOTHING:
                if type(reply) is not push:
                    self._settle(reply)
                elif self._on_push is not None:
                    self._on_push(reply)
        except self._garbled:
            self.close()

    def _settle(self, reply: Any) -> None:
        if not self._calls:
            return  # the server says why it closes
        future, _, is_pushed = self._calls.popleft()
        if isinstance(reply, ReplyError):
            if not future.done():
                future.set_exception(reply)
            return
        if is_pushed:  # this is the reply to the PING behind it
            self._calls.popleft()
            reply = None
        if not future.done():
            future.set_result(reply)
        if self._is_retired and not self._calls:
            self.close()

    def _plan_check(self, due: float, delay: float, is_sure: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = self._clock.call_later(delay, self._check_deadlines, is_sure), due

    def _check_deadlines(self, is_sure: bool) -> None:
        """Fail what waits too long. No new calls then; those that are still in time may have their answers."""
        self._timer = None
        now = self._clock.monotonic()
        for future, deadline, _ in self._calls:
            if deadline > now:
                self._plan_check(deadline, deadline - now)
                return
            if not is_sure:  # uvloop runs timers before it reads: a loop that was busy has not read yet what is there already
                self._plan_check(deadline, READ_FIRST, is_sure=True)
                return
            self._is_retired, self.is_usable = True, False
            if not future.done():
                future.set_exception(ConnectionLost("no answer in time"))
        if self._calls:
            self.close()

    def _fail(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, deque()
        for future, _, _ in calls:
            if not future.done():
                lost = ConnectionLost("the connection was lost")
                lost.__cause__ = error
                future.set_exception(lost)


@cache
def _driver() -> tuple[Any, Any, Any, type[Exception]]:
    try:
        from hiredis import ProtocolError, PushNotification, Reader, pack_command
    except ImportError as error:
        raise ConfigurationError('redis: the driver is not installed: pip install "aibos-realtime[redis]"') from error
    return Reader, pack_command, PushNotification, ProtocolError
