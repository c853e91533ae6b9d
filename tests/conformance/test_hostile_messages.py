"""A server that speaks the protocol, and too much of it: what it makes the Python client do and hold is bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import errors
from aibos_realtime.protocol import client_membership
from aibos_realtime.testing.clock import ManualClock
from tests.conformance.hostile import GOODBYE, HELD, WELCOME, flood, good, peak, say, saying
from tests.network.clients import Record, make_client
from tests.network.scripted_server import GREETING, Peer, ScriptedServer

pytestmark = pytest.mark.usefixtures("clean_log", "brief")


async def test_what_comes_before_the_greeting_is_bounded_in_bytes(traced: None) -> None:
    """A server that sent 99 messages of 8 MB before its greeting made the client keep them all: 830 MB and more."""
    big = say("early", "x" * 1_000_000)
    async with ScriptedServer(saying(*[big] * 50, WELCOME, greets=False), good) as server:
        client = make_client(server.url, inbox_bytes=2_000_000)
        peak()
        async with client:
            assert server.attempts == 2
        assert peak() < 3 * HELD


async def test_a_server_that_asks_for_a_token_over_and_over_gets_one() -> None:
    """Each `token-expiring` began a task of its own and asked for a token: 80,000 of them at once, in four seconds."""

    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.write(say("token-expiring", {}) * 2000)
        message = await peer.expect("authenticate")
        await peer.answer(message, "authenticated", {"success": True})
        await peer.write(say("sync", ref="s1"))
        await peer.expect("ack")  # the client is done with the answer too
        for _ in range(3):
            await peer.write(say("token-expiring", {}) * 2000 + say("done"))
            await more.wait()
            more.clear()
        await peer.hang()

    async def ask() -> str:
        asked.append(len(asyncio.all_tasks()))
        if len(asked) == 3:
            await asyncio.Event().wait()
        return f"token_{len(asked)}"

    asked: list[int] = []
    more, clock = asyncio.Event(), ManualClock()
    async with ScriptedServer(step) as server:
        client = make_client(server.url, token=ask, clock=clock)
        client.on("sync", lambda: True)
        record = Record(client, "done")
        async with client:
            for count, expected in enumerate((2, 3, 3), start=1):  # one for the connection; one a second, and none while one is awaited
                await record.until("done", count)
                assert len(asked) == expected
                await clock.advance(1.5)
                more.set()
        assert max(asked) < 50


async def test_a_server_that_puts_a_client_into_room_after_room_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every room that a server named in an event was kept for good: 300,000 of them, and a recovery for each at the next connection."""

    monkeypatch.setattr(client_membership, "MOST_ROOMS", 200)
    events = b"".join(say("tick", room=f"room_{number}", offset=1, id="1") for number in range(210))
    async with ScriptedServer(saying(events), good) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            await record.until("reconnect")
            assert len(client._life.session.rooms) == 200
        (error,) = record.of("error")
        assert isinstance(error, errors.ProtocolError) and "rooms" in str(error)


async def test_a_room_name_of_megabytes_is_no_room() -> None:
    async with ScriptedServer(saying(say("tick", room="r" * 1_000_000, offset=1, id="1")), good) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            await record.until("reconnect")
            assert client._life.session.rooms == {}


async def test_calls_whose_answers_are_not_read_fill_no_more_than_the_buffer() -> None:
    """A server that called and read no answer made the client keep every answer: 110,000 of them in ten seconds."""

    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.write(b"".join(say("ask", ref=f"s{number}") for number in range(500)) + say("done"))
        await peer.stall()

    async with ScriptedServer(step) as server:
        client = make_client(server.url, buffer_size=20)
        client.on("ask", lambda data: "x" * 60_000)
        record = Record(client, "done")
        async with client:
            await record.until("done")
            assert client._life.session._ledger.waiting <= 20
        assert isinstance(record.of("error")[0], errors.Overloaded)


VALUES: list[Any] = [1e308, -1, [], "", {}]
NOTICES = {
    "error": say("error", {"code": "internal", "message": "x" * 1000}),
    "permission_denied": say("permission_denied", {"message": "x" * 1000}),
    "resync": say("resync", {"roomId": "r" * 500, "epoch": "e" * 500, "offset": 1}),
    "room-closed": say("room-closed", {"roomId": "r" * 500, "reason": "x" * 500}),
    "token-expiring": say("token-expiring", {"x": "y" * 1000}),
}


@pytest.mark.parametrize("name", NOTICES)
async def test_notices_that_a_busy_application_cannot_hear_end_the_connection(name: str, traced: None) -> None:
    """Errors, resyncs and closed rooms had no place in the inbox and no bound: 220 MB in eight seconds, while a callback was busy."""

    async def step(peer: Peer) -> None:
        await peer.accept()
        await flood(peer, NOTICES[name] * 100, 20_000_000)
        await peer.stall()

    busy = asyncio.Event()

    async def work() -> None:
        await busy.wait()

    async with ScriptedServer(step, good) as server:
        client = make_client(server.url, inbox_bytes=1_000_000)
        client.on("connect", work)
        peak()
        await client.connect()
        await server.until_attempts(2)
        assert peak() < 3 * HELD
        busy.set()
        await client.close()


async def test_notices_that_are_heard_end_nothing() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        for _ in range(40):
            await peer.write(NOTICES["error"] * 50)
            await peer.receive()
        await peer.write(say("done"))
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url, inbox_bytes=100_000)
        record = Record(client, "done")
        async with client:
            for count in range(1, 41):
                await record.until("error", 50 * count)
                client.emit("next", room="r")
            await record.until("done")
        assert server.attempts == 1


async def test_greetings_that_are_odd() -> None:
    """Whatever a greeting holds, the client connects or says that it is none of the protocol."""
    odd: list[Any] = [None, 1, [], "x", {}, {"streams": 7}, {"streams": {"a": 1}}, {"limits": "x"}, {"limits": {"messageBytes": -1}}]
    odd += [GREETING | {name: value} for name in ("user", "socketId", "heartbeat", "limits", "expiresAt", "streams") for value in VALUES]
    steps = [saying(say("connected", one), GOODBYE, greets=False) for one in odd]
    async with ScriptedServer(*steps, good) as server:
        client = make_client(server.url, reconnect_attempts=None)
        record = Record(client)
        connecting = asyncio.create_task(client.connect())
        done = asyncio.create_task(server.until_attempts(len(odd) + 1))
        await asyncio.wait([done], timeout=20)
        assert done.done(), (server.attempts, record.told[-3:])
        await connecting
        await client.close()
