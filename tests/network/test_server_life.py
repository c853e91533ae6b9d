"""A server's life on a real port: begin, drain, end, signals; and that nothing of it is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeServer
from aibos_realtime.server.port import UNSENT_BYTES, UNTAKEN_MILLISECONDS
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.transport.websocket import WebSocketTransport
from tests.network.raw import PATIENCE, SECRET, Raw, closing, make_server, member, raw, request, serving, until, upgraded

pytestmark = pytest.mark.usefixtures("clean_log")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def count_of(kind: type) -> int:
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


# — begin —


async def test_start_and_stop_twice_are_as_once() -> None:
    server = make_server()
    await server.stop()
    await server.start()
    port = server.port
    await server.start()
    assert server.is_running and server.port == port > 0
    await asyncio.gather(server.stop(), server.stop())
    await server.stop()
    assert len(server.pool) == 0
    with pytest.raises(OSError):
        async with raw(port):
            pass


async def test_a_server_can_start_again() -> None:
    server = make_server()
    for _ in range(3):
        async with server, member(server, "ann", "tenant_1") as ann:
            assert (await ann.ask("x", 1, room="tenant_1"))["event"] == "ack"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not pass these on to what is accepted")
async def test_what_the_kernel_may_keep_of_a_connection() -> None:
    """A peer that was gone without a word kept what was on its way to it in the kernel for a quarter of an hour, also after the server had closed."""
    async with make_server() as server, member(server, "ann", "tenant_1"):
        [found] = server.pool
        assert isinstance(found.transport, WebSocketTransport)
        accepted = found.transport._stream.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNTAKEN_MILLISECONDS
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES


async def test_a_server_raises_its_limit_of_open_files_where_it_may() -> None:
    """With the 1,024 that most systems give a program to begin with, a server that was not begun by `serve` took 897 connections of its 1,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1138:
        pytest.skip("needs a user who may open 1,138 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        async with make_server() as server:
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1138
            assert server.pool.most == server.config.connections.max_connections == 1000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_port_that_is_taken() -> None:
    """The error says which, and what to do; nothing of the attempt is left; it works once the port is free."""
    clock = ManualClock()
    async with serving() as first:
        second = RealtimeServer(host="127.0.0.1", port=first.port, authentication={"jwt_secret": SECRET}, clock=clock)
        before, tasks = descriptors(), asyncio.all_tasks()
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{first.port} cannot be listened on .*; choose another, or 0 for a free one"):
                await second.start()
            assert not second.is_running
        assert clock.planned == [] and descriptors() == before and asyncio.all_tasks() == tasks
    async with second, upgraded(second.port) as connection:
        await connection.message("connected")


async def test_a_host_that_is_not_ours() -> None:
    server = RealtimeServer(host="203.0.113.1", port=0, authentication={"jwt_secret": SECRET})
    with pytest.raises(ConfigurationError, match="203.0.113.1"):
        await server.start()


# — end —


async def test_draining_says_when_to_come_back_and_then_closes() -> None:
    async with serving() as server, AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(server, f"user_{number}", "tenant_1")) for number in range(10)]
        nobody = await stack.enter_async_context(upgraded(server.port))
        await nobody.message("connected")
        stopping = asyncio.ensure_future(server.stop(drain=5))
        for connection in (*members, nobody):
            data = (await connection.message("reconnect"))["data"]
            assert set(data) == {"delayMin", "delayMax", "reason"} and 0 <= data["delayMin"] < data["delayMax"] <= 5
            assert await connection.close_code() == 4001
            await connection.send(closing(4001))
        await stopping
        assert len(server.pool) == 0


async def test_draining_lets_running_handlers_end() -> None:
    server = make_server()
    go, begun = asyncio.Event(), asyncio.Event()

    @server.event("slow")
    async def slow(socket: Any, data: Any) -> str:
        begun.set()
        await go.wait()
        return "done"

    async with server, member(server, "ann") as ann, raw(server.port) as http:
        await http.send(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await http.response()).status == 200
        ann.say("slow", ref=1)
        await begun.wait()
        port = server.port
        stopping = asyncio.ensure_future(server.stop(drain=30))
        await ann.message("reconnect")
        await http.send(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
        response = await http.response()
        assert (response.status, response.body) == (503, b'{"status":"draining"}')
        with pytest.raises(OSError):
            async with raw(port):
                pass
        go.set()
        assert (await ann.message("ack"))["data"] == "done"
        assert await ann.close_code() == 4001
        await ann.send(closing(4001))
        await stopping


async def test_a_handler_that_outlasts_the_drain_is_cancelled() -> None:
    server = make_server()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @server.event("hang")
    async def hang(socket: Any, data: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with server, member(server, "ann") as ann:
        ann.say("hang", ref=1)
        await begun.wait()
        stopping = asyncio.ensure_future(server.stop(drain=0.05))
        assert await ann.close_code() == 4001
        await ann.send(closing(4001))
        async with asyncio.timeout(PATIENCE):
            await stopping
        assert cancelled.is_set()


async def test_cancelling_a_stop_ends_it_sooner_and_leaves_nothing() -> None:
    server = make_server()
    begun = asyncio.Event()

    @server.event("hang")
    async def hang(socket: Any, data: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    await server.start()
    before = asyncio.all_tasks()
    async with member(server, "ann") as ann:
        ann.say("hang", ref=1)
        await begun.wait()
        stopping = asyncio.ensure_future(server.stop(drain=30))
        await ann.message("reconnect")
        stopping.cancel()
        begin = time.perf_counter()
        await asyncio.wait((stopping,), timeout=PATIENCE)
        assert stopping.cancelled() and time.perf_counter() - begin < 1.0
        assert not server.is_running and len(server.pool) == 0
        assert await ann.close_code() == 4001, "cut off, but told why"
        await ann.ended()
    await server.stop()
    assert asyncio.all_tasks() <= before


async def test_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibos_realtime.server.server.CLOSE_TIMEOUT", 0.2)
    async with serving() as first, member(first, "ann"):
        pass  # what a loop opens once for all is open now
    tasks, before, kept = asyncio.all_tasks(), descriptors(), count_of(WebSocketTransport)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(make_server())
        members = [await stack.enter_async_context(member(server, f"user_{number}", "tenant_1")) for number in range(5)]
        await stack.enter_async_context(raw(server.port))
        silent = await stack.enter_async_context(raw(server.port))
        await silent.send(request()[:30])
        assert (await members[0].ask("x", 1, room="tenant_1"))["event"] == "ack"
        await server.stop(drain=0)
        await until(lambda: count_of(WebSocketTransport) <= kept)
    await until(lambda: descriptors() <= before)
    assert asyncio.all_tasks() <= tasks


async def test_200_lives_leave_nothing() -> None:
    async def live(server: RealtimeServer) -> None:
        async with server, member(server, "ann", "tenant_1") as ann:
            await ann.send(closing())
            await ann.ended()

    again = make_server()
    for _ in range(3):
        await live(again)
        await live(make_server())
    before, tasks = descriptors(), asyncio.all_tasks()
    kept = count_of(RealtimeServer), count_of(WebSocketTransport)
    for _ in range(100):
        await live(again)
        await live(make_server())
    assert descriptors() <= before and asyncio.all_tasks() <= tasks
    assert (count_of(RealtimeServer), count_of(WebSocketTransport)) <= kept


# — as a process —

PROGRAM = """
import asyncio, sys
import aibos_realtime.server.server as module
from aibos_realtime import RealtimeServer

if sys.argv[1] == "asyncio":
    module.new_event_loop = asyncio.new_event_loop
unlimited = {"handshakes_per_second": None, "handshakes_per_second_per_address": None, "connections_per_address": None, "handshake_seconds": 1}
server = RealtimeServer(host="127.0.0.1", port=0, authentication={"jwt_secret": sys.argv[2]}, limits=unlimited)

@server.event("hang")
async def hang(socket, data):
    socket.emit("begun")
    await asyncio.Event().wait()

server.run(drain=30, on_started=lambda: print(server.port, flush=True))
print("after", flush=True)
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.auth = make_server().auth

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float) -> tuple[int, str]:
        """Exit code and everything said on the way out."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            said = await self.process.stdout.read()
            return await self.process.wait(), said.decode()

    @asynccontextmanager
    async def member(self) -> AsyncIterator[Raw]:
        token = self.auth.issue(user_id="ann", tenant_id="1")
        async with upgraded(self.port, f"Authorization: Bearer {token}") as connection:
            await connection.message("connected")
            yield connection


@asynccontextmanager
async def running() -> AsyncIterator[Process]:
    """The program above, on the event loop that this test runs on."""
    loop = "asyncio" if type(asyncio.get_running_loop()).__module__.startswith("asyncio") else "uvloop"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, loop, SECRET, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(15):
            line = await process.stdout.readline()
        yield Process(process, int(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(number: int) -> None:
    async with running() as program, program.member() as ann:
        program.signal(number)
        assert (await ann.message("reconnect"))["data"]["delayMax"] > 0
        assert await ann.close_code() == 4001
        await ann.send(closing(4001))
        code, said = await program.ended(within=5)
        assert (code, said) == (0, "after\n")


async def test_a_peer_that_never_answers_costs_two_seconds() -> None:
    async with running() as program, program.member() as ann:
        program.signal(signal.SIGTERM)
        begin = time.perf_counter()
        assert await ann.close_code() == 4001
        code, said = await program.ended(within=5)
        assert time.perf_counter() - begin < 3.5
        assert (code, said) == (0, "after\n")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(second: int) -> None:
    """Also beside a handler that would have half a minute, and a peer that answers nothing."""
    async with running() as program, program.member() as ann:
        ann.say("hang", ref=1)
        await ann.message("begun")
        program.signal(signal.SIGTERM)
        await ann.message("reconnect")
        program.signal(second)
        begin = time.perf_counter()
        code, said = await program.ended(within=5)
        assert time.perf_counter() - begin < 1.5
        assert code == 0 and "Traceback" not in said and said.endswith("after\n")


async def test_a_second_signal_while_peers_are_waited_for() -> None:
    async with running() as program, program.member() as ann:
        program.signal(signal.SIGTERM)
        assert await ann.close_code() == 4001
        program.signal(signal.SIGTERM)
        begin = time.perf_counter()
        code, said = await program.ended(within=5)
        assert time.perf_counter() - begin < 1.5
        assert code == 0 and "Traceback" not in said and said.endswith("after\n")
