"""`RealtimeClient`: what an application sees of the client. It checks what it is given and passes it on; the work is done beside it."""

from __future__ import annotations

import random as _random
import ssl as _ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Never, Self, TypeVar, overload
from uuid import uuid4

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import AuthenticationError, ConfigurationError, ProtocolError
from ..protocol.limits import check_name, is_own_stream
from ..protocol.messages import RESERVED, Member, Position
from .dispatcher import Callback, Dispatcher
from .endpoints import Balancer, Endpoints
from .lifecycle import Lifecycle
from .options import ClientOptions, HeartbeatOptions
from .reconnect import State
from .room import HistoryPage, Receipt, RoomEvents, RoomState, is_receipt, read_history, read_joined, read_presence, read_receipt
from .tokens import Token, TokenSource, is_token
from .wire import make_wire

C = TypeVar("C", bound=Callback)


class RealtimeClient:
    """A connection to a realtime server that outlives its sockets.

        async with RealtimeClient("ws://localhost:3001", token=token) as client:
            await client.join_room("tenant_123")
            await client.send_message("invoice.created", {"invoiceId": "inv_001"}, room="tenant_123")

    `url`: one URL, a list that is tried in turn, or a load balancer. `token`: a text, or a function (`def` or `async def`) that is asked
    before
    every attempt and when a token is about to end. `ssl`: the context for `wss`. The other options: `ClientOptions`. Raises
    `ConfigurationError`.

    After a loss it connects again, joins its rooms, recovers what was missed, and repeats unacknowledged publishes under their first id.
    Cancelling
    any awaited call gives up that call alone. Nothing is bound to an event loop before `connect`.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Balancer,
        *,
        token: Token | None = None,
        reconnect: bool = True,
        reconnect_attempts: int | None = None,
        reconnect_interval: Any = 5.0,
        heartbeat: HeartbeatOptions | Mapping[str, Any] | None = None,
        connect_timeout: Any = 10.0,
        request_timeout: Any = 10.0,
        buffer_size: int = 1000,
        inbox_bytes: int = 16 * 1024 * 1024,
        max_message_bytes: int = 8 * 1024 * 1024,
        codec: Literal["json", "msgpack"] = "json",
        compression: Literal["deflate"] | None = None,
        ssl: _ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = _random.random,
        **unknown: Never,
    ) -> None:
        given: dict[str, Any] = dict(
            reconnect=reconnect, reconnect_attempts=reconnect_attempts, reconnect_interval=reconnect_interval,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout, buffer_size=buffer_size, inbox_bytes=inbox_bytes, max_message_bytes=max_message_bytes,
            codec=codec, compression=compression, heartbeat=HeartbeatOptions.parse("heartbeat", heartbeat),
        )  # fmt: skip
        self.options = ClientOptions.parse("client", given | unknown)
        self._endpoints = Endpoints(url)
        if ssl is not None and self._endpoints.is_secure is False:
            raise ConfigurationError("client.ssl: goes with wss URLs only; the URL says ws")
        self._tokens = TokenSource(token, clock=clock, timeout=self.options.connect_timeout)
        self._clock = clock
        self._wire = make_wire(self.options.codec)
        self._dispatcher = Dispatcher()
        self._life = Lifecycle(self.options, self._endpoints, self._tokens, ssl, clock, random, self._dispatcher, self._wire)

    # Life.

    @property
    def state(self) -> State:
        """ "disconnected" (not yet, or given up), "connecting", "connected", "reconnecting" or "closed"."""
        return self._life.state

    @property
    def user(self) -> dict[str, Any] | None:
        """The user as the server sees this client, as on the wire; None before the first connection, and without a token."""
        return self._life.session.user

    @property
    def socket_id(self) -> str | None:
        """The id of the present connection, or of the last one."""
        return self._life.session.socket_id

    async def connect(self) -> None:
        """Connect, and return once the server is ready; at once when connected already.

        Raises `AuthenticationError`, `PermissionDenied`, `ProtocolError` at once; `ConnectionError` (`ConnectTimeout`,
        `ConnectionLimitExceeded`)
        when no attempt is left: with `reconnect`, after `reconnect_attempts`. Every failed attempt also goes to `error` callbacks.
        Cancelling the last caller that waits ends the attempts; `connect` may then be called again, as it may be after `close`.
        """
        await self._life.connect()

    async def close(self) -> None:
        """Send what waits, leave every room, and say goodbye; a few seconds at most. Idempotent.

        Every waiting call gets `ConnectionError`; events that no callback has seen yet are not delivered. May be called from a callback.
        Cancelling leaves at once.
        """
        await self._life.close()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Callbacks.

    @overload
    def on(self, event: str) -> Callable[[C], C]: ...
    @overload
    def on(self, event: str, callback: C) -> C: ...
    def on(self, event: str, callback: Callback | None = None) -> Any:
        """Call `callback` for every event of this name; without one, a decorator that does. Returns the callback.

        It may be `def` or `async def`, and take nothing, the data, or the data and the `Event` (`.room`, `.id`, `.offset`, `.user_id`,
        `.timestamp`).
        Callbacks run one after the other, outside the reader: they may await the client's calls. What one raises goes to `error`
        callbacks, and
        the event counts as delivered. Where the server awaits an answer (`socket.call`), the first callback's value is it.

        Events of the client itself: `connect`; `disconnect` (reason); `reconnect` (how many attempts it took); `error` (the error);
        `resync`
        (`.room`, `.position`, `.last`: what is held of this room is stale); `room-closed`, `token-expiring`, `user.joined`, `user.left`
        (as on the wire).
        """

        def register(function: C) -> C:
            self._dispatcher.add(event, function)
            return function

        return register if callback is None else register(callback)

    def off(self, event: str, callback: Callback) -> None:
        """Call it no more."""
        self._dispatcher.remove(event, callback)

    # Rooms.

    async def join_room(self, room: str, *, recover: Position | None = None, rewind: int | None = None, presence: bool = False) -> RoomState:
        """Join a room, until `leave_room`: over every loss of the connection it is joined again and recovered.

        `recover`: deliver what came after this position, which an application has kept. `rewind`: deliver the last n events first. Both
        count only
        when the room is not joined yet. `presence`: also get `user.joined` and `user.left`. Raises `RoomError`, `PermissionDenied`,
        `RequestTimeout`, `ConnectionError`. Cancelling before the answer takes the join back.
        """
        self._check_room(room)
        ref = self._life.session.join(room, self._now, recover=recover, rewind=rewind, presence=presence)
        return read_joined(await self._life.conversation.ask(ref))

    async def leave_room(self, room: str) -> None:
        """Leave a room: nothing of it is delivered any more.

        Raises `NotInRoom`. Cancelling leaves open whether the server has heard of it.
        """
        self._check_room(room)
        await self._life.conversation.ask(self._life.session.leave(room, self._now))

    async def history(self, room: str, limit: int = 50, before: Position | None = None, after: Position | None = None) -> HistoryPage:
        """A page of a room's events: the newest, or those right before or right after a position. Cancelling is safe.

        Raises `PermissionDenied`, `UnrecoverablePosition`, `RequestTimeout`, `ConnectionError`.
        """
        self._check_room(room)
        data: dict[str, Any] = {"roomId": room, "limit": limit}
        data |= {name: {"epoch": at.epoch, "offset": at.offset} for name, at in (("before", before), ("after", after)) if at is not None}
        return read_history(await self._life.conversation.ask(self._life.session.read("history", data, self._now)))

    async def presence(self, room: str) -> list[Member]:
        """Who is in a room, cluster-wide. Raises `PermissionDenied`, `RequestTimeout`, `ConnectionError`. Cancelling is safe."""
        self._check_room(room)
        return read_presence(await self._life.conversation.ask(self._life.session.read("presence", {"roomId": room}, self._now)))

    def position(self, room: str) -> Position | None:
        """Up to where the application is done with a room: callbacks have returned, iterators have asked for the next one.

        For `recover`.
        """
        joined = self._life.session.rooms.get(room)
        if joined is None:
            return None
        places = [joined.handled, *(iterator.position for iterator in self._dispatcher.iterators(room))]
        known = [place for place in places if place is not None]
        # After a new epoch, whoever is still in the old one is the slowest.
        return min(known, key=lambda place: (place.epoch == joined.epoch, place.offset), default=None)

    def events(self, room: str, *, size: int = 1000) -> RoomEvents:
        """The events of a room from now on, as an async iterator (see `RoomEvents`).

        At most `size` wait in it. It does not join the room.
        """
        joined = self._life.session.rooms.get(room)

        def read_after(position: Position) -> Any:
            return self.history(room, after=position)

        iterator = RoomEvents(room, position=joined.handled if joined else None, size=size, read_after=read_after)
        self._dispatcher.follow(iterator)
        return iterator

    # Messages.

    @overload
    async def send_message(self, event: str, data: Any = None, *, room: str, id: str | None = None, timeout: float | None = None) -> Receipt: ...
    @overload
    async def send_message(self, event: str, data: Any = None, *, room: None = None, id: str | None = None, timeout: float | None = None) -> Any: ...
    async def send_message(
        self, event: str, data: Any = None, *, room: str | None = None, id: str | None = None, timeout: float | None = None
    ) -> Any:
        """Publish to a room and return the `Receipt`; without `room`, return the value of the server's handler, or, where there is none,
        the
        `Receipt` of the publish to the only room.

        `id` makes a repetition within five minutes harmless; without one it is made up. While offline it waits. A publish is repeated
        after a loss
        until it is acknowledged; a message without `room` is not, and ends with `ConnectionError`: outcome unknown.
        `timeout`: seconds for all of it, waiting included; None: `request_timeout` from each sending on.

        Raises `RequestTimeout` (outcome unknown), `Overloaded` (too many wait), `MessageTooLarge`, `ValidationError`, `PermissionDenied`,
        `RateLimitExceeded`, `IdempotencyConflict`, `RoomRequired`, `UnknownEvent`, `ConnectionError`. Cancelling takes back what was not
        sent yet.
        """
        self._check_event(event)
        packed, id = self._wire.pack(data), id or uuid4().hex
        if room is not None:
            self._check_room(room)
            return read_receipt(await self._life.conversation.ask(self._life.session.publish(event, packed, room, id, self._now, timeout)), room)
        self._life.check_started()
        answer = await self._life.conversation.ask(self._life.session.request(event, packed, id, self._now, timeout))
        joined = self._life.session.joined
        return read_receipt(answer, joined[0] if len(joined) == 1 else None) if is_receipt(answer) else answer

    def emit(self, event: str, data: Any = None, *, room: str | None = None) -> None:
        """Send without an acknowledgement and at most once. A refusal goes to `error` callbacks.

        Raises `ConnectionError` while there is no connection, `Overloaded`, `ValidationError`.
        """
        self._check_event(event)
        if room is not None:
            self._check_room(room)
        self._life.session.emit(event, self._wire.pack(data), room)
        self._life.conversation.pump()

    async def authenticate(self, token: str) -> None:
        """Present a token on the live connection, and use it from now on if no function gives them.

        Raises `AuthenticationError`, `ConnectionError`, `RequestTimeout`. Cancelling leaves open whether it was taken.
        """
        if not is_token(token):
            raise AuthenticationError("This is no usable token.")
        self._life.check_started()
        await self._life.conversation.ask(self._life.session.authenticate(token, self._now))
        self._tokens.replace(token)

    # Inside.

    @property
    def _now(self) -> float:
        return self._clock.monotonic()

    def _check_room(self, room: str) -> None:
        self._life.check_started()
        if not is_own_stream(room):
            check_name("room", room)

    def _check_event(self, event: str) -> None:
        check_name("event", event)
        if event in RESERVED:
            raise ProtocolError(f"{event!r} has a meaning of its own in the protocol: choose another name.")
