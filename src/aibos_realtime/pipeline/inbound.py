"""The road of a message from a client: decode → throttle → route → handler → answer, and the one place where an error becomes an `error` frame.

Requests of one connection are handled in order and do not overlap: while one is being handled, the next ones wait in `socket.backlog`. Publishes
are pipelined: one may follow another that has no receipt yet (`socket.publishes`), and their answers keep the order. Answers to the server's own
calls and `ping` pass by.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any

from msgspec import UNSET

from ..backends.base import Receipt
from ..clock import Clock
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    RateLimitExceeded,
    RealtimeError,
    RoomRequired,
    UnknownEvent,
)
from ..hub.socket import Socket
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.close_codes import CloseCode
from ..protocol.codec import Answer
from ..protocol.frames import PING, PONG
from ..protocol.messages import RESERVED, ClientMessage, Ref
from .dispatcher import Dispatcher
from .eager import start, waiting_for
from .handlers import BuiltIns, acknowledgement
from .routing import Route, Router
from .throttle import Bucket, LimitOptions, Pace

logger = get_logger("aibos_realtime")

Handler = Callable[..., Any]

BUSY: tuple[ClientMessage, ...] = ()
"""The backlog of a socket whose request is being handled, and behind which nothing waits."""

_BYPASSING = frozenset({"ping", "ack"})

STALE = 0.75
"""Seconds that the coarse time is never old, unless this node stood still."""
GRACE = 2.0
"""Seconds after a standstill within which all that came meanwhile has been read."""
SERVICE = "service"
"""Users of this role publish without a rate limit."""


class Inbound:
    """Takes every message of every socket of one server."""

    def __init__(self, *, router: Router, built_ins: BuiltIns, limits: LimitOptions, metrics: Metrics, clock: Clock, is_immediate: bool) -> None:
        self._routes = router.routes
        self._built_ins = built_ins
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._is_immediate = is_immediate
        self.coarse_now = 0.0
        self._standstills = 0
        self._stood_still = self._excused_until = 0.0
        self.dispatcher: Dispatcher[tuple[Socket, ClientMessage]] = Dispatcher(self._finished)
        self._built_in = {
            "authenticate": built_ins.authenticate,
            "join-room": built_ins.join_room,
            "leave-room": built_ins.leave_room,
            "history": built_ins.history,
            "presence": built_ins.presence,
        }

    def receive(self, socket: Socket, opcode: int, payload: bytes) -> None:
        """One message. Nothing is raised: what is wrong with it is told to its sender, and costs nobody else."""
        codec = socket.encoding.codec
        if opcode != codec.opcode:
            self._receive_other(socket, opcode)
            return
        metrics = self._metrics
        metrics.messages_in += 1
        metrics.bytes_in += len(payload)
        pace = socket.pace
        if pace is None:
            pace = socket.pace = Pace(self._limits, self.coarse_now)
        try:
            message = codec.decode(payload)
        except ProtocolError as error:
            self._refuse(socket, codec.ref_of(payload), error)
            if pace.bad.is_out(self.coarse_now):
                socket.disconnect(CloseCode.TOO_MANY_ERRORS, "too many errors")
            return
        if pace.messages is not None and pace.messages.spend(self.coarse_now) and (wait := self._spend(pace, pace.messages)):
            self._fail(socket, message, RateLimitExceeded(retry_after=wait))
            return
        try:
            if message.event in _BYPASSING:
                self._bypass(socket, message)
            elif socket.backlog is None and (socket.publishes is None or self._may_follow(socket, message)):
                self._handle(socket, message)
            else:
                self._queue(socket, message)
        except Exception as error:
            self._fail_in_turn(socket, message, error)

    def hold(self, socket: Socket) -> None:
        """Have the messages of a socket wait, until `release`."""
        socket.backlog = BUSY

    def release(self, socket: Socket) -> None:
        """Handle what has waited, in order."""
        backlog, socket.backlog = socket.backlog, None
        if backlog is None or backlog is BUSY:
            return
        waiting = deque(backlog)  # empty where the last that waited has just been handled: reading may have stopped for those before it
        while waiting and not socket.closing:
            if socket.publishes is not None and not self._may_follow(socket, waiting[0]):
                socket.backlog = waiting
                return
            message = waiting.popleft()
            try:
                self._handle(socket, message)
            except Exception as error:
                self._fail_in_turn(socket, message, error)
            if socket.is_busy:
                socket.backlog = waiting
                return
        if not socket.closing and not socket.is_behind():
            socket.transport.resume_reading()

    # — one request —

    def _receive_other(self, socket: Socket, opcode: int) -> None:
        """A control frame, which the transport has dealt with already; or data of the kind that this codec has no use for."""
        if opcode != PING and opcode != PONG:
            socket.disconnect(CloseCode.BAD_REQUEST, "text frames for JSON, binary frames for MessagePack")
            return
        if socket.pace is None:
            socket.pace = Pace(self._limits, self.coarse_now)
        control = socket.pace.control
        if control is not None and control.spend(self.coarse_now):
            socket.disconnect(CloseCode.TOO_MANY_REQUESTS, "too many control frames")

    def _bypass(self, socket: Socket, message: ClientMessage) -> None:
        """What is answered out of turn, so that a handler may wait for it."""
        if message.event == "ping":
            self._answer(socket, message, Answer("pong"))
        else:
            socket.answered(message.ref, socket.encoding.codec.value(message.data))

    def _handle(self, socket: Socket, message: ClientMessage) -> None:
        """Find who takes the message, and let him begin."""
        event = message.event
        route = self._routes.get(event)
        own = socket.handlers.get(event) if socket.handlers else None
        if route is None and event in RESERVED:  # none of those has a route
            self._handle_built_in(socket, message, own)
        elif not socket.authenticated:
            raise AuthenticationError("Authenticate first.")
        elif message.room is not None:
            self._publish(socket, message, route)
        elif own is not None:
            self._settle(socket, message, own(socket.encoding.codec.value(message.data)))
        elif route is not None:
            value = socket.encoding.codec.value(message.data)
            self._settle(socket, message, route.handler(socket, value if route.convert is None else route.convert(value)))
        else:
            self._publish(socket, _into_only_room(socket, message), None)

    def _handle_built_in(self, socket: Socket, message: ClientMessage, own: Handler | None) -> None:
        built_in = self._built_in.get(message.event)
        if built_in is None:
            raise ProtocolError(f"{message.event!r} is not a message that a client sends.")
        if own is not None:
            self._dispatch(socket, message, self._built_ins.override(socket, message, own))
        elif message.event == "authenticate":
            self._dispatch(socket, message, built_in(socket, message))
        else:
            self._start(socket, message, built_in(socket, message))

    def _settle(self, socket: Socket, message: ClientMessage, result: Any) -> None:
        """What a handler returned: its answer, or what gives the answer once it has been awaited."""
        if type(result) is CoroutineType:
            socket.backlog = BUSY
            self.dispatcher.run(result, (socket, message))
        elif isawaitable(result):
            self._dispatch(socket, message, waiting_for(result))
        else:
            self._answer(socket, message, Answer("ack", data=result))

    def _publish(self, socket: Socket, message: ClientMessage, route: Route | None) -> None:
        publishes = socket.pace.publishes
        if publishes is not None and socket.user is not None and socket.user.role != SERVICE and publishes.spend(self.coarse_now):
            if wait := self._spend(socket.pace, publishes):
                raise RateLimitExceeded(retry_after=wait)
        if route is not None and route.convert is not None:
            route.convert(socket.encoding.codec.value(message.data))
        if not self._is_immediate:
            self._dispatch(socket, message, self._built_ins.publish_checked(socket, message))
            return
        receipt = self._built_ins.publish(socket, message)
        if socket.publishes is not None or not receipt.done():
            self._pipeline(socket, message, receipt)
            return
        answer = acknowledgement(receipt.result(), message.ref)
        if message.ref is not None:
            self._write(socket, answer)

    # — publishes on their way —

    def _may_follow(self, socket: Socket, message: ClientMessage) -> bool:
        """Whether a message may be handled while publishes before it wait for their receipts: another publish, as long as they are not too many."""
        event = message.event
        if event in RESERVED or not socket.authenticated:
            return False
        if message.room is None and (event in socket.handlers or event in self._routes):
            return False
        limit = self._limits.requests_waiting
        return limit is None or len(socket.publishes or ()) < limit

    def _pipeline(self, socket: Socket, message: ClientMessage, receipt: asyncio.Future[Receipt]) -> None:
        if socket.publishes is None:
            socket.publishes = deque()
        socket.publishes.append((message, receipt))
        receipt.add_done_callback(partial(self._acknowledge, socket))

    def _acknowledge(self, socket: Socket, _: asyncio.Future[Receipt]) -> None:
        """Answer the publishes whose turn has come; then what has waited for them may begin."""
        pending = socket.publishes
        if pending is None:
            return
        answers: list[Answer] = []
        while pending and pending[0][1].done():
            message, receipt = pending.popleft()
            try:
                answer = acknowledgement(receipt.result(), message.ref)
            except (Exception, asyncio.CancelledError) as error:
                self._write_all(socket, answers)
                answers.clear()
                self._fail(socket, message, error)
            else:
                if message.ref is not None:
                    answers.append(answer)
        self._write_all(socket, answers)
        if not pending:
            socket.publishes = None
        if socket.backlog is not None:  # what waits there waits for publishes alone: no handler runs while one is on its way
            self.release(socket)

    def _fail_in_turn(self, socket: Socket, message: ClientMessage, error: Exception) -> None:
        if socket.publishes is None or message.event in _BYPASSING:
            self._fail(socket, message, error)
        else:
            refused: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            self._pipeline(socket, message, refused)

    # — handlers, and what is built in —

    def _start(self, socket: Socket, message: ClientMessage, coroutine: Coroutine[Any, Any, Answer]) -> None:
        """A built-in: on the spot where nothing in it waits for a network or runs the application's own code."""
        if not self._is_immediate:
            self._dispatch(socket, message, coroutine)
            return
        answer, rest = start(coroutine)
        if rest is None:
            self._answer(socket, message, answer)
        else:
            self._dispatch(socket, message, waiting_for(rest))

    def _dispatch(self, socket: Socket, message: ClientMessage, coroutine: Coroutine[Any, Any, Any]) -> None:
        socket.backlog = BUSY
        self.dispatcher.run(coroutine, (socket, message))

    def _finished(self, subject: tuple[Socket, ClientMessage], value: Any, error: BaseException | None) -> None:
        socket, message = subject
        if error is not None:
            self._fail(socket, message, error)
        else:
            try:
                if type(value) is Answer:
                    self._answer(socket, message, value)
                elif message.ref is not None:
                    self._write(socket, Answer("ack", message.ref, value))
            except Exception as failure:
                self._fail(socket, message, failure)
        if socket.backlog is BUSY:  # nothing has come meanwhile
            socket.backlog = None
        else:
            self.release(socket)

    # — what goes back —

    def _answer(self, socket: Socket, message: ClientMessage, answer: Answer) -> None:
        if message.ref is not None:
            if answer.event:
                self._write(socket, Answer(answer.event, message.ref, answer.data))
        elif answer.event in _CONTENT:
            self._write(socket, answer)

    def _queue(self, socket: Socket, message: ClientMessage) -> None:
        backlog = socket.backlog
        if not isinstance(backlog, deque):
            backlog = socket.backlog = deque()
        backlog.append(message)
        limit = self._limits.requests_waiting
        if limit is not None and len(backlog) >= limit:
            socket.transport.pause_reading()

    def _spend(self, pace: Pace, bucket: Bucket) -> float:
        """By the coarse time the bucket is empty: ask again by the exact one. Returns the seconds until there is something in it, 0: there was."""
        now = self._clock.monotonic()
        if now - self.coarse_now >= STALE:  # this node stood still, and has not noticed it yet
            self.stood_still(now - self.coarse_now, now)
        wait = bucket.spend(now)
        if wait and now < self._excused_until and pace.excused != self._standstills:
            pace.excuse(self._standstills, self._stood_still)
            wait = bucket.spend(now)
        return wait

    def stood_still(self, seconds: float, now: float) -> None:
        """This node itself did nothing for so long: what its peers sent meanwhile comes all at once, and is not too much for that."""
        self._standstills += 1
        self._stood_still = seconds
        self._excused_until = now + GRACE

    def _fail(self, socket: Socket, message: ClientMessage, error: BaseException) -> None:
        """What went wrong, told to the sender as far as it is his: the rest is for the log, under one number."""
        if isinstance(error, asyncio.CancelledError) and self.dispatcher.is_stopping:
            error = Overloaded("The server stopped before this was done; whether it was is unknown.", code="unavailable")
        ref = message.ref if message.event != "ack" else None  # that of an ack is the server's own, and not of a request
        if isinstance(error, RealtimeError) and not isinstance(error, ConfigurationError):
            try:
                self._refuse(socket, ref, error)
                return
            except Exception as failure:  # its details are nothing that can be sent
                error = failure
        incident = secrets.token_hex(6)
        self._metrics.handler_failures += 1
        logger.error("the handler of %r failed (%s)", message.event, incident, exc_info=error)
        text = f"The server failed to handle this (incident {incident})."
        self._refuse(socket, ref, RealtimeError(text, retryable=True, details={"id": incident}))

    def _refuse(self, socket: Socket, ref: Ref | None, error: RealtimeError) -> None:
        """The `error` frame; a missing permission has a name of its own. Who is refused too often is closed."""
        body = {"code": error.code, "message": error.message, "retryable": error.retryable, **error.details}
        name = "permission_denied" if isinstance(error, PermissionDenied) else "error"
        self._write(socket, Answer(name, UNSET if ref is None else ref, body))
        if isinstance(error, RateLimitExceeded):
            self._metrics.rate_limited += 1
            if socket.pace.refused.is_out(self.coarse_now):
                socket.disconnect(CloseCode.TOO_MANY_REQUESTS, "too many requests")

    def _write(self, socket: Socket, answer: Answer) -> None:
        data = socket.encoding.frame(answer)
        metrics = self._metrics
        metrics.messages_out += 1
        metrics.bytes_out += len(data)
        write = socket.write  # two steps: see `fanout`
        write(data)

    def _write_all(self, socket: Socket, answers: list[Answer]) -> None:
        """In one write."""
        if answers:
            data = b"".join([socket.encoding.frame(answer) for answer in answers])
            self._metrics.messages_out += len(answers)
            self._metrics.bytes_out += len(data)
            socket.write(data)


_CONTENT = frozenset({"authenticated", "history", "presence", "pong"})
"""Answers that say something, and so are sent also to a request without `ref`."""


def _into_only_room(socket: Socket, message: ClientMessage) -> ClientMessage:
    """An event without a room, from somebody who is in exactly one."""
    rooms = socket.memberships
    if not rooms:
        raise UnknownEvent()
    if len(rooms) > 1:
        raise RoomRequired()
    return ClientMessage(message.event, message.data, next(iter(rooms)), message.ref, message.id)
