"""The protocol: the order of answers, what goes past it, and what handlers of the application may do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import RealtimeServer, RequestTimeout, Socket
from aibos_realtime.server.handshake import Arrival
from aibos_realtime.transport.memory import MemoryTransport
from tests.contracts.peer import PROTOCOL, connecting, joined, serving, until


async def test_answers_come_in_the_order_of_the_requests(server: RealtimeServer) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @server.event("slow")
    async def slow(socket: Socket, data: Any) -> Any:
        started.set()
        await until(go)
        return "slow"

    @server.event("quick")
    def quick(socket: Socket, data: Any) -> Any:
        return "quick"

    async with joined(server) as peer:
        await peer.send("slow", ref=1)
        await peer.send("quick", ref=2)
        await peer.send("x", {}, room="tenant_1", ref=3)
        await peer.send("history", {"roomId": "tenant_1"}, ref=4)
        await peer.send("x", {}, room="tenant_2", ref=5)
        await peer.send("nobody-takes-this", ref=6)
        await peer.send("join-room", 5, ref=7)
        await until(started)
        go.set()
        assert [(await peer.next()).get("ref") for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]


async def test_publishes_are_pipelined(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as peer:
        for ref in range(1, 21):
            await peer.send("x", {"n": ref}, room="tenant_1", ref=ref)
        messages = [await peer.next() for _ in range(40)]
        assert [message["ref"] for message in messages if message["event"] == "ack"] == list(range(1, 21))
        assert [message["offset"] for message in messages if message["event"] == "x"] == list(range(1, 21))
        assert [message["data"]["n"] for message in messages if message["event"] == "x"] == list(range(1, 21))


async def test_ping_goes_past_a_busy_handler(server: RealtimeServer) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @server.event("slow")
    async def slow(socket: Socket, data: Any) -> Any:
        started.set()
        await until(go)

    async with joined(server) as peer:
        await peer.send("slow", ref=1)
        await until(started)
        assert (await peer.ask("ping"))["event"] == "pong"
        go.set()
        assert (await peer.answer(1))["event"] == "ack"


async def test_a_busy_handler_of_one_connection_holds_up_no_other(server: RealtimeServer) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @server.event("slow")
    async def slow(socket: Socket, data: Any) -> Any:
        if data:
            started.set()
            await until(go)

    async with joined(server, "tenant_1") as busy, joined(server, "tenant_1", user_id="other") as other:
        await busy.send("slow", True, ref=1)
        await until(started)
        await other.data("slow", False)
        await other.data("x", room="tenant_1")
        assert (await busy.next("x"))["room"] == "tenant_1", "events of rooms come while a handler works"
        go.set()


async def test_handlers_of_one_connection_do_not_overlap(server: RealtimeServer) -> None:
    inside, most = 0, 0

    @server.event("work")
    async def work(socket: Socket, data: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(5):
            await asyncio.sleep(0)
        inside -= 1

    async with joined(server) as peer:
        for _ in range(10):
            await peer.send("work")
        await peer.data("work")
        assert most == 1


async def test_the_answer_to_a_call_goes_past_the_handler_that_waits_for_it(server: RealtimeServer) -> None:
    @server.event("approve")
    async def approve(socket: Socket, data: Any) -> Any:
        return {"said": await socket.call("are-you-sure", {"amount": 5}, timeout=5)}

    async with joined(server) as peer:
        await peer.send("approve", ref="mine")
        question = await peer.next("are-you-sure")
        assert question["data"] == {"amount": 5} and question["ref"] is not None and "room" not in question
        await peer.send("ack", {"yes": True}, ref=question["ref"])
        answer = await peer.next("ack")
        assert answer["ref"] == "mine" and answer["data"] == {"said": {"yes": True}}


async def test_a_call_that_nobody_answers_times_out(server: RealtimeServer) -> None:
    @server.event("approve")
    async def approve(socket: Socket, data: Any) -> Any:
        try:
            await socket.call("are-you-sure", timeout=0.05)
        except RequestTimeout:
            return "no answer"

    async with joined(server) as peer:
        answer = await peer.ask("approve")
        assert answer["data"] == "no answer"
        question = await peer.next("are-you-sure")
        await peer.send("ack", "too late", ref=question["ref"])
        await peer.send("ack", "for nothing", ref="never asked")
        assert await peer.heard() == []


async def test_a_returned_value_is_the_acknowledgement(server: RealtimeServer) -> None:
    @server.event("echo")
    async def echo(socket: Socket, data: Any) -> Any:
        return data

    async with joined(server) as peer:
        values: list[Any] = [None, 0, False, "", [], {}, {"a": [1.5, "ü"]}]
        for value in values:
            assert await peer.ask("echo", value, ref=9) == {"event": "ack", "ref": 9, "data": value}
        await peer.send("echo", "no ref")
        assert await peer.heard() == []


async def test_what_a_handler_emits_carries_no_ref(server: RealtimeServer) -> None:
    @server.event("work")
    async def work(socket: Socket, data: Any) -> Any:
        socket.emit("progress", {"percent": 50})
        return "done"

    async with joined(server) as peer:
        await peer.send("work", ref=1)
        assert await peer.next() == {"event": "progress", "data": {"percent": 50}}
        assert await peer.next() == {"event": "ack", "ref": 1, "data": "done"}


async def test_a_handler_of_ones_own_for_a_message_of_the_protocol(server: RealtimeServer) -> None:
    """The source document's handlers, line by line: they act in place of the server, and the answer with the `ref` stays the server's."""

    @server.on("connection")
    def connection(socket: Socket) -> None:
        @socket.on("join-room")
        async def join(room_id: str) -> None:
            await socket.join(room_id)
            socket.emit("joined-room", {"roomId": room_id})

        @socket.on("leave-room")
        async def leave(room_id: str) -> None:
            await socket.leave(room_id)
            socket.emit("left-room", {"roomId": room_id})

    async with joined(server) as peer:
        await peer.send("join-room", "tenant_1", ref=1)
        emitted, answer = await peer.next("joined-room"), await peer.next("joined-room")
        assert emitted == {"event": "joined-room", "data": {"roomId": "tenant_1"}}
        assert answer["ref"] == 1 and {"roomId", "epoch", "offset"} <= set(answer["data"])
        await peer.data("x", room="tenant_1")
        assert len(await peer.heard()) == 1

        refused = await peer.ask("join-room", "tenant_2")
        assert refused["event"] == "permission_denied" and refused["data"]["action"] == "read"
        assert await peer.heard() == []

        await peer.send("leave-room", "tenant_1", ref=2)
        assert await peer.next() == {"event": "left-room", "data": {"roomId": "tenant_1"}}
        assert await peer.next() == {"event": "left-room", "ref": 2, "data": {"roomId": "tenant_1"}}


async def test_a_join_handler_that_lets_nobody_in(server: RealtimeServer) -> None:
    """It runs in place of the built-in act, so nobody is in the room; and one answer there is."""

    @server.on("connection")
    def connection(socket: Socket) -> None:
        socket.on("join-room")(lambda room_id: None)

    async with joined(server) as peer:
        answer = await peer.ask("join-room", "tenant_1")
        assert answer["ref"]
        await server.broadcaster.broadcast_to_room("tenant_1", "x", {})
        assert await peer.heard() == []


async def test_an_authenticate_handler_of_ones_own(server: RealtimeServer) -> None:
    @server.on("connection")
    def connection(socket: Socket) -> None:
        @socket.on("authenticate")
        async def authenticate(token: str) -> None:
            if token == "letmein":
                socket.user = {"id": "user_7", "role": "admin", "tenant_id": "1"}
                socket.authenticated = True

    async with connecting(server) as peer:
        await peer.next("connected")
        data = await peer.data("authenticate", "letmein")
        assert data["success"] is True and data["user"]["id"] == "user_7"
        await peer.data("join-room", "tenant_1")
        assert [socket.user.role for socket in server.pool.get_user_connections("user_7") if socket.user] == ["admin"]


async def test_connection_handlers_have_finished_before_connected(server: RealtimeServer) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    order = []

    @server.on("connection")
    async def connection(socket: Socket) -> None:
        order.append("begin")
        socket.emit("welcome", {"hello": True})
        started.set()
        await until(go)
        order.append("end")

    @server.event("work")
    def work(socket: Socket, data: Any) -> None:
        order.append("work")

    async with connecting(server, server.auth.issue(user_id="u")) as peer:
        await peer.send("work", ref=1)
        await until(started)
        assert order == ["begin"]
        go.set()
        assert (await peer.next())["event"] == "connected", "the first message of the server"
        rest = [await peer.next(), await peer.next()]
        assert {message["event"] for message in rest} == {"welcome", "ack"}
        assert order == ["begin", "end", "work"]


async def test_a_handler_of_one_socket_comes_before_that_of_all(server: RealtimeServer) -> None:
    server.event("who")(lambda socket, data: "server")

    async with joined(server, user_id="plain") as plain:

        @server.on("connection")
        def connection(socket: Socket) -> None:
            socket.on("who")(lambda data: "socket")

        async with joined(server) as peer:
            assert await peer.data("who") == "socket"
            assert await plain.data("who") == "server"


@pytest.mark.parametrize("limit", [{"outbox_bytes": 50_000, "outbox_soft_bytes": 10_000}])
async def test_too_slow_is_4008_and_costs_nobody_else(limit: dict[str, int]) -> None:
    async with serving(limits=limit) as server, joined(server, "tenant_1", user_id="other") as other:
        transport = MemoryTransport(soft_limit=10_000)
        identity = server.auth.identify_now(server.auth.issue(user_id="slow", tenant_id="1"))
        server.sockets.welcome(Arrival("", PROTOCOL, b"", identity=identity), transport)
        transport.far.send('{"event": "join-room", "data": "tenant_1"}')
        for n in range(100):
            await server.broadcaster.broadcast_to_room("tenant_1", "x", {"n": n, "fill": "x" * 1000})
            assert (await other.next("x"))["offset"] == n + 1
        assert transport.far.close_code == 4008
        assert server.pool.get_user_connections("slow") == []
