"""Plays a conversation of `conversations.json` against a server in memory, in JSON or MessagePack; see `spec/vectors/README.md`."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from msgspec import Struct

from aibos_realtime import ConnectionClosed, RealtimeServer
from aibos_realtime.client.wire import make_wire
from aibos_realtime.errors import RealtimeError, from_wire
from aibos_realtime.protocol.client_session import ClientSession
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server
from tests.vectors.files import Vector

SECRET = "the vectors are signed with this key of these tests alone"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TOKEN = re.compile(r"\$token\(([^)]*)\)")
KINDS: dict[str, Any] = {
    "$any": lambda value: True,
    "$string": lambda value: isinstance(value, str) and value != "",
    "$number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "$timestamp": lambda value: isinstance(value, str) and TIMESTAMP.fullmatch(value) is not None,
}


class Invoice(Struct):
    amount: int


class Reader:
    """The decoder and the session of the Python client, fed with all that one connection hears: nothing of it may make them raise."""

    def __init__(self, codec: str) -> None:
        self._wire = make_wire("msgpack" if codec == "msgpack" else "json")
        self._session = ClientSession()
        self._is_connected = False

    def read(self, message: dict[str, Any]) -> None:
        payload = self._wire.encode(message)
        found = self._wire.decode(payload.decode() if self._wire.is_text else payload)
        assert (found.event, found.data, found.room, found.ref) == tuple(message.get(name) for name in ("event", "data", "room", "ref"))
        if found.event == "connected":
            self._session.connect(found.data, 0.0)
        else:
            self._session.receive(found, len(payload), 0.0)
        if found.event in ("error", "permission_denied"):
            error = from_wire(found.data)
            assert type(error) is not RealtimeError or found.data["code"] in ("internal", "timeout", "unavailable"), found.data
            assert (error.code, error.retryable) == (found.data["code"], found.data["retryable"])
        self._session.notices()


class Theatre:
    """One conversation: its server, its clients by name, what the placeholders stand for."""

    def __init__(self, net: MemoryServer, clock: ManualClock, codec: str, go: asyncio.Event) -> None:
        self.net = net
        self.clock = clock
        self.codec = codec
        self.go = go
        self.clients: dict[str, MemoryClient] = {}
        self.readers: dict[str, Reader] = {}
        self.bound: dict[str, Any] = {}
        self.calls: list[asyncio.Task[Any]] = []

    async def play(self, step: Vector) -> None:
        who = step["who"]
        if who == "server":
            await self._act(step)
        elif "connects" in step:
            await self._connect(who, step["connects"])
        elif "says" in step:
            self.clients[who].end.send(self._encode(self._fill(step["says"])))
        elif "saysBytes" in step:
            data = bytes.fromhex(step["saysBytes"])
            self.clients[who].end.send(data if self.codec == "msgpack" else data.decode("latin-1"))
        elif "saysOtherKind" in step:
            self.clients[who].end.send("{}" if self.codec == "msgpack" else b"\x80")
        elif "hears" in step:
            await self._hear(who, step["hears"])
        elif "closed" in step:
            assert await self.clients[who].closed() == step["closed"]
            assert await self.clients[who].take_all() == []
        elif "leaves" in step:
            self.clients[who].close(step["leaves"])
            await settle()
        else:
            raise AssertionError(f"an unknown step: {step}")

    async def end(self) -> None:
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)

    async def _connect(self, who: str, how: Vector) -> None:
        user = how["as"] or {"id": None, "role": "user", "tenantId": None}
        client = await self.net.connect(
            user["id"],
            role=user["role"],
            tenant_id=user["tenantId"],
            expires_in=how.get("expiresIn", 3600.0),
            codec=self.codec,
            wait=False,
        )
        self.clients[who], self.readers[who] = client, Reader(self.codec)
        if "hears" not in how:
            await self._hear(who, {"event": "connected", "$more": True})
        elif how["hears"] is not None:
            await self._hear(who, how["hears"])

    async def _hear(self, who: str, expected: Any) -> None:
        """One message; several in any order; none."""
        client = self.clients[who]
        if expected == []:
            assert await client.take_all() == []
            return
        waiting = [expected] if isinstance(expected, dict) else list(expected)
        while waiting:
            message = await client.receive()
            self.readers[who].read(message)
            fitting = [one for one in waiting if self._fits(one, message, dict(self.bound))]
            assert fitting, f"{who} heard {message}, expected {waiting}"
            self._fits(fitting[0], message, self.bound)
            waiting.remove(fitting[0])

    def _fits(self, expected: Any, value: Any, bound: dict[str, Any]) -> bool:
        if isinstance(expected, str) and expected.startswith("$"):
            return bool(KINDS[expected](value)) if expected in KINDS else bool(bound.setdefault(expected, value) == value)
        if isinstance(expected, dict):
            if not isinstance(value, dict):
                return False
            names = expected.keys() - {"$more"}
            is_same_set = names <= value.keys() if "$more" in expected else names == value.keys()
            return is_same_set and all(self._fits(expected[name], value[name], bound) for name in names)
        if isinstance(expected, list):
            return isinstance(value, list) and len(value) == len(expected) and all(map(self._fits, expected, value, [bound] * len(value)))
        return bool(expected == value) and isinstance(expected, bool) == isinstance(value, bool)

    def _fill(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._fill(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self._fill(part) for part in value]
        if isinstance(value, str) and (token := TOKEN.fullmatch(value)):
            given = dict(zip(("user_id", "role", "tenant_id"), (part.strip() for part in token[1].split(",")), strict=False))
            return self.net.server.auth.issue(**{"role": "user", "tenant_id": "1"} | given)
        return self.bound.get(value, value) if isinstance(value, str) else value

    def _encode(self, message: Any) -> str | bytes:
        return msgspec.msgpack.encode(message) if self.codec == "msgpack" else msgspec.json.encode(message).decode()

    async def _act(self, step: Vector) -> None:
        server, does = self.net.server, step["does"]
        if does == "broadcast":
            await server.broadcaster.broadcast_to_room(step["room"], step["event"], step["data"], volatile=step.get("volatile", False))
        elif does == "broadcastToUser":
            await server.broadcaster.broadcast_to_user(step["user"], step["event"], step["data"])
        elif does == "broadcastToAll":
            await server.broadcaster.broadcast_to_all(step["event"], step["data"])
        elif does == "call":
            [socket] = server.pool.get_user_connections(step["user"])
            self.calls.append(asyncio.ensure_future(socket.call(step["event"], step["data"])))
        elif does == "answered":
            async with asyncio.timeout(5):
                assert await self.calls.pop(0) == step["data"]
        elif does == "letGo":
            self.go.set()
        elif does == "advance":
            await self.clock.advance(step["seconds"])
        elif does == "revoke":
            await server.auth.revoke(user_id=step["user"])
        elif does == "disconnect":
            await server.disconnect(user_id=step["user"])
        elif does == "kick":
            await server.rooms.kick(step["room"], step["user"])
        elif does == "setRole":
            await server.set_role(step["user"], step["role"])
        elif does == "stop":
            await server.stop(drain=0)
        else:
            raise AssertionError(f"an unknown act: {step}")


def make_server(options: dict[str, Any], clock: ManualClock, go: asyncio.Event) -> RealtimeServer:
    """The server of the conversations, with the handlers that the README lists."""
    defaults: dict[str, Any] = {
        "authentication": {"jwt_secret": SECRET},
        "heartbeat": {"interval": 30, "timeout": 60},
        "persistence": {"database": {"url": "memory://"}},
    }
    server = RealtimeServer(**defaults | options, clock=clock)

    @server.event("echo")
    async def echo(socket: Any, data: Any) -> Any:
        return data

    @server.event("fail")
    async def fail(socket: Any, data: Any) -> None:
        raise ZeroDivisionError

    @server.event("slow")
    async def slow(socket: Any, data: Any) -> Any:
        await go.wait()
        return data

    @server.event("ask.back")
    async def ask_back(socket: Any, data: Any) -> Any:
        return 2 * await socket.call("which")

    @server.event("invoice.create", payload=Invoice)
    async def create(socket: Any, invoice: Invoice) -> Any:
        return {"amount": invoice.amount}

    return server


async def perform(conversation: Vector, codec: str) -> None:
    """Play every step, and read to the end: what comes unexpected fails."""
    clock, go = ManualClock(), asyncio.Event()
    async with memory_server(make_server(conversation.get("server", {}), clock, go)) as net:
        theatre = Theatre(net, clock, codec, go)
        try:
            for number, step in enumerate(conversation["steps"]):
                try:
                    await theatre.play(step)
                except (AssertionError, ConnectionClosed, TimeoutError, KeyError) as error:
                    raise AssertionError(f"step {number}, {step}: {type(error).__name__} {error}") from error
            for name, client in theatre.clients.items():
                assert await client.take_all() == [], f"{name} heard more than the conversation says"
        finally:
            await theatre.end()
