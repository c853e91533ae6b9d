"""A server that means harm, or is broken, after its greeting: frames, pings and closes. The client ends it, holds little, and connects again.

Each of these servers keeps its connection open: nothing here may hang on its good will.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from aibos_realtime import errors
from aibos_realtime.client import websocket
from aibos_realtime.protocol.frames import PING, PONG, encode_frame
from tests.conformance.hostile import BOMB, DEFLATE, FOR_GOOD, GOODBYE, HELD, NO_FRAMES, SOON, WELCOME, answer, flood, good, peak, say, saying
from tests.network.clients import Record, make_client
from tests.network.scripted_server import Peer, ScriptedServer

pytestmark = pytest.mark.usefixtures("clean_log", "brief")


@pytest.mark.parametrize("name", NO_FRAMES)
async def test_frames_that_no_server_sends_end_the_connection_and_another_is_made(name: str, traced: None) -> None:
    """After a broken frame from a server that did not end the connection, a client was deaf for half a minute, and said it was connected."""
    code, data = NO_FRAMES[name]
    async with ScriptedServer(saying(data), good) as server:
        client = make_client(server.url, max_message_bytes=65536)
        record = Record(client)
        peak()
        async with client:
            async with asyncio.timeout(SOON):
                await record.until("reconnect")
            assert str(code) in record.of("disconnect")[0]
        assert peak() < HELD


@pytest.mark.parametrize("data", [GOODBYE, GOODBYE + say("tick") * 1000])
async def test_a_close_whose_connection_does_not_end(data: bytes, brief: None) -> None:
    """A server said that it moved and left the connection open: its client noticed half a minute later."""
    async with ScriptedServer(saying(data), good) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            async with asyncio.timeout(SOON):
                await record.until("reconnect")
            assert "4001" in record.of("disconnect")[0]


async def test_a_close_for_good_whose_connection_does_not_end() -> None:
    async with ScriptedServer(saying(FOR_GOOD)) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            async with asyncio.timeout(SOON):
                error = await record.until("error")
            assert isinstance(error, errors.ConnectionClosed) and error.close_code == 4503
            assert (client.state, server.attempts) == ("disconnected", 1)


async def test_pings_whose_pongs_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that pinged and read nothing made the client hold a pong for each: 130 MB after seven seconds."""

    async def step(peer: Peer) -> None:
        await peer.accept()
        await flood(peer, encode_frame(PING, b"p" * 125) * 500, 200_000_000)

    def measure(connection: websocket.BoundedConnection, data: bytes) -> None:
        take(connection, data)
        waiting.append(connection.transport.get_write_buffer_size())

    waiting: list[int] = []
    take = websocket.BoundedConnection.data_received
    monkeypatch.setattr(websocket.BoundedConnection, "data_received", measure)
    async with ScriptedServer(step, good) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            async with asyncio.timeout(25):  # the kernel's buffers fill first
                await record.until("reconnect")
        assert max(waiting) < websocket.UNREAD_PONGS + 256 * 1024  # and what one read of the loop holds


async def test_pings_whose_pongs_are_read_are_answered_for_as_long_as_they_come() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        hanging = asyncio.ensure_future(peer.hang())
        await flood(peer, encode_frame(PING, b"p" * 125) * 50, 3_000_000)
        await peer.write(say("done"))
        await hanging

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "done")
        async with client:
            await record.until("done")
        assert server.attempts == 1


async def test_a_bomb(traced: None) -> None:
    async def step(peer: Peer) -> None:
        await answer(peer, DEFLATE, "Sec-WebSocket-Protocol: aibos.realtime.v1")
        await peer.write(WELCOME + BOMB)
        await peer.stall()

    async with ScriptedServer(step, good) as server:
        client = make_client(server.url, compression="deflate", max_message_bytes=65536)
        record = Record(client)
        peak()
        async with client:
            await record.until("reconnect")
        assert "1009" in record.of("disconnect")[0] and peak() < HELD


async def test_a_message_that_comes_byte_by_byte() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        for byte in say("tick", "x" * 500):
            await peer.write(bytes((byte,)))
            await asyncio.sleep(0)
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            assert await record.until("tick") == "x" * 500


async def test_pongs_nobody_asked_for_are_passed_over() -> None:
    async with ScriptedServer(saying(encode_frame(PONG, b"p" * 125) * 10_000 + say("tick", 1))) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            assert await record.until("tick") == 1


async def test_closing_does_not_wait_for_a_server_that_reads_nothing() -> None:
    """A client whose server had stopped reading took 22 seconds to close: until its next heartbeat."""

    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        await client.connect()
        with pytest.raises(errors.Overloaded):
            while True:
                client.emit("tick", "x" * 60_000, room="r")
                await asyncio.sleep(0)
        begin = time.perf_counter()
        await client.close()
        assert time.perf_counter() - begin < SOON
