"""The target of the Python client: what hostile servers say, over one connection after the other, and what its application hears of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from aibos_realtime import Position, RealtimeClient, RealtimeError
from aibos_realtime.client import link
from aibos_realtime.errors import ConnectionError, ProtocolError
from aibos_realtime.protocol.codec import JsonCodec, MsgpackCodec
from aibos_realtime.protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK
from aibos_realtime.testing.clock import ManualClock, ManualTimer, settle

from .oracle import Broken, check, run
from .source import NUMBERS, Source

ANSWERS = ("ack", "authenticated", "joined-room", "left-room", "history", "presence", "pong", "error", "permission_denied")
PUSHES = ("resync", "room-closed", "reconnect", "token-expiring", "error", "permission_denied", "joined-room", "connected", "ask", "", "note", "ack")
ERRORS = ("rate_limited", "validation_failed", "permission_denied", "overloaded", "not_in_room", "room_not_found", "internal", "bad_request", "x")
NAMES = ("lobby", "user:ann", "all", "other")
MEMBERS = ("roomId", "epoch", "offset", "recovered", "members", "code", "message", "retryAfter", "retryable", "details", "errors", "events", "count",
           "delayMin", "delayMax", "url", "reason", "success", "streams", "user", "limits", "expiresAt", "id", "duplicate", "protocol", "socketId",
           "resource", "action", "more", "userId", "since", "role")  # fmt: skip
MOST_TIMERS = 5000
CONNECTIONS = 4


class _Clock(ManualClock):
    """Notices who plans without end."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> ManualTimer:
        self.count += 1
        check(delay - delay == 0, f"a timer for {delay} s")
        check(self.count < MOST_TIMERS, "timers without end")
        return super().call_later(delay, callback, *args)


class _Transport:
    def abort(self) -> None: ...


class _Socket:
    """In place of a WebSocket of `websockets`: says what it is given, then ends, or is silent; what the client writes a server must understand."""

    def __init__(self, messages: list[str | bytes], code: int | None, is_binary: bool) -> None:
        self.subprotocol = SUBPROTOCOL_MSGPACK if is_binary else SUBPROTOCOL
        self.transport = _Transport()
        self._codec = MsgpackCodec() if is_binary else JsonCodec()
        self._messages = messages
        self._closing = asyncio.Event()
        self._code = code

    async def recv(self) -> str | bytes:
        await asyncio.sleep(0)
        if self._messages:
            return self._messages.pop(0)
        if self._code is None:
            await self._closing.wait()
        raise ConnectionClosedError(Close(self._code or 1000, "so long"), None)

    async def send(self, payload: bytes, text: bool) -> None:
        check(text is isinstance(self._codec, JsonCodec), "the wrong kind of frame")
        try:
            self._codec.value(self._codec.decode(payload).data)
        except ProtocolError as error:
            if b"ack" in payload[:20]:
                return  # an answer has the ref that the server gave
            raise Broken(f"the client sends {payload[:200]!r}: {error}") from error

    async def ping(self) -> Any:
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pong.set_result(None)
        return pong

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._closing.set()


def client(data: bytes) -> None:
    """Whatever servers say: every call ends, the application hears of every fault, and the client goes on unless it was told to stop."""
    run(_client(Source(data)))


async def _client(source: Source) -> None:
    clock = _Clock()
    is_binary = source.flag()
    connections = 0

    async def open_socket(*_: Any) -> _Socket:
        nonlocal connections
        connections += 1
        binary = is_binary and source.byte() % 4 != 0
        if connections >= CONNECTIONS or source.is_empty:
            return _Socket([_greeting(source, binary, True)], None, binary)
        said = [_greeting(source, binary, source.byte() % 8 != 0)] + [_message(source, binary) for _ in range(source.byte() % 24)]
        return _Socket(said, source.pick((1006, None, 1000, 1001, 1009, 4001, 4008, 4500, 4501, 3000, 4999)), binary)

    with _opening(open_socket):
        one = RealtimeClient("ws://localhost", token=_token, clock=clock, random=lambda: 0.5, codec="msgpack" if is_binary else "json")
        heard = _listen(one)
        calls = [asyncio.create_task(call) for call in _calls(one)]
        following = asyncio.create_task(_follow(one))
        for seconds in (0.0, 1.0, 12.0, 90.0):
            await clock.advance(seconds)
            await settle()
        failure = one._life._failure
        if failure is not None and "The client failed" in str(failure):
            leaf = leaf_of(failure)
            raise leaf if isinstance(leaf, Broken) else Broken("a mistake of ours ended the client") from leaf
        check(failure is None or failure in heard or not failure.retryable, "gave up, and said nothing")
        for call in calls:  # joins wait for a user, as they wait for a connection
            check(call.done() or one.state == "reconnecting" or one._life.session.user is None, f"never answered: {call.get_coro()}")
        await _end(one, [*calls, following], clock)


def leaf_of(error: BaseException) -> BaseException:
    """The first error behind an error."""
    while not isinstance(error, Broken) and (error.__cause__ is not None or isinstance(error, BaseExceptionGroup)):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    return error


async def _end(one: RealtimeClient, calls: list[asyncio.Task[Any]], clock: _Clock) -> None:
    closing = asyncio.create_task(one.close())
    await clock.advance(10.0)
    await asyncio.wait_for(closing, 5.0)
    for call in calls:
        await settle()
        check(call.done(), f"waits for ever: {call.get_coro()}")
        error = call.exception()
        check(error is None or isinstance(error, RealtimeError), f"raised {error!r}")
    others = asyncio.all_tasks() - {asyncio.current_task()}
    check(all("_client" not in repr(task.get_coro()) or task.done() for task in others), f"left {others}")


async def _token() -> str:
    return "a.b.c"


def _listen(one: RealtimeClient) -> list[object]:
    heard: list[object] = []
    one.on("error", heard.append)
    for name in ("note", "connect", "disconnect", "resync", "room-closed", "token-expiring", ""):
        one.on(name, lambda *arguments: None)
    one.on("ask", lambda data: data)
    return heard


def _calls(one: RealtimeClient) -> Iterator[Coroutine[Any, Any, Any]]:
    async def connect() -> None:
        with suppress(ConnectionError):
            await one.connect()

    async def after(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        await asyncio.sleep(0)
        await call()

    yield connect()
    yield after(lambda: one.join_room("lobby", presence=True))
    yield after(lambda: one.join_room("other", recover=Position("e1", 5)))
    yield after(lambda: one.send_message("note", {"a": 1}, room="lobby"))
    yield after(lambda: one.send_message("echo", 5))
    yield after(lambda: one.history("lobby"))
    yield after(lambda: one.presence("lobby"))
    yield after(lambda: one.leave_room("other"))


async def _follow(one: RealtimeClient) -> None:
    """Read a room by its iterator, which closes gaps by itself."""
    await asyncio.sleep(0)
    async for event in one.events("lobby", size=2):
        check(isinstance(event.room, str), "an event of no room")


@contextmanager
def _opening(open_socket: Callable[..., Any]) -> Iterator[None]:
    before, link.open_socket = link.open_socket, open_socket
    try:
        yield
    finally:
        link.open_socket = before


# — what servers say —


def _greeting(source: Source, is_binary: bool, is_good: bool) -> str | bytes:
    data: dict[str, Any] = {"protocol": 1, "socketId": "s", "user": {"id": "ann"}, "streams": {"user:ann": {"epoch": "e", "offset": 3}}, "limits": {}}
    if not is_good:
        return _message(source, is_binary)
    if source.byte() > 200:
        data[source.pick(MEMBERS)] = source.value()
    return msgspec.msgpack.encode({"event": "connected", "data": data}) if is_binary else _text({"event": '"connected"', "data": _json(data)})


def _message(source: Source, is_binary: bool) -> str | bytes:
    kind = source.byte() % 16
    if kind == 0:
        raw = source.take(source.byte() % 40)
        return raw if source.flag() else raw.decode(errors="replace")
    made = _values(source, kind) if is_binary else {}
    if is_binary:
        return msgspec.msgpack.encode(made)
    return _text(_texts(source, kind))


def _values(source: Source, kind: int) -> dict[str, Any]:
    if kind < 7:
        return {"event": "note", "room": source.pick(NAMES), "data": source.value(), "offset": _odd(source, source.byte()), "id": source.text()[:128]}
    data = {source.pick(MEMBERS): _member(source) for _ in range(source.byte() % 6)} | {"roomId": source.pick(NAMES), "epoch": "e", "offset": 3}
    data["code"] = source.pick(ERRORS)
    if kind < 12:
        return {"event": source.pick(ANSWERS), "ref": source.byte() % 12, "data": _odd(source, data)}
    return {"event": source.pick(PUSHES), "data": _odd(source, data)} | ({"ref": source.value(0)} if source.byte() > 200 else {})


def _odd(source: Source, value: Any) -> Any:
    return source.value() if source.byte() > 220 else value


def _member(source: Source) -> Any:
    return source.value(2)


def _texts(source: Source, kind: int) -> dict[str, str]:
    room = json.dumps(source.pick(NAMES))
    if kind < 7:
        offset = source.pick(NUMBERS) if source.byte() > 200 else str(source.byte())
        return {
            "event": '"note"',
            "room": room,
            "data": source.json(),
            "offset": offset,
            "id": json.dumps(source.text()),
            "timestamp": source.json(0),
        }
    members = {"roomId": room, "epoch": '"e"', "offset": "3", "code": json.dumps(source.pick(ERRORS))}
    members |= {source.pick(MEMBERS): source.pick(NUMBERS) if source.flag() else source.json(2) for _ in range(source.byte() % 6)}
    data = _text(members) if source.byte() < 230 else source.json()
    if kind < 12:
        return {"event": json.dumps(source.pick(ANSWERS)), "ref": str(source.byte() % 12), "data": data}
    return {"event": json.dumps(source.pick(PUSHES)), "data": data} | ({"ref": source.json(0)} if source.byte() > 200 else {})


def _text(members: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members.items()) + "}"


def _json(value: Any) -> str:
    return json.dumps(value, default=repr)
