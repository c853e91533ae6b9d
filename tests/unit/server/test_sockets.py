"""The life of sockets by the clock: deadlines, pings, expiry; welcome and the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import RealtimeServer, Socket
from aibos_realtime.server.handshake import Arrival
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.server import MemoryClient, memory_server
from aibos_realtime.transport.memory import MemoryTransport

OPEN: dict[str, Any] = {"authorization": {"permissions": {"*": ["read", "write"]}}}
KEY: dict[str, Any] = {"authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, "persistence": {"database": {"url": "memory://"}}}
NO_PULSE: dict[str, Any] = {"connections": {"heartbeat_interval": None, "heartbeat_timeout": None}}


def events(messages: list[dict[str, Any]]) -> list[str]:
    return [message["event"] for message in messages]


async def test_the_first_message() -> None:
    async with memory_server(clock=ManualClock(1_700_000_000.0)) as net:
        connected = (await net.connect("ann", expires_in=100)).connected
        assert connected["protocol"] == 1 and connected["expiresAt"] == 1_700_000_100.0 and connected["node"]
        assert connected["heartbeat"] == {"interval": 30.0, "timeout": 60.0}
        assert connected["limits"] == {"messageBytes": 65536, "rooms": 128, "messagesPerSecond": 50, "publishesPerSecond": 10}


async def test_ten_seconds_to_authenticate() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock) as net:
        silent, ann = await net.connect(), await net.connect("ann")
        await clock.advance(9)
        assert silent.socket.is_open
        await clock.advance(2)
        assert await silent.closed() == 4502 and ann.socket.is_open


async def test_a_shorter_connection_timeout_binds_first_and_off_is_off() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock, connections={"connection_timeout": 3}) as net:
        silent = await net.connect()
        await clock.advance(4.1)
        assert await silent.closed() == 4502
    off = {"connections": NO_PULSE["connections"] | {"connection_timeout": None}, "limits": {"authentication_seconds": None}}
    async with memory_server(clock=clock, **off) as net:
        silent = await net.connect()
        await clock.advance(10_000)
        assert silent.socket.is_open


async def test_no_sign_of_life() -> None:
    """A peer that answers no ping: after the interval it is pinged once, after the time-out it is left."""
    clock = ManualClock()
    async with memory_server(clock=clock) as net:
        alive, dead = await net.connect("ann"), await net.connect("bob")
        pings: list[bytes] = []
        dead.socket.write = pings.append
        await clock.advance(29)
        assert pings == []
        await clock.advance(29)
        assert pings == [b"\x89\x00"]
        await clock.advance(3)
        assert await dead.closed() == 4012 and alive.socket.is_open and not alive.socket.closing


async def test_a_heartbeat_of_a_second_goes_on() -> None:
    """Sockets are looked at once a second. The note that one had been pinged was only taken back by a look that came within the interval of an
    answer, and with an interval of a second there was none: it was pinged once, and then given up although it answered."""
    clock = ManualClock()
    async with memory_server(clock=clock, connections={"heartbeat_interval": 1.0, "heartbeat_timeout": 3.0}) as net:
        alive = await net.connect("ann")
        await clock.advance(20)
        assert alive.socket.is_open and not alive.socket.closing


async def test_expiry_is_announced_and_enforced_whatever_the_wall_clock_does() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock, **NO_PULSE) as net:
        ann, brief = await net.connect("ann", expires_in=600), await net.connect("bob", expires_in=20)
        clock.jump(-3600)
        await clock.advance(14)
        assert events(await brief.take_all()) == [], "of a short token a quarter is left when it is announced"
        await clock.advance(2)
        assert events(await brief.take_all()) == ["token-expiring"]
        await clock.advance(20 + 25 - 16 - 1)
        assert brief.socket.is_open
        await clock.advance(2.1)
        assert await brief.closed() == 4005
        await clock.advance(600 - 60 - 46.1 + 1.1)
        assert events(await ann.take_all()) == ["token-expiring"]


async def test_a_refresh_puts_the_end_off() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock, **KEY, **NO_PULSE) as net:
        ann = await net.connect("ann", expires_in=100)
        await clock.advance(50)
        await ann.request("authenticate", net.server.auth.issue(user_id="ann", expires_in=1000))
        await clock.advance(500)
        assert ann.socket.is_open and "token-expiring" not in events(await ann.take_all())


# — connection handlers —


def with_handler(handler: Any, **options: Any) -> RealtimeServer:
    server = RealtimeServer(**KEY | OPEN | options)
    server.on("connection", handler)
    return server


async def test_connection_handlers_are_done_before_the_client_is_told_connected() -> None:
    gate = asyncio.Event()

    async def greet(socket: Socket) -> None:
        socket.emit("early", 1)
        await socket.join("lobby")
        await gate.wait()
        socket.on("hello", lambda data: "hi")

    async with memory_server(with_handler(greet)) as net:
        client = await net.connect("ann", wait=False)
        client.send("hello", ref=1)
        await settle()
        await net.server.broadcaster.broadcast_to_room("lobby", "note", 1)
        assert await client.take_all() == []
        gate.set()
        assert events(await client.take_all()) == ["connected", "early", "note", "ack"]


async def test_a_connection_handler_that_fails_closes_its_socket_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail(socket: Socket) -> None:
        if socket.user is not None and socket.user.id == "bob":
            raise RuntimeError("no")

    async with memory_server(with_handler(fail)) as net:
        ann = await net.connect("ann")
        assert await (await net.connect("bob", wait=False)).closed() == 4004 and ann.socket.is_open
        assert "a connection handler failed" in caplog.text


async def test_what_a_connection_handler_says_before_it_disconnects_is_heard() -> None:
    """As in the source document: `socket.emit('auth_error', …); socket.disconnect()`."""

    def refuse(socket: Socket) -> None:
        socket.emit("auth_error", {"error": "no"})
        socket.disconnect(4507)

    async with memory_server(with_handler(refuse)) as net:
        client = await net.connect("ann", wait=False)
        assert await client.closed() == 4507
        assert "auth_error" in events(await client.take_all())


async def test_a_connection_handler_that_hangs_cannot_fill_the_memory() -> None:
    async def hang(socket: Socket) -> None:
        await socket.join("lobby")
        await asyncio.Event().wait()

    async with memory_server(with_handler(hang, limits={"outbox_bytes": 10_000})) as net:
        client = await net.connect("ann", wait=False)
        await settle()
        for _ in range(50):
            await net.server.broadcaster.broadcast_to_room("lobby", "bulk", "x" * 1000)
            await settle()
        assert not client.socket.is_open and client.end.close_code == 4008


async def test_disconnect_handlers_are_told_why() -> None:
    told: list[tuple[str, str]] = []
    server = RealtimeServer(**KEY)
    server.on("disconnect", lambda socket, reason: told.append((socket.user.id, reason)))
    async with memory_server(server) as net:
        ann, bob = await net.connect("ann"), await net.connect("bob")
        ann.socket.disconnect(4503)
        bob.cut()
        await ann.closed()
        await bob.closed()
        assert [name for name, _ in told] == ["ann", "bob"] and told[0][1] == "disconnected by an administrator, or revoked"


# — welcome and the end —


async def test_who_is_rejected_is_closed_at_once() -> None:
    async with memory_server() as net:
        transport = MemoryTransport()
        net.server.sockets.welcome(Arrival("", "aibos.realtime.v1", b"", rejection=4500), transport)
        await settle()
        assert transport.far.close_code == 4500 and len(net.server.pool) == 0


async def test_who_finds_the_pool_full_after_all_is_closed() -> None:
    async with memory_server(connections={"max_connections": 1}) as net:
        await net.connect("ann")
        transport = MemoryTransport()
        net.server.sockets.welcome(Arrival("", "aibos.realtime.v1", b""), transport)
        await settle()
        assert transport.far.close_code in (4015, 4504) and len(net.server.pool) == 1


async def test_one_socket_that_fails_stops_the_clock_of_no_other() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock) as net:
        broken, silent = await net.connect("ann"), await net.connect()

        def fail() -> int:
            raise RuntimeError("broken")

        broken.socket.transport.buffered = fail  # type: ignore[method-assign]
        for _ in range(48):
            try:
                await clock.advance(0.25)
            except RuntimeError:
                pass
        assert not silent.socket.is_open


async def test_draining_tells_everybody_and_lets_handlers_end() -> None:
    gate, done = asyncio.Event(), list[int]()
    server = RealtimeServer(**KEY)

    @server.event("slow")
    async def slow(socket: Socket, data: Any) -> int:
        await gate.wait()
        done.append(1)
        return 5

    async def stop_soon(client: MemoryClient) -> None:
        notice = await client.receive("reconnect")
        assert notice["data"].keys() == {"delayMin", "delayMax", "reason"} and notice["data"]["delayMax"] > 0
        gate.set()

    async with memory_server(server) as net:
        client = await net.connect("ann")
        client.send("slow", ref=1)
        await settle()
        stopping = asyncio.create_task(stop_soon(client))
        await server.stop(drain=5)
        await stopping
        assert done == [1] and (await client.receive("ack"))["data"] == 5 and await client.closed() == 4001


async def test_nobody_is_closed_for_what_he_may_have_sent_while_this_node_stood_still() -> None:
    """A handler that held the loop had everybody closed whose time had run out meanwhile, before what he had sent in time was read."""
    clock = ManualClock()
    async with memory_server(clock=clock) as net:
        silent = await net.connect()
        await clock.advance(7)
        clock._monotonic += 4.0  # nothing was called
        await clock.advance(1.5)
        assert silent.socket.is_open
        await clock.advance(2.0)
        assert await silent.closed() == 4502
