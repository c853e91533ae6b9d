"""One client's connection as the server and its handlers know it: who it is, where it is, and how to speak to it.

A socket does not know what messages mean: what arrives goes to its `Host`, which is the pipeline. It is built for many: slots, and nothing that an
idle client does not need (handlers, calls, an outbox, application data come when first used).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, overload

from ..auth.user import Identity, User
from ..errors import ConfigurationError, ConnectionClosed, RequestTimeout
from ..protocol.close_codes import CloseCode
from ..protocol.codec import Answer, Encoding
from ..protocol.frames import PING, encode_frame, is_close_code
from ..protocol.limits import check_name
from ..protocol.messages import RESERVED, ClientMessage
from ..transport.base import Transport
from .outbox import Outbox, OutboxLimits

_OWN_HANDLERS = ("authenticate", "join-room", "leave-room", "history", "presence", "disconnect")

F = TypeVar("F", bound=Callable[..., Any])

_PING_FRAME = encode_frame(PING, b"")
_NO_HANDLERS: Mapping[str, Callable[..., Any]] = {}


class Host(Protocol):
    """What a socket asks of the server around it."""

    outbox_limits: OutboxLimits
    coarse_now: float
    """Monotonic seconds, renewed about four times a second: cheap enough to be read for every message."""

    def receive(self, socket: Socket, opcode: int, payload: bytes) -> None: ...

    def lost(self, socket: Socket, code: int, reason: str) -> None: ...

    def flush(self) -> None:
        """Send what is waiting to be sent to rooms, so that what follows stands after it."""

    def unbind(self, socket: Socket) -> None:
        """The socket is about to be somebody else's, or nobody's: end what it has as its present user."""

    def bind(self, socket: Socket) -> None:
        """The socket's user was assigned."""

    def too_slow(self, socket: Socket) -> None: ...

    async def join(self, socket: Socket, room_id: str, check: bool) -> None: ...

    async def leave(self, socket: Socket, room_id: str) -> None: ...


class Socket:
    """A client's connection. Handlers get it; it is never built by an application."""

    __slots__ = (
        "_calls", "_data", "_drained", "_headers", "_held", "_host", "_next_ref", "_outbox", "_user", "authenticated", "backlog", "closing",
        "connected_at", "deadline", "encoding", "expires_at", "expiry_close_at", "expiry_notice_at", "handlers", "heard_at", "id", "memberships",
        "pace", "pinged_at", "publishes", "ready", "token_id", "token_issued_at", "transport", "write",
    )  # fmt: skip

    def __init__(self, host: Host, transport: Transport, encoding: Encoding, *, headers: bytes = b"", connected_at: float = 0.0) -> None:
        self._host = host
        self.transport = transport
        self.encoding = encoding
        self.id = secrets.token_urlsafe(12)
        self._headers = headers
        self.connected_at = connected_at
        """Unix time of the handshake."""
        self._user: User | None = None
        self.authenticated = False
        self.expires_at: float | None = None
        self.expiry_notice_at: float | None = None
        self.expiry_close_at: float | None = None
        self.token_id: str | None = None
        self.token_issued_at: float | None = None
        self.write: Callable[[bytes], None] = transport.write
        self._held: bytearray | None = None
        self._outbox: Outbox | None = None
        self._drained: asyncio.Future[None] | None = None
        self.memberships: dict[str, Any] | None = None
        """Rooms by id. `RoomManager` alone changes it: sockets may share it."""
        self.handlers: Mapping[str, Callable[..., Any]] = _NO_HANDLERS
        self._calls: dict[int, asyncio.Future[Any]] | None = None
        self._next_ref = 0
        self._data: dict[str, Any] | None = None
        self.backlog: deque[ClientMessage] | tuple[ClientMessage, ...] | None = None
        self.publishes: deque[tuple[ClientMessage, asyncio.Future[Any]]] | None = None
        self.pace: Any = None
        self.heard_at = host.coarse_now
        self.pinged_at = -1.0
        self.deadline: float | None = None
        self.ready = False
        """The client has been told `connected`."""
        self.closing = False

    # — who, where —

    @property
    def user(self) -> User | None:
        """Whose connection this is; None before authentication. Assigning a `User` (or a mapping with `id`, `role`, `tenant_id`) authenticates."""
        return self._user

    @user.setter
    def user(self, user: User | Mapping[str, Any] | None) -> None:
        user = User.from_mapping(user) if isinstance(user, Mapping) else user
        if self._user is not None and (user is None or user.id != self._user.id):
            self._host.unbind(self)
            self.expires_at = self.expiry_notice_at = self.expiry_close_at = self.token_id = self.token_issued_at = None
        self._user = user
        self.authenticated = user is not None
        self._host.bind(self)

    def identify(self, identity: Identity, *, now: float, monotonic: float, notice: float, grace: float) -> None:
        """Take over what a verified token says, at this Unix and this monotonic time.

        `notice`: seconds ahead of expiry at which the client is told; for a token shorter than four times that, a quarter of its life. `grace`:
        seconds after expiry that the connection lives. Both are kept as monotonic times: a step of the wall clock prolongs nothing.

        Of a token that is over already, by less than the clocks may differ, the client is told in the middle of the grace: whose issuer's clock is
        behind gets no other tokens, and would be told of each at once, without end.
        """
        self.user = identity.user
        remaining = identity.expires_at - now
        self.expires_at = identity.expires_at
        self.token_id = identity.token_id
        self.token_issued_at = identity.issued_at
        self.expiry_notice_at = monotonic + (remaining - min(notice, remaining / 4) if remaining >= 1.0 else max(0.0, remaining + grace) / 2)
        self.expiry_close_at = monotonic + remaining + grace

    @property
    def rooms(self) -> frozenset[str]:
        """The ids of the rooms that this socket is in; its own streams are not among them."""
        return frozenset(self.memberships or ())

    @property
    def data(self) -> dict[str, Any]:
        """A dict for the application's own use; it lives as long as the socket."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def remote_address(self) -> str:
        """The client's IP address, behind trusted proxies the one that they tell."""
        return self.transport.remote_address

    @property
    def headers(self) -> dict[str, str]:
        """The handshake's headers, names in lower case; without the ones that carry tokens."""
        lines = self._headers.decode("latin-1").split("\r\n") if self._headers else []
        return {name: value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def is_open(self) -> bool:
        return not self.closing

    @property
    def is_busy(self) -> bool:
        """Whether a request of this socket is being handled, behind which the next ones wait."""
        return self.backlog is not None

    def __repr__(self) -> str:
        user = self._user.id if self._user else None
        return f"<Socket {self.id} user={user!r} rooms={len(self.memberships or ())}{' closing' if self.closing else ''}>"

    # — speaking —

    def emit(self, event: str, data: Any = None, *, volatile: bool = False) -> None:
        """Send an event to this socket alone. Never waits: a socket that does not read is closed (4008) once its outbox is full.

        `volatile`: drop the event instead when the socket is behind. To a closed socket: nothing happens. Raises `ProtocolError` for a bad name.
        """
        check_name("event", event)
        if not (volatile and self._outbox is not None and not self._outbox.has_room()):
            self.write(self.encoding.frame(Answer(event, data=data)))

    async def call(self, event: str, data: Any = None, timeout: float = 10.0) -> Any:
        """Send an event and wait for the client's answer, which is returned as plain values.

        Raises `RequestTimeout` after `timeout` seconds, `ConnectionClosed` when the socket goes first. Cancelling is safe: a late answer is dropped.
        """
        check_name("event", event)
        if event in RESERVED:
            raise ConfigurationError(f"socket.call({event!r}): the name is the protocol's own, and the client would take the call for an answer")
        if self.closing:
            raise ConnectionClosed(close_code=1006, reason="the socket is closed")
        self._next_ref += 1
        ref = self._next_ref
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls = self._calls if self._calls is not None else {}
        self._calls[ref] = answer
        try:
            self.write(self.encoding.frame(Answer(event, ref, data)))
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise RequestTimeout(f"The client did not answer {event!r} within {timeout} s.") from None
        finally:
            self._calls.pop(ref, None)

    def answered(self, ref: object, value: Any) -> None:
        """The client's `ack` to a call."""
        answer = self._calls.get(ref) if self._calls and isinstance(ref, int) else None
        if answer is not None and not answer.done():
            answer.set_result(value)

    async def join(self, room_id: str, *, check: bool = True) -> None:
        """Join a room, as `join-room` does. `check`: ask for `read` on behalf of `socket.user`.

        Raises `PermissionDenied`, `AuthenticationError` (no user), `RoomFull`, `RoomLimitExceeded`, `GuestsNotAllowed`, `RoomNotFound`.
        """
        await self._host.join(self, room_id, check)

    async def leave(self, room_id: str) -> None:
        """Leave a room. Raises `NotInRoom`."""
        await self._host.leave(self, room_id)

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, handler: F) -> F: ...

    def on(self, event: str, handler: Callable[..., Any] | None = None) -> Any:
        """Handle a message of this socket: `@socket.on("invoice.approve")` or `socket.on("disconnect", gone)`.

        A handler takes the data (of `disconnect`: the reason); what it returns, or raises as a `RealtimeError`, is the client's answer. A handler
        of a built-in message (`authenticate`, `join-room`, …) runs in place of the built-in act. Raises `ConfigurationError` for a second handler.
        """

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            check_name("event", event)
            if event in RESERVED and event not in _OWN_HANDLERS:
                raise ConfigurationError(
                    f"socket.on({event!r}): no client sends this; of the protocol's own names these can be handled: {', '.join(_OWN_HANDLERS)}"
                )
            if event in self.handlers:
                raise ConfigurationError(f"socket.on({event!r}): there is a handler for this event already")
            self.handlers = {**self.handlers, event: handler}
            return handler

        return register if handler is None else register(handler)

    def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection; idempotent. 1000, or 4000–4499 (the client comes back), or 4500–4999 (it does not).

        Raises `ConfigurationError` for a code that no close frame carries (RFC 6455, section 7.4).
        """
        if self.closing:
            return
        if not is_close_code(code):
            raise ConfigurationError(f"socket.disconnect(code={code}): allowed are 1000 and 4000–4999")
        self._host.flush()
        self.closing = True
        if self._held:
            self.transport.write(bytes(self._held))
        self.transport.close(code, reason)
        self.write = _dropped

    # — what the transport tells (transport.base.Peer) —

    def received(self, opcode: int, payload: bytes) -> None:
        host = self._host
        self.heard_at = host.coarse_now
        if not self.closing:
            host.receive(self, opcode, payload)

    def writing_paused(self) -> None:
        self.watch()
        self.transport.pause_reading()

    def writing_resumed(self) -> None:
        self._keep_up()
        self.transport.resume_reading()

    def disconnected(self, code: int, reason: str) -> None:
        self.closing = True
        self.write = _dropped
        self._outbox = None
        for answer in (self._calls or {}).values():
            if not answer.done():
                answer.set_exception(ConnectionClosed(close_code=code, reason=reason))
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._host.lost(self, code, reason)

    # — before the first message —

    def hold_back(self) -> None:
        """Keep what is written, for the first message to go before it."""
        self._held = bytearray()
        self.write = self._write_held

    def _write_held(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
            limit = self._host.outbox_limits.hard
            if limit is not None and len(self._held) > limit:
                self._held = None
                self.overflow()

    def let_out(self, first: bytes) -> None:
        """Write the first message, and then what was held back."""
        held, self._held = self._held or b"", None
        if not self.closing:
            self.write = self.transport.write
            self.write(first + held)

    # — the outgoing buffer —

    def watch(self) -> None:
        """Bytes pile up: count them from here on."""
        if self._outbox is None and not self.closing:
            self._outbox = Outbox(self.transport, self._host.outbox_limits, self._host.coarse_now)
            self.write = self._write_behind

    def _write_behind(self, data: bytes) -> None:
        self.transport.write(data)
        if self._outbox is not None and not self._outbox.took(len(data)):
            self.overflow()

    def overflow(self) -> None:
        """The outbox is full or too old: the socket goes, at once, and what it missed it will recover."""
        if not self.closing:
            self._host.too_slow(self)
            self.closing = True
            self.write = _dropped
            self.transport.close(CloseCode.TOO_SLOW, "too slow")

    def _keep_up(self) -> None:
        if self._outbox is not None and not self.closing:
            self._outbox = None
            self.write = self.transport.write
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def is_behind(self) -> bool:
        """Whether bytes are waiting beyond what the network takes at once."""
        return self._outbox is not None

    def can_take_volatile(self) -> bool:
        return self._outbox is None or self._outbox.has_room()

    async def drained(self) -> None:
        """Wait until this socket keeps up, or is gone. Cancelling is safe."""
        if self._outbox is not None:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    # — once a second —

    def check_outbox(self, now: float, may_judge: bool = True) -> int:
        """Look whether bytes are stuck below the soft limit, where the transport says nothing; returns how many wait.

        `may_judge`: whether they may be found too old.
        """
        waiting = self.transport.buffered()
        if self._outbox is None:
            if waiting:
                self.watch()
        elif not waiting:
            # The transport paused nothing, so it will resume nothing: what a backlog had stopped meanwhile goes on from here.
            self._keep_up()
            self.transport.resume_reading()
        elif self._outbox.is_too_old(now) and may_judge:
            self.overflow()
        return waiting

    def ping(self) -> None:
        self.pinged_at = self._host.coarse_now
        self.write(_PING_FRAME)


def _dropped(data: bytes) -> None:
    """Where a closed socket writes to."""
