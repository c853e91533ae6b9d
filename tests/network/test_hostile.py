"""Peers that flood, stall, break off and lie, on real sockets. Each costs itself alone: a canary beside it is answered all the while."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from aibos_realtime import RealtimeServer
from aibos_realtime.protocol.frames import CLOSE, PING, PONG, TEXT
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.transport import websocket
from tests.network.raw import MASK, PATIENCE, Raw, closing, echoes, frame, member, raw, request, serving, text, until, upgraded

pytestmark = pytest.mark.usefixtures("clean_log")

SMALL = {"outbox_soft_bytes": 16 * 1024, "outbox_bytes": 64 * 1024}
"""Limits of the outgoing buffer that are reached soon."""
NO_PACE = {"messages_per_second": None, "publishes_per_second": None, "control_frames_per_second": None}
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@asynccontextmanager
async def arena(**options: Any) -> AsyncIterator[tuple[RealtimeServer, Raw]]:
    """A server and its canary, which is well before and after."""
    async with serving(**options) as server, member(server, "canary") as canary:
        await echoes(canary)
        yield server, canary
        begin = time.perf_counter()
        await echoes(canary)
        assert time.perf_counter() - begin < 1.0


class Ends:
    """The close codes with which connections of a server ended, in order."""

    def __init__(self, server: RealtimeServer) -> None:
        self._pool = server.pool
        self._one = asyncio.Event()
        self.count = 0
        server.on("disconnect", self._ended)

    def _ended(self, socket: Any, reason: str) -> None:
        self.count += 1
        self._one.set()

    @property
    def codes(self) -> dict[int, int]:
        return {code: count for code, count in self._pool.metrics.close_codes.items() if count}

    async def until(self, count: int) -> None:
        """Wait until so many connections have ended."""
        async with asyncio.timeout(PATIENCE):
            while self.count < count:
                self._one.clear()
                await self._one.wait()


async def flood(connection: Raw, data: bytes, limit: int) -> None:
    """Send over and over, `limit` bytes in all, until the other side ends the connection."""
    try:
        for _ in range(limit // len(data)):
            connection.write(data)
            await connection.writer.drain()
    except (OSError, RuntimeError):  # the loop's own error for a transport that is closed
        pass


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def brief_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers get less time to answer a close."""
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.2)


# — frames —


async def test_a_message_that_is_never_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "ASSEMBLY_TIMEOUT", 0.2)
    for begun in (frame(TEXT, b"x", fin=False), frame(TEXT, b"hello")[:-1], frame(TEXT, b"x")[:1]):
        async with arena() as (server, _), upgraded(server.port) as attacker:
            await attacker.message("connected")
            await attacker.send(begun)
            assert await attacker.close_code() == 1008
            await attacker.ended()


async def test_pings_do_not_prolong_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "ASSEMBLY_TIMEOUT", 0.3)
    async with arena(limits=NO_PACE) as (server, _), upgraded(server.port) as attacker:
        await attacker.message("connected")
        await attacker.send(frame(TEXT, b"x", fin=False))
        opcode = PONG
        while opcode == PONG:
            await attacker.send(frame(PING))
            opcode, payload = await attacker.frame()
        assert (opcode, payload[:2]) == (CLOSE, (1008).to_bytes(2, "big"))


async def test_whoever_sends_on_and_on_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every segment ends in the middle of a message, but each message takes no time."""
    monkeypatch.setattr(websocket, "ASSEMBLY_TIMEOUT", 0.2)
    async with arena(limits=NO_PACE) as (server, _), upgraded(server.port) as busy:
        await busy.message("connected")
        ping = text({"event": "ping", "ref": 1})
        await busy.send(ping[:9])
        end = time.perf_counter() + 0.7
        while time.perf_counter() < end:
            await busy.send(ping[9:] + ping[:9])
            assert (await busy.message())["event"] == "pong"


async def test_compressed_answers_can_be_read() -> None:
    async with arena(compression={"enabled": True, "threshold": 1}) as (server, canary), upgraded(server.port, DEFLATE) as other:
        first, opcode, _ = await other.whole_frame()
        assert (first, opcode) == (0xC1, TEXT)
        await echoes(canary)


# — floods whose answers nobody reads —


@pytest.mark.parametrize("what", ["pings", "requests"])
async def test_answers_that_nobody_reads_are_bounded(what: str, brief_close: None) -> None:
    data = frame(PING, b"p" * 125) * 100 if what == "pings" else text({"event": "ping", "ref": "r" * 60}) * 100
    limits = {**SMALL, **NO_PACE, "outbox_seconds": 0.5}
    async with arena(limits=limits) as (server, canary), upgraded(server.port, receive_bytes=4096) as attacker:
        [socket] = [one for one in server.pool if one.user is None]
        ends = Ends(server)
        attacker.stop_reading()
        sending = asyncio.ensure_future(flood(attacker, data, 300_000_000))
        most = 0

        def has_ended() -> bool:
            nonlocal most
            most = max(most, socket.transport.buffered())
            return socket.closing

        await until(has_ended)
        await ends.until(1)
        await echoes(canary)
        assert ends.codes == {4008: 1}
        assert most < SMALL["outbox_bytes"] + websocket.READ_BYTES
        attacker.reset()
        await sending


async def test_one_of_fifty_members_stalls(brief_close: None) -> None:
    """It alone is closed (4008); the others get every event in order; what is kept for it stays within its limit."""
    limits = {**SMALL, "outbox_seconds": None, "connections_per_user": None}
    async with arena(limits=limits) as (server, canary), AsyncExitStack() as stack:
        ends = Ends(server)
        others = [await stack.enter_async_context(member(server, f"user_{number}", "tenant_1")) for number in range(49)]
        stalled = await stack.enter_async_context(member(server, "stalled", "tenant_1", receive_bytes=4096))
        [socket] = server.pool.get_user_connections("stalled")
        stalled.stop_reading()
        most = sent = 0
        while socket.is_open or sent % 100:
            for _ in range(10):
                sent += 1
                await server.broadcaster.broadcast_to_room("tenant_1", "x", "*" * 4096)
            most = max(most, socket.transport.buffered())
            got = await asyncio.gather(*(offsets(other, 10) for other in others))
            assert got == [list(range(sent - 9, sent + 1))] * 49
        await ends.until(1)
        assert ends.codes == {4008: 1} and server.metrics.slow_closes == 1
        assert most <= SMALL["outbox_bytes"] + 11 * 4200
        assert not server.pool.get_user_connections("stalled")
        await echoes(canary)


async def offsets(connection: Raw, count: int) -> list[int]:
    return [(await connection.message())["offset"] for _ in range(count)]


async def test_a_member_that_stalls_with_little_unread_is_closed_when_it_is_old(brief_close: None) -> None:
    async with arena(limits={"outbox_seconds": 0.3, "outbox_bytes": None}) as (server, canary):
        async with member(server, "stalled", "tenant_1", receive_bytes=4096) as stalled:
            ends = Ends(server)
            stalled.stop_reading()
            [socket] = server.pool.get_user_connections("stalled")
            while socket.transport.buffered() < 100_000:
                await server.broadcaster.broadcast_to_room("tenant_1", "x", "*" * 60_000)
                await asyncio.sleep(0)
            await ends.until(1)
            assert ends.codes == {4008: 1}
            await echoes(canary)


async def test_volatile_events_are_dropped_for_whoever_is_behind() -> None:
    async with arena(limits={"outbox_soft_bytes": 16 * 1024}) as (server, canary):
        async with member(server, "slow", "tenant_1", receive_bytes=4096) as slow:
            slow.stop_reading()
            [socket] = server.pool.get_user_connections("slow")
            while not server.metrics.volatile_dropped:
                await server.broadcaster.broadcast_to_room("tenant_1", "x", "*" * 30_000, volatile=True)
                await asyncio.sleep(0)
            assert socket.is_open and socket.transport.buffered() < 100_000
            await echoes(canary)


# — floods of connections —


async def test_whoever_does_not_authenticate_goes() -> None:
    clock = ManualClock()
    async with arena(clock=clock, heartbeat={"interval": None, "timeout": None}) as (server, _), AsyncExitStack() as stack:
        nobodies = [await stack.enter_async_context(upgraded(server.port)) for _ in range(50)]
        await clock.advance(12)
        assert [await one.close_code() for one in nobodies] == [4502] * 50


async def test_connections_of_one_user() -> None:
    async with arena(limits={"connections_per_user": 3}) as (server, _), AsyncExitStack() as stack:
        ends = Ends(server)
        kept = [await stack.enter_async_context(member(server, "ann")) for _ in range(3)]
        token = server.auth.issue(user_id="ann", tenant_id="1")
        for _ in range(5):
            async with upgraded(server.port, f"Authorization: Bearer {token}") as further:
                assert await further.close_code() == 4504
        for connection in kept:
            await echoes(connection)
        await ends.until(5)
        kept[0].reset()
        await ends.until(6)
        async with member(server, "ann") as another:
            await echoes(another)


async def test_connections_of_one_address_are_counted_down_again() -> None:
    async with serving(limits={"connections_per_address": 2}) as server:
        ends = Ends(server)
        for number in range(6):
            async with upgraded(server.port) as connection:
                await connection.message("connected")
                if number % 2:
                    connection.reset()
            await ends.until(number + 1)


async def test_failed_authentications_are_slowed_and_good_ones_are_not() -> None:
    clock = ManualClock()
    async with arena(clock=clock) as (server, _):
        bad = request("Authorization: Bearer no.good.token")
        for _ in range(5):
            async with raw(server.port) as connection:
                await connection.send(bad)
                assert (await connection.response()).status == 401
        async with raw(server.port) as sixth, upgraded(server.port) as seventh:
            await sixth.send(bad)
            async with asyncio.timeout(PATIENCE):
                await clock.until_planned(1.0)
            async with member(server, "ann") as good:
                await echoes(good)
            await seventh.message("connected")
            seventh.say("authenticate", "no.good.token", ref=1)
            await seventh.send(b"")
            await clock.advance(0.5)
            answer = asyncio.ensure_future(sixth.response())
            assert not (await asyncio.wait((answer,), timeout=0.05))[0]
            await clock.advance(0.5)
            assert (await answer).status == 401
            await clock.advance(1.0)
            assert (await seventh.message("authenticated"))["data"]["success"] is False
            assert await seventh.close_code() == 4500


async def test_thousands_of_failed_handshakes_write_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with arena() as (server, _):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            for _ in range(300):
                async with raw(server.port) as connection:
                    await connection.send(b"no HTTP at all\r\n\r\n")
                    assert (await connection.response()).status == 400
            assert len(caplog.records) <= 10


# — connections that break off —

BREAKS: dict[str, bytes] = {
    "in the request": request()[:60],
    "after the request": request(),
    "in a frame": request() + text({"event": "ping"})[:9],
    "in a message": request() + frame(TEXT, b"{", fin=False),
    "after a request of ours": request() + text({"event": "ping"}),
    "after a close": request() + closing(),
    "after a violation": request() + b"\x83\x80" + MASK,
}


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("sent", BREAKS.values(), ids=BREAKS)
async def test_broken_sockets(sent: bytes, how: str) -> None:
    async with arena() as (server, canary):
        for _ in range(10):
            async with raw(server.port) as connection:
                await connection.send(sent)
                if how == "reset":
                    connection.reset()
                else:
                    connection.writer.write_eof()
                    await connection.ended()
        await echoes(canary)
        await until(lambda: len(server.pool) == 1)


async def test_members_that_break_off_while_a_room_is_written_to() -> None:
    async with arena(limits={"connections_per_user": None}) as (server, canary), AsyncExitStack() as stack:
        assert (await canary.ask("join-room", "tenant_1"))["event"] == "joined-room"
        for number in range(20):
            breaking = await stack.enter_async_context(member(server, f"user_{number}", "tenant_1"))
            breaking.reset()
            await server.broadcaster.broadcast_to_room("tenant_1", "x", number)
            await server.broadcaster.broadcast_to_room("tenant_1", "x", number)
        assert await offsets(canary, 40) == list(range(1, 41))


# — rooms and handlers —


async def test_a_full_room_costs_only_who_does_not_get_in() -> None:
    async with arena(rooms={"max_users_per_room": 2}) as (server, _):
        async with member(server, "ann", "tenant_1") as ann, member(server, "bob", "tenant_1") as bob, member(server, "eve") as eve:
            answer = await eve.ask("join-room", "tenant_1")
            assert answer["data"]["code"] == "room_full"
            assert (await ann.ask("x", 1, room="tenant_1"))["event"] == "ack"
            assert (await bob.message("x"))["data"] == 1
            await echoes(eve)


class Unsendable:
    pass


def raising(error: BaseException) -> Callable[[Any, Any], Any]:
    def handler(socket: Any, data: Any) -> Any:
        raise error

    return handler


def raising_later(error: BaseException) -> Callable[[Any, Any], Any]:
    async def handler(socket: Any, data: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    return handler


FAILURES: dict[str, Callable[[Any, Any], Any]] = {
    "at once": raising(ZeroDivisionError("PAYLOAD")),
    "later": raising_later(ZeroDivisionError("PAYLOAD")),
    "out of memory": raising_later(MemoryError()),
    "recursion": raising(RecursionError()),
    "time-out of its own": raising_later(TimeoutError()),
    "cancelled": raising_later(asyncio.CancelledError()),
    "a value that cannot be sent": lambda socket, data: Unsendable(),
}


class TestHandlersThatFail:
    """Their failure is in the log, under the number that the client gets."""

    pytestmark: list[pytest.MarkDecorator] = []

    @pytest.fixture
    def clean_log(self) -> None:
        """Here the log is not clean."""

    @pytest.mark.parametrize("handler", FAILURES.values(), ids=FAILURES)
    async def test_a_handler_that_fails(self, handler: Any, caplog: pytest.LogCaptureFixture) -> None:
        async with arena() as (server, _), member(server, "ann") as ann:
            server.event("fail")(handler)
            answer = await ann.ask("fail", "PAYLOAD")
            assert answer["data"]["code"] == "internal" and answer["data"]["retryable"] is True
            assert "PAYLOAD" not in str(answer)
            incident = answer["data"]["id"]
            assert [record for record in caplog.records if incident in record.getMessage()]
            assert (await ann.ask("fail", 2))["data"]["code"] == "internal"
            await echoes(ann)

    async def test_a_connection_handler_that_fails_closes_its_socket(self) -> None:
        async with arena() as (server, canary):

            async def fail_for_nobody(socket: Any) -> None:
                if not socket.authenticated:
                    raise ZeroDivisionError

            server.on("connection", fail_for_nobody)
            async with upgraded(server.port) as connection:
                assert await connection.close_code() == 4004
            async with member(server, "ann") as ann:
                await echoes(ann)

    async def test_a_disconnect_handler_that_fails(self) -> None:
        async with arena() as (server, _):
            ends = Ends(server)
            server.on("disconnect", raising(ZeroDivisionError()))
            for number in range(2):
                async with upgraded(server.port):
                    pass
                await ends.until(number + 1)


async def test_a_handler_that_hangs_stops_its_own_connection_alone() -> None:
    async with arena(limits={**NO_PACE, "requests_waiting": 10}) as (server, canary), member(server, "ann") as ann:

        @server.event("hang")
        async def hang(socket: Any, data: Any) -> None:
            await asyncio.Event().wait()

        [socket] = server.pool.get_user_connections("ann")
        ann.say("hang")
        sending = asyncio.ensure_future(flood(ann, text({"event": "hang", "data": "*" * 1000}) * 10, 100_000_000))
        await until(lambda: len(socket.backlog or ()) >= 10)
        for _ in range(20):
            await echoes(canary)
        assert len(socket.backlog or ()) < 10 + websocket.READ_BYTES // 1000
        assert not sending.done()
        ann.reset()
        await sending


# — closing —


async def test_a_peer_that_does_not_answer_a_close() -> None:
    async with arena() as (server, _), upgraded(server.port) as silent:
        await silent.message("connected")
        [socket] = [one for one in server.pool if one.user is None]
        begin = time.perf_counter()
        socket.disconnect(4503, "go")
        assert await silent.close_code() == 4503
        await silent.ended()
        assert 1.0 < time.perf_counter() - begin < 3.0


async def test_a_peer_that_answers_is_not_waited_for() -> None:
    async with arena() as (server, _), upgraded(server.port) as polite:
        await polite.message("connected")
        [socket] = [one for one in server.pool if one.user is None]
        begin = time.perf_counter()
        socket.disconnect(4503, "go")
        assert await polite.close_code() == 4503
        await polite.send(closing(4503))
        assert await polite.ended() == b""
        assert time.perf_counter() - begin < 1.0


async def test_a_peer_that_sends_on_after_our_close(brief_close: None) -> None:
    async with arena() as (server, _), upgraded(server.port) as rude:
        await rude.message("connected")
        sending = asyncio.ensure_future(flood(rude, frame(TEXT, b"*" * 70_000), 10_000_000_000))
        assert await rude.close_code() == 1009, "the close frame is not eaten by a reset"
        await rude.ended()
        await sending


@pytest.mark.parametrize("begun", [b"", frame(TEXT, b"x", fin=False)], ids=["plain", "within a message"])
async def test_a_peer_that_closes_and_does_not_read(begun: bytes, brief_close: None) -> None:
    """What is buffered for it cannot be sent: the deadline of the close ends it, also beside the one of an unfinished message."""
    async with arena(limits={"outbox_bytes": None}) as (server, _), member(server, "ann", "tenant_1", receive_bytes=4096) as ann:
        [socket] = server.pool.get_user_connections("ann")
        ann.stop_reading()
        await ann.send(begun)
        while socket.transport.buffered() < 100_000:
            await server.broadcaster.broadcast_to_room("tenant_1", "x", "*" * 60_000)
            await asyncio.sleep(0)
        before = descriptors()
        ends = Ends(server)
        socket.transport.resume_reading()
        await ann.send(closing())
        await ends.until(1)
        await until(lambda: descriptors() < before)


async def test_stopping_does_not_wait_for_peers_that_never_answer() -> None:
    async with serving() as server, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(upgraded(server.port)) for _ in range(10)]
        stalled = await stack.enter_async_context(member(server, "ann", "tenant_1", receive_bytes=4096))
        stalled.stop_reading()
        idle = await stack.enter_async_context(raw(server.port))
        begin = time.perf_counter()
        await server.stop(drain=30)
        assert time.perf_counter() - begin < 3.0
        assert [await one.close_code() for one in silent] == [4001] * 10
        await idle.ended()
        assert len(server.pool) == 0


async def test_no_descriptor_is_left_behind() -> None:
    """Whatever the peers did, the server gave everything back."""
    async with arena() as (server, _):
        before = descriptors()
        for sent in BREAKS.values():
            async with raw(server.port) as connection:
                await connection.send(sent)
                connection.reset()
        await until(lambda: descriptors() <= before)
        assert len(server.pool) == 1
