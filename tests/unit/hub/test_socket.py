"""A connection as handlers know it: who, speaking, calling, ending, and what happens when it does not read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, ConnectionClosed, PermissionDenied, ProtocolError, RequestTimeout, ValidationError
from aibos_realtime.protocol.frames import encode_frame
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import MemoryServer, memory_server
from aibos_realtime.types import User

OPEN = {"permissions": {"*": ["read", "write"]}}
SMALL = {"outbox_soft_bytes": 1000, "outbox_bytes": 5000}


# — who —


async def test_a_user_can_be_assigned_and_changed() -> None:
    async with memory_server(authorization=OPEN) as net:
        socket: Any = (await net.connect()).socket
        assert (socket.user, socket.authenticated) == (None, False)
        socket.user = {"id": "ann", "role": "admin", "tenant_id": "t1", "plan": "pro"}
        assert socket.user == User("ann", "admin", "t1", {"plan": "pro"}) and socket.authenticated
        await socket.join("a")
        socket.user = User("ann", "user")
        assert socket.rooms == {"a"}, "the same user stays where he is"
        socket.user = User("bob")
        assert socket.rooms == frozenset()
        assert net.server.pool.get_user_connections("bob") == [socket]
        socket.user = None
        assert not socket.authenticated
        assert net.server.pool.get_user_connections("bob") == []
        for wrong in ({}, {"id": 5}, {"id": ""}):
            with pytest.raises(ValidationError):
                socket.user = wrong


async def test_what_it_carries() -> None:
    async with memory_server() as net:
        socket = (await net.connect("ann", address="192.0.2.9")).socket
        socket.data["cart"] = 1
        assert socket.data == {"cart": 1} and socket.remote_address == "192.0.2.9" and socket.headers == {} and socket.is_open
        assert "token" not in repr(socket) and "ann" in repr(socket)
        with pytest.raises(AttributeError):
            socket.cart = 1  # type: ignore[attr-defined]


async def test_joining_asks_for_the_right_unless_told_otherwise() -> None:
    async with memory_server(authorization={"permissions": {"open": ["read"]}}) as net:
        socket = (await net.connect("ann")).socket
        await socket.join("open")
        with pytest.raises(PermissionDenied):
            await socket.join("closed")
        await socket.join("closed", check=False)
        assert socket.rooms == {"open", "closed"}
        await socket.leave("closed")
        assert socket.rooms == {"open"}


# — speaking —


async def test_emitting() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        client.socket.emit("note", {"a": [1, None]})
        client.socket.emit("bare")
        assert await client.receive() == {"event": "note", "data": {"a": [1, None]}}
        assert (await client.receive())["event"] == "bare"
        for wrong in ("", "a b", "x" * 129):
            with pytest.raises(ProtocolError):
                client.socket.emit(wrong)
        with pytest.raises(TypeError, match="cannot be sent"):
            client.socket.emit("note", object())
        client.socket.disconnect()
        client.socket.emit("note", "into the void")


async def test_a_call_and_its_answer() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        first, second = (asyncio.create_task(client.socket.call("ask", number)) for number in (1, 2))
        questions = [await client.receive("ask"), await client.receive("ask")]
        client.answer(questions[1], "two")
        client.answer(questions[0], {"one": 1})
        client.answer(questions[0], "late")
        client.send("ack", 5, ref="nothing of this kind")
        client.send("ack", 5)
        assert (await first, await second) == ({"one": 1}, "two")
        assert client.socket._calls == {} and await client.take_all() == []


async def test_a_call_that_nobody_answers() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        with pytest.raises(RequestTimeout, match="'ask'"):
            await client.socket.call("ask", timeout=0.01)
        going = asyncio.create_task(client.socket.call("ask"))
        await client.receive("ask")
        await client.receive("ask")
        client.cut()
        with pytest.raises(ConnectionClosed):
            await going
        with pytest.raises(ConnectionClosed):
            await client.socket.call("ask")
        assert client.socket._calls == {}


async def test_cancelling_a_call_leaves_nothing_behind() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        going = asyncio.create_task(client.socket.call("ask"))
        question = await client.receive("ask")
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        client.answer(question, 1)
        assert client.socket._calls == {} and await client.take_all() == []


async def test_a_handler_for_each_event_once() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")

        @client.socket.on("double")
        def double(data: int) -> int:
            return 2 * data

        with pytest.raises(ConfigurationError, match="already"):
            client.socket.on("double", double)
        assert await client.request("double", 4) == 8


# — the end —


async def test_disconnecting_twice_is_disconnecting_once() -> None:
    async with memory_server() as net:
        client, gone = await net.connect("ann"), list[str]()
        client.socket.on("disconnect", gone.append)
        client.socket.disconnect(4503, "out")
        client.socket.disconnect(1000, "again")
        assert not client.socket.is_open and client.socket.transport.remote_address
        assert await client.closed() == 4503 and client.end.close_reason == "out" and gone == ["out"]


async def test_what_waits_for_rooms_goes_out_before_the_close() -> None:
    async with memory_server(authorization=OPEN) as net:
        client = await net.connect("ann")
        await client.request("join-room", "a")
        await net.server.broadcaster.broadcast_to_room("a", "last", None)
        client.socket.disconnect()
        assert (await client.receive())["event"] == "last"


# — who does not read —


async def fill(net: MemoryServer, client: Any, size: int, times: int = 1, **how: Any) -> None:
    for _ in range(times):
        client.socket.emit("bulk", "x" * size, **how)


async def test_past_the_soft_limit_volatile_events_are_dropped_and_reading_stops() -> None:
    async with memory_server(limits=SMALL) as net:
        client = await net.connect("ann")
        await fill(net, client, 800, 2)
        assert client.socket.is_behind()
        await fill(net, client, 800, 9, volatile=True)
        client.send("ping", ref=1)
        assert client.socket.is_open
        drained = asyncio.create_task(client.socket.drained())
        messages = await client.take_all()
        assert [message["event"] for message in messages].count("bulk") < 6
        await drained
        assert not client.socket.is_behind()
        assert [message["event"] for message in [*messages, *await client.take_all()]].count("pong") == 1, "reading goes on once it has drained"


async def test_past_the_hard_limit_the_socket_is_closed_and_counted() -> None:
    async with memory_server(limits=SMALL) as net:
        client, other = await net.connect("ann"), await net.connect("bob")
        await fill(net, client, 1000, 7)
        assert not client.socket.is_open
        assert await client.closed() == 4008 and net.server.metrics.slow_closes == 1
        assert other.socket.is_open
        await asyncio.wait_for(client.socket.drained(), 5)


async def test_bytes_that_are_stuck_close_the_socket_in_time() -> None:
    clock = ManualClock()
    async with memory_server(
        clock=clock, limits={"outbox_soft_bytes": 1000}, connections={"heartbeat_interval": None, "heartbeat_timeout": None}
    ) as net:
        client = await net.connect("ann")
        await fill(net, client, 500, 1)
        await clock.advance(9)
        assert client.socket.is_open
        await clock.advance(4)
        assert await client.closed() == 4008


class Stuck:
    """A transport that holds bytes below the soft limit, of which it tells nobody."""

    remote_address = ""
    shows_life = True

    def __init__(self) -> None:
        self.waiting = 0
        self.is_reading = True

    def write(self, data: bytes) -> None: ...

    def buffered(self) -> int:
        return self.waiting

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None: ...


async def test_reading_that_was_stopped_for_a_backlog_goes_on_once_a_short_jam_is_over() -> None:
    """The backlog stops reading; the socket is behind without the transport having said so; the backlog ends; then the jam does."""
    async with memory_server() as net:
        socket, transport = (await net.connect("ann")).socket, Stuck()
        socket.transport = transport
        transport.pause_reading()
        transport.waiting = 10
        socket.check_outbox(1.0)
        assert socket.is_behind()
        net.server.sockets._inbound.hold(socket)
        net.server.sockets._inbound.release(socket)
        transport.waiting = 0
        socket.check_outbox(2.0)
        assert not socket.is_behind() and transport.is_reading


@pytest.mark.parametrize("code", [999, 1005, 1006, 5000, 0])
async def test_a_code_that_no_close_frame_carries_is_refused_before_anything_ends(code: int) -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        with pytest.raises(ConfigurationError):
            client.socket.disconnect(code)
        assert client.socket.is_open
        assert await client.request("ping") is None


async def test_a_ping_is_answered_and_noticed() -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        client.socket.ping()
        assert client.socket.pinged_at == client.socket.heard_at and await client.take_all() == []
        assert encode_frame(9, b"") == b"\x89\x00"
