"""The road of a message from a client: decode → throttle → route → handler → answer, and the one place where an error becomes an `error` frame.

Requests of one connection are handled in order and do not overlap: while one waits for something, the next ones wait in `socket.backlog`. Answers to
the server's own calls and `ping` pass by. Only a handler that has to wait costs a task.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Coroutine
from inspect import isawaitable
from typing import Any

from msgspec import UNSET

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    PermissionDenied,
    ProtocolError,
    RateLimitExceeded,
    RealtimeError,
    RoomRequired,
    UnknownEvent,
)
from ..hub.socket import Socket
from ..metrics import Metrics
from ..protocol.close_codes import CloseCode
from ..protocol.codec import Answer
from ..protocol.frames import PING, PONG
from ..protocol.messages import RESERVED, ClientMessage
from .eager import start
from .handlers import BuiltIns
from .routing import BUILT_IN, Route, Router
from .throttle import LimitOptions, Pace

logger = logging.getLogger("aibos_realtime")

SERVICE = "service"
"""Users of this role publish without a rate limit."""


class Inbound:
    """Takes every message of every socket of one server."""

    def __init__(self, *, router: Router, built_ins: BuiltIns, limits: LimitOptions, metrics: Metrics, is_immediate: bool) -> None:
        self._router = router
        self._built_ins = built_ins
        self._limits = limits
        self._metrics = metrics
        self._is_immediate = is_immediate
        self.coarse_now = 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self._built_in = {
            "authenticate": built_ins.authenticate,
            "join-room": built_ins.join_room,
            "leave-room": built_ins.leave_room,
            "history": built_ins.history,
            "presence": built_ins.presence,
        }

    def receive(self, socket: Socket, opcode: int, payload: bytes) -> None:
        """One message. Nothing is raised: what is wrong with it is told to its sender, and costs nobody else."""
        now = self.coarse_now
        pace = socket.pace
        if pace is None:
            pace = socket.pace = Pace(self._limits, now)
        if opcode == PING or opcode == PONG:
            if pace.control is not None and pace.control.spend(now):
                socket.disconnect(CloseCode.TOO_MANY_REQUESTS, "too many control frames")
            return
        metrics = self._metrics
        metrics.messages_in += 1
        metrics.bytes_in += len(payload)
        codec = socket.encoding.codec
        if opcode != codec.opcode:
            socket.disconnect(CloseCode.BAD_REQUEST, "text frames for JSON, binary frames for MessagePack")
            return
        try:
            message = codec.decode(payload)
        except ProtocolError as error:
            self._refuse(socket, None, error)
            if pace.bad.is_out(now):
                socket.disconnect(CloseCode.TOO_MANY_ERRORS, "too many errors")
            return
        try:
            pace.spend_message(now)
            if message.event == "ack":
                socket.answered(message.ref, codec.value(message.data))
                return
        except RealtimeError as error:
            self._refuse(socket, message if message.event != "ack" else None, error)
            return
        if message.event == "ping":
            self._answer(socket, message, Answer("pong"))
        elif socket.backlog is not None:
            self._queue(socket, socket.backlog, message)
        else:
            self._handle(socket, message)

    def hold(self, socket: Socket) -> None:
        """Have the messages of a socket wait, until `release`."""
        socket.backlog = deque()

    def release(self, socket: Socket) -> None:
        """Handle what has waited, in order."""
        backlog, socket.backlog = socket.backlog, None
        while backlog and not socket.closing:
            self._handle(socket, backlog.popleft())
            if socket.backlog is not None:
                socket.backlog.extend(backlog)
                return
        if not socket.closing and not socket.is_behind():
            socket.transport.resume_reading()

    # — one request —

    def _handle(self, socket: Socket, message: ClientMessage) -> None:
        try:
            rest = self._route(socket, message)
        except Exception as error:
            self._fail(socket, message, error)
            return
        if rest is not None:
            self.hold(socket)
            task = asyncio.get_running_loop().create_task(self._finish(socket, message, rest))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _route(self, socket: Socket, message: ClientMessage) -> Awaitable[Answer] | None:
        """Find who takes the message and let him begin; returns what has to be waited for, if anything."""
        event, room = message.event, message.room
        own = socket.handlers.get(event)
        if event in BUILT_IN:
            if own is not None:
                return self._built_ins.override(socket, message, own)
            return self._start(socket, message, self._built_in[event](socket, message))
        if event in RESERVED:
            raise ProtocolError(f"{event!r} is not a message that a client sends.")
        if not socket.authenticated:
            raise AuthenticationError("Authenticate first.")
        if room is None and own is not None:
            return self._call(socket, message, Route(event, own), ())
        route = self._router.get(event)
        if room is None and route is not None:
            return self._call(socket, message, route, (socket,))
        return self._publish(socket, message if room is not None else _into_only_room(socket, message), route)

    def _call(self, socket: Socket, message: ClientMessage, route: Route, first: tuple[Socket, ...]) -> Awaitable[Answer] | None:
        value = socket.encoding.codec.value(message.data)
        if route.convert is not None:
            value = route.convert(value)
        result = route.handler(*first, value)
        if isawaitable(result):
            return _acknowledge(result)
        self._answer(socket, message, Answer("ack", data=result))
        return None

    def _publish(self, socket: Socket, message: ClientMessage, route: Route | None) -> Awaitable[Answer] | None:
        if socket.user is not None and socket.user.role != SERVICE:
            socket.pace.spend_publish(self.coarse_now)
        if route is not None and route.convert is not None:
            route.convert(socket.encoding.codec.value(message.data))
        return self._start(socket, message, self._built_ins.publish(socket, message))

    def _start(self, socket: Socket, message: ClientMessage, coroutine: Coroutine[Any, Any, Answer]) -> Awaitable[Answer] | None:
        """A built-in: on the spot where nothing in it waits for a network or for the application's own code."""
        if not self._is_immediate or message.event == "authenticate":
            return coroutine
        answer, rest = start(coroutine)
        if rest is None:
            self._answer(socket, message, answer)
        return rest

    async def _finish(self, socket: Socket, message: ClientMessage, rest: Awaitable[Answer]) -> None:
        try:
            self._answer(socket, message, await rest)
        except Exception as error:
            self._fail(socket, message, error)
        self.release(socket)

    # — what goes back —

    def _answer(self, socket: Socket, message: ClientMessage, answer: Answer) -> None:
        if message.ref is not None:
            answer = Answer(answer.event, message.ref, answer.data)
        elif answer.event not in _CONTENT:
            return
        if answer.event:
            self._write(socket, answer)

    def _queue(self, socket: Socket, backlog: deque[ClientMessage], message: ClientMessage) -> None:
        backlog.append(message)
        limit = self._limits.requests_waiting
        if limit is not None and len(backlog) >= limit:
            socket.transport.pause_reading()

    def _fail(self, socket: Socket, message: ClientMessage, error: Exception) -> None:
        if isinstance(error, RealtimeError) and not isinstance(error, ConfigurationError):
            self._refuse(socket, message, error)
            return
        incident = secrets.token_hex(6)
        self._metrics.handler_failures += 1
        logger.error("the handler of %r failed (%s)", message.event, incident, exc_info=error)
        self._refuse(socket, message, RealtimeError(f"The server failed to handle this (incident {incident}).", retryable=True, details={"id": incident}))

    def _refuse(self, socket: Socket, message: ClientMessage | None, error: RealtimeError) -> None:
        """The `error` frame; a missing permission has a name of its own. Who is refused too often is closed."""
        body = {"code": error.code, "message": error.message, "retryable": error.retryable, **error.details}
        name = "permission_denied" if isinstance(error, PermissionDenied) else "error"
        ref = message.ref if message is not None else None
        self._write(socket, Answer(name, UNSET if ref is None else ref, body))
        if isinstance(error, RateLimitExceeded):
            self._metrics.rate_limited += 1
            if socket.pace.refused.is_out(self.coarse_now):
                socket.disconnect(CloseCode.TOO_MANY_REQUESTS, "too many requests")

    def _write(self, socket: Socket, answer: Answer) -> None:
        frame = socket.encoding.frame(answer)
        self._metrics.messages_out += 1
        self._metrics.bytes_out += len(frame)
        socket.write(frame)


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


async def _acknowledge(result: Awaitable[Any]) -> Answer:
    return Answer("ack", data=await result)
