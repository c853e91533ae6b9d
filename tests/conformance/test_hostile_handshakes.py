"""Answers to a client's handshake that are none. The client sees so at once, says so in an error of its own, and tries again.

Each of these servers keeps its connection open: nothing here may hang on its good will.
"""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any

import pytest

from aibos_realtime import errors
from aibos_realtime.client import websocket
from tests.conformance.hostile import DEFLATE, NO_WEBSOCKET, SOON, WELCOME, answer, answering, good
from tests.network.clients import Record, make_client
from tests.network.scripted_server import Peer, ScriptedServer

pytestmark = pytest.mark.usefixtures("clean_log", "brief")


@pytest.mark.parametrize("name", NO_WEBSOCKET)
async def test_an_answer_that_is_no_handshake_is_an_error_at_once_and_tried_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was pointed at an SSH port waited ten seconds, and then said that nothing answers there."""
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 60.0)  # there is no close to wait for
    step, compression = NO_WEBSOCKET[name]
    async with ScriptedServer(step, good) as server:
        client = make_client(server.url, compression=compression)
        record = Record(client)
        begin = time.perf_counter()
        async with client:
            assert server.attempts == 2
            assert time.perf_counter() - begin < SOON
        (error,) = record.of("error")
        assert type(error) is errors.ConnectionError and error.retryable and "did not answer as a WebSocket server" in str(error)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """A client followed a redirect to another host, and later sent its next token there."""
    async with ScriptedServer(good) as other:
        location = f"ws://localhost:{other.port}/"
        async with ScriptedServer(answering(f"Location: {location}", "Content-Length: 0", line=f"HTTP/1.1 {status} There")) as server:
            client = make_client(server.url)
            with pytest.raises(errors.ConnectionError, match=f"answered {status} instead") as caught:
                await client.connect()
            assert not caught.value.retryable and str(other.port) not in str(caught.value)
            assert (server.attempts, other.attempts) == (1, 0)
            await client.close()


@pytest.mark.parametrize("body", [b"HTTP/1.1 200 OK\r\n\r\n", b"<html>", bytes(10)], ids=["a second answer", "a page", "zeros"])
async def test_a_101_with_a_body(body: bytes, brief: None) -> None:
    further = (f"Content-Length: {len(body)}", "Transfer-Encoding: chunked", "Sec-WebSocket-Protocol: aibos.realtime.v1")
    async with ScriptedServer(answering(*further, body=body), good) as server:
        async with make_client(server.url, connect_timeout=2):
            assert server.attempts == 2


async def test_a_101_that_comes_byte_by_byte() -> None:
    async def step(peer: Peer) -> None:
        written: list[bytes] = []
        write, peer.write = peer.write, _into(written)  # type: ignore[method-assign]
        await answer(peer, "Sec-WebSocket-Protocol: aibos.realtime.v1")
        for byte in b"".join(written) + WELCOME:
            await write(bytes((byte,)))
            await asyncio.sleep(0)
        await peer.hang()

    async with ScriptedServer(step) as server:
        async with make_client(server.url) as client:
            assert client.state == "connected"


def _into(written: list[bytes]) -> Any:
    async def write(data: bytes) -> None:
        written.append(data)

    return write


async def test_heads_with_bytes_of_chance() -> None:
    """A connection, or an error of the client's own: whatever stands in the answer."""

    async def step(peer: Peer) -> None:
        written: list[bytes] = []
        write, peer.write = peer.write, _into(written)  # type: ignore[method-assign]
        await answer(peer, DEFLATE + "; server_max_window_bits=12", "Sec-WebSocket-Protocol: aibos.realtime.v1")
        head = bytearray(b"".join(written))
        choose = Random(peer.attempt)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(head))
            kind = choose.randrange(3)
            head[at : at + (0 if kind == 0 else choose.randint(1, 9))] = choose.randbytes(choose.randint(1, 9)) if kind != 1 else b""
        await write(bytes(head) + WELCOME)
        await peer.end()

    async with ScriptedServer(*[step] * 150, good) as server:
        async with make_client(server.url, compression="deflate", connect_timeout=2):
            await server.until_attempts(151)
