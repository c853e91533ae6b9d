"""The life of every socket of a server: welcome, deadlines, pings, expiry, and the end. It is the sockets' `Host`.

One timer serves all of them: four times a second it looks at a quarter of the sockets, so each is seen once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from inspect import signature
from typing import Any, Protocol

from ..audit import Audit
from ..clock import Clock, Timer
from ..errors import AuthenticationError, BackendError, ConnectionLimitExceeded
from ..hub.callbacks import Callbacks
from ..hub.connections import ConnectionPool
from ..hub.outbox import OutboxLimits
from ..hub.rooms import RoomManager
from ..hub.socket import Socket
from ..logs import get_logger
from ..metrics import Metrics
from ..pipeline.eager import start
from ..pipeline.fanout import Fanout
from ..pipeline.handlers import BuiltIns
from ..pipeline.inbound import Inbound
from ..pipeline.throttle import LimitOptions
from ..protocol.close_codes import CloseCode, default_reason
from ..protocol.codec import Answer, Encoding, JsonCodec, MsgpackCodec
from ..protocol.messages import SUBPROTOCOL_MSGPACK, VERSION
from ..transport.base import Peer, Transport
from ..transport.turns import running_turns
from .handshake import Arrival, Handshake

logger = get_logger("aibos_realtime")


class OpenTransport(Transport, Protocol):
    """A transport that waits for whom to tell."""

    def attach(self, peer: Peer) -> None: ...


TICK = 0.25
SLICES = 4
PAUSE = 0.5
"""Seconds: when a look comes so much too late, this node itself stood still, and what peers sent meanwhile is not read yet."""
GRACE = 2.0
"""Seconds after such a pause within which nobody is closed for what he may have sent, or taken, long ago."""
AFTER_CUT = 1.0
"""Seconds within which what was cut is seen off."""


class Sockets:
    """See the module."""

    def __init__(
        self,
        *,
        node: str,
        pool: ConnectionPool,
        rooms: RoomManager,
        fanout: Fanout,
        inbound: Inbound,
        built_ins: BuiltIns,
        callbacks: Callbacks,
        limits: LimitOptions,
        deflate_threshold: int,
        metrics: Metrics,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self.outbox_limits = OutboxLimits(limits.outbox_soft_bytes, limits.outbox_bytes, limits.outbox_seconds)
        self.coarse_now = clock.monotonic()
        self.receive = inbound.receive
        self.flush = fanout.flush
        self.handshake: Handshake | None = None
        """Where connections are counted by address; None for sockets that come by no handshake of ours."""
        self._node = node
        self._pool = pool
        self._rooms = rooms
        self._fanout = fanout
        self._inbound = inbound
        self._built_ins = built_ins
        self._callbacks = callbacks
        self._limits = limits
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._codecs = (JsonCodec(), MsgpackCodec())
        self._deflate_threshold = deflate_threshold
        self._encodings: dict[tuple[bool, int | None], Encoding] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: Timer | None = None
        self._round: list[Socket] = []
        self._slice = 0
        self._seen_behind = self._seen_bytes = 0
        self._due = self._judges_from = 0.0
        """When the next look is due; and from when on there is no grace any more."""
        self._emptied = asyncio.Event()

    # — beginning —

    def encoding(self, subprotocol: str, window_bits: int | None) -> Encoding:
        """The one encoding for this subprotocol and this compression."""
        key = (subprotocol == SUBPROTOCOL_MSGPACK, window_bits)
        found = self._encodings.get(key)
        if found is None:
            found = self._encodings[key] = Encoding(self._codecs[key[0]], window_bits, self._deflate_threshold)
        return found

    def welcome(self, arrival: Arrival, transport: OpenTransport, head: bytes = b"") -> Socket:
        """Make a socket of somebody who was let in, and let it begin. `head`: what goes before everything that it says, the 101."""
        encoding = self.encoding(arrival.subprotocol, arrival.deflate.window_bits if arrival.deflate else None)
        socket = Socket(self, transport, encoding, headers=arrival.headers, connected_at=self._clock.now())
        transport.attach(socket)
        self._metrics.handshakes_accepted += 1
        try:
            self._pool.add_connection(socket)
        except ConnectionLimitExceeded:
            # The last place went to somebody else between the decision and the 101.
            _write_head(transport, head)
            socket.disconnect(CloseCode.OVERLOADED, default_reason(CloseCode.OVERLOADED))
            return socket
        if self.handshake is not None:
            self.handshake.entered(arrival.address)
        bounds = [bound for bound in (self._limits.authentication_seconds, self._pool.options.connection_timeout) if bound is not None]
        if bounds:
            socket.deadline = self._clock.monotonic() + min(bounds)
        self._begin(socket, arrival, head)
        return socket

    def _begin(self, socket: Socket, arrival: Arrival, head: bytes) -> None:
        """Have the connection handlers run, then tell the client `connected`; what he sends meanwhile waits."""
        identity = arrival.identity
        if arrival.rejection is not None:
            _write_head(socket.transport, head)
            socket.disconnect(arrival.rejection, default_reason(arrival.rejection))
        elif identity is not None and self._built_ins.has_too_many(identity):
            _write_head(socket.transport, head)
            socket.disconnect(CloseCode.CONNECTION_LIMIT, "this user has as many connections as allowed")
        else:
            self._inbound.hold(socket)
            if identity is not None:
                self._built_ins.identify(socket, identity)
            if self._callbacks.has("connection"):
                _write_head(socket.transport, head)
                socket.hold_back()
                self._spawn(self._call_handlers(socket))
                return
            connected, rest = start(self._connected(socket))
            if rest is None:
                self._introduce(socket, head, connected)
            else:
                _write_head(socket.transport, head)
                socket.hold_back()
                self._spawn(self._introduce_later(socket, rest))

    async def _call_handlers(self, socket: Socket) -> None:
        seconds = self._pool.options.connection_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._callbacks.call("connection", socket)
        except Exception as error:
            if isinstance(error, TimeoutError):
                logger.error("the connection handlers took longer than connection_timeout (%s s); their socket was closed", seconds)
            else:
                logger.exception("a connection handler failed; its socket was closed")
            socket.disconnect(CloseCode.INTERNAL, default_reason(CloseCode.INTERNAL))
            return
        if not socket.closing:
            await self._introduce_later(socket, self._connected(socket))

    async def _introduce_later(self, socket: Socket, connected: Awaitable[bytes | None]) -> None:
        self._introduce(socket, b"", await connected)

    def _introduce(self, socket: Socket, head: bytes, connected: bytes | None) -> None:
        """Let the socket speak, and be heard. `connected`: None where it cannot be."""
        if connected is None:
            _write_head(socket.transport, head)
            socket.disconnect(CloseCode.OVERLOADED, default_reason(CloseCode.OVERLOADED))
            return
        socket.let_out(head + connected)
        socket.ready = True
        self._inbound.release(socket)

    async def _connected(self, socket: Socket) -> bytes | None:
        """The first message of a socket; None: what it would have to say cannot be known at the moment."""
        try:
            introduction = await self._built_ins.introduce(socket)  # the last that waits
        except BackendError:
            return None
        heartbeat = self._pool.options
        limits = self._limits
        data: dict[str, Any] = {
            "socketId": socket.id,
            "protocol": VERSION,
            "node": self._node,
            **introduction,
            "heartbeat": {"interval": heartbeat.heartbeat_interval, "timeout": heartbeat.heartbeat_timeout},
            "limits": {
                "messageBytes": limits.message_bytes,
                "rooms": limits.rooms_per_connection,
                "messagesPerSecond": limits.messages_per_second,
                "publishesPerSecond": limits.publishes_per_second,
            },
        }
        return socket.encoding.frame(Answer("connected", data=data))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # — hub.socket.Host —

    def unbind(self, socket: Socket) -> None:
        self._rooms.exit_all(socket)
        self._pool.unbind(socket)

    def bind(self, socket: Socket) -> None:
        user = socket.user
        if user is not None and not self._pool.is_bound(socket):
            self._metrics.authentications += 1
            self._audit.note(
                "authenticate" if socket.ready else "connect",
                socket_id=socket.id, user_id=user.id, tenant_id=user.tenant_id, address=socket.remote_address,
            )  # fmt: skip
        self._pool.bind(socket)
        self._rooms.renew(socket)
        if socket.authenticated:
            socket.deadline = None

    def too_slow(self, socket: Socket) -> None:
        self._metrics.slow_closes += 1
        logger.warning("socket %s was closed: it does not read, and %d bytes waited for it", socket.id, socket.transport.buffered())

    async def join(self, socket: Socket, room_id: str, check: bool) -> None:
        recheck = partial(self._built_ins.check_join, socket, room_id) if check else None
        if recheck is not None:
            await recheck()
        elif socket.user is None:
            raise AuthenticationError("Authenticate first.")
        await self._rooms.bring_in(socket, room_id, recheck)

    async def leave(self, socket: Socket, room_id: str) -> None:
        self._rooms.exit(socket, room_id)

    def lost(self, socket: Socket, code: int, reason: str) -> None:
        """One after another: where a thousand end at once, nobody else waits for them all."""
        running_turns().take(partial(self._let_go, socket, code, reason))

    def _let_go(self, socket: Socket, code: int, reason: str) -> None:
        self._rooms.exit_all(socket)
        if self._pool.remove_connection(socket.id, code=code) is None:
            return
        if self.handshake is not None:
            self.handshake.left(socket.remote_address)
        self._note_end(socket, code)
        own = socket.handlers.get("disconnect")
        said = reason or default_reason(code) or str(code)
        if own is not None:
            gone = Callbacks("socket", ("disconnect",))
            gone.add("disconnect", own)
            gone.notify("disconnect", *([said] if signature(own).parameters else []))
        self._callbacks.notify("disconnect", socket, said)
        if not len(self._pool):
            self._emptied.set()

    def _note_end(self, socket: Socket, code: int) -> None:
        user, address = socket.user, socket.remote_address
        if user is None:
            self._audit.note_stranger("disconnect", code=code, address=address, socket_id=socket.id)
        else:
            self._audit.note("disconnect", socket_id=socket.id, user_id=user.id, tenant_id=user.tenant_id, address=address, code=code)

    # — every second —

    def start(self) -> None:
        if self._ticking is None:
            self._inbound.dispatcher.start()
            self._due = self._clock.monotonic()
            self._tick()

    def _tick(self) -> None:
        now = self.coarse_now = self._inbound.coarse_now = self._clock.monotonic()
        if self._slice == 0:
            self._round = list(self._pool)
            self._metrics.connections_behind, self._metrics.outbox_bytes = self._seen_behind, self._seen_bytes
            self._seen_behind = self._seen_bytes = 0
        if now >= self._due + PAUSE:
            self._judges_from = now + GRACE
            self._inbound.stood_still(now - self._due, now)
        self._due = now + TICK
        self._ticking = self._clock.call_later(TICK, self._tick)
        for socket in self._round[self._slice :: SLICES]:
            try:
                if not socket.closing:
                    self._look_at(socket, now)
            except Exception:
                logger.exception("looking after socket %s failed; it was cut", socket.id)
                socket.transport.abort()
        self._slice = (self._slice + 1) % SLICES

    def _look_at(self, socket: Socket, now: float) -> None:
        may_judge = now >= self._judges_from
        if waiting := socket.check_outbox(now, may_judge):
            self._seen_behind += 1
            self._seen_bytes += waiting
        if may_judge and socket.deadline is not None and now >= socket.deadline:
            socket.disconnect(CloseCode.NOT_AUTHENTICATED, default_reason(CloseCode.NOT_AUTHENTICATED))
            return
        if socket.expiry_notice_at is not None and now >= socket.expiry_notice_at:
            socket.expiry_notice_at = None
            socket.write(socket.encoding.frame(Answer("token-expiring", data={"expiresAt": socket.expires_at})))
        if socket.expiry_close_at is not None and now >= socket.expiry_close_at:
            socket.disconnect(CloseCode.TOKEN_EXPIRED, default_reason(CloseCode.TOKEN_EXPIRED))
            return
        if socket.transport.shows_life:
            self._check_life(socket, now, may_judge)

    def _check_life(self, socket: Socket, now: float, may_judge: bool) -> None:
        """Ping who is silent; close who is silent although he was pinged, and had the time to answer that."""
        interval, timeout = self._pool.options.heartbeat_interval, self._pool.options.heartbeat_timeout
        silence = now - socket.heard_at
        if interval is not None and silence >= interval and socket.pinged_at <= socket.heard_at:
            socket.ping()
        elif timeout is not None and silence >= timeout and may_judge:
            if interval is None or now - socket.pinged_at > timeout - interval - SLICES * TICK:
                socket.disconnect(CloseCode.NO_SIGN_OF_LIFE, default_reason(CloseCode.NO_SIGN_OF_LIFE))

    # — ending —

    async def drain(self, seconds: float, spread: float) -> None:
        """Tell everybody to come back after a delay of his own, let running handlers end, then close all (4001)."""
        sockets = self._announce(CloseCode.SHUTTING_DOWN, spread)
        publishes = [receipt for socket in sockets for _, receipt in socket.publishes or ()]
        running = [*self._inbound.dispatcher.tasks, *self._tasks, *publishes]
        try:
            if running:
                await asyncio.wait(running, timeout=seconds)
        finally:
            self._fanout.flush()
            for socket in list(self._pool):
                socket.disconnect(CloseCode.SHUTTING_DOWN, default_reason(CloseCode.SHUTTING_DOWN))

    def move(self, spread: float) -> int:
        """Tell everybody to come back elsewhere after a delay of his own, and close (4011); returns how many."""
        sockets = self._announce(CloseCode.MOVE, spread)
        for socket in sockets:
            socket.disconnect(CloseCode.MOVE, default_reason(CloseCode.MOVE))
        return len(sockets)

    def _announce(self, code: CloseCode, spread: float) -> list[Socket]:
        sockets = list(self._pool)
        data = {"delayMin": 0.0, "delayMax": round(spread, 3), "reason": default_reason(code)}
        for socket in sockets:
            if socket.ready:
                socket.write(socket.encoding.frame(Answer("reconnect", data=data)))
        return sockets

    async def stop(self, seconds: float) -> None:
        """Wait for the last connection's end, at most so long; then cut what is left, and cancel what still runs."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        try:
            await self._wait_until_empty(seconds)
        finally:
            await self._cut()

    async def _wait_until_empty(self, seconds: float) -> None:
        self._emptied.clear()
        if len(self._pool):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()

    async def _cut(self) -> None:
        for socket in list(self._pool):
            socket.transport.abort()
        await self._wait_until_empty(AFTER_CUT)
        await self._inbound.dispatcher.stop()
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._callbacks.stop()


def _write_head(transport: Transport, head: bytes) -> None:
    """The 101 by itself, if it is not out yet: what else there is to say comes later."""
    if head:
        transport.write(head)
