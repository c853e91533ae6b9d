"""Clocks that differ: between who issues tokens and the node, and between a node and itself an hour ago."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import AuthenticationError, WebSocketAuth
from aibos_realtime.hub.socket import Socket
from aibos_realtime.server.handshake import Arrival
from aibos_realtime.testing import ManualClock, MemoryClient
from aibos_realtime.testing.server import MemoryServer, memory_server
from aibos_realtime.transport.memory import MemoryTransport

SECRET = "the secret of these tests alone, of 32 bytes or more"
GRACE = 25.0


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    no_pulse = {"heartbeat_interval": None, "heartbeat_timeout": None}
    async with memory_server(clock=ManualClock(), authentication={"jwt_secret": SECRET}, connections=no_pulse) as net:
        yield net


def clock_of(net: MemoryServer) -> ManualClock:
    clock = net.server._clock
    assert isinstance(clock, ManualClock)
    return clock


def issue(net: MemoryServer, skew: float, seconds: float) -> str:
    """A token of somebody whose clock is ahead of the node's by `skew` seconds, or behind it."""
    return WebSocketAuth(jwt_secret=SECRET, clock=ManualClock(clock_of(net).now() + skew)).issue(user_id="ann", expires_in=seconds)


def let_in(net: MemoryServer, token: str) -> MemoryClient:
    """As the handshake does with a token in the header."""
    identity = net.server.auth.identify_now(token)
    transport = MemoryTransport(remote_address="192.0.2.1")
    socket: Socket = net.server.sockets.welcome(Arrival("192.0.2.1", "aibos.realtime.v1", b"", identity=identity), transport)
    return MemoryClient(transport.far, socket, is_binary=False)


@pytest.mark.parametrize(
    ("skew", "seconds", "is_good"),
    [(0.0, 60.0, True), (5.0, 60.0, True), (30.0, 60.0, False), (300.0, 600.0, False), (-5.0, 60.0, True), (-30.0, 600.0, True),
     (-300.0, 600.0, True), (-5.0, 2.0, True), (-30.0, 15.0, False), (-300.0, 60.0, False)],
)  # fmt: skip
async def test_tokens_of_a_clock_that_differs(net: MemoryServer, skew: float, seconds: float, is_good: bool) -> None:
    """Ten seconds count for nothing; a token from further in the future is none, and so is one that ended further in the past."""
    if not is_good:
        with pytest.raises(AuthenticationError):
            net.server.auth.identify_now(issue(net, skew, seconds))
        return
    client = let_in(net, issue(net, skew, seconds))
    left = max(seconds + skew + GRACE, 0.0)
    await clock_of(net).advance(left - 1.0)
    assert client.socket.is_open
    await clock_of(net).advance(4.0)
    assert await client.closed() == 4005


@pytest.mark.parametrize("skew", [-9.0, -5.0, -1.0])
async def test_an_issuer_whose_clock_is_behind_is_not_asked_without_end(net: MemoryServer, skew: float) -> None:
    """His tokens of a second were good, and over when they came: each client was told so every second, and asked him for the next one as often."""
    client = let_in(net, issue(net, skew, 1.0))
    asked = 0
    for _ in range(300):
        await clock_of(net).advance(1.0)
        for message in await client.take_all():
            if message["event"] == "token-expiring":
                asked += 1
                client.send("authenticate", issue(net, skew, 1.0))
    assert client.socket.is_open, "he was told in time"
    assert 300 / GRACE < asked <= 300 / 7


@pytest.mark.parametrize("steps", [[-3600.0], [3600.0], [-3600.0, 3600.0], [-300.0, -300.0], [86_400.0]])
async def test_a_step_of_the_wall_clock_neither_prolongs_nor_ends_a_connection(net: MemoryServer, steps: list[float]) -> None:
    clock = clock_of(net)
    clients: dict[str, Any] = {"kept": let_in(net, issue(net, 0.0, 60.0))}
    clients["refreshed"] = let_in(net, issue(net, 0.0, 60.0))
    for step in steps:
        clock.jump(step)
        await clock.advance(10.0)
    clients["refreshed"].send("authenticate", issue(net, 0.0, 120.0))
    await clock.advance(60.0 + GRACE - 10.0 * len(steps) - 1.0)
    assert clients["kept"].socket.is_open
    await clock.advance(3.0)
    assert await clients["kept"].closed() == 4005
    assert clients["refreshed"].socket.is_open
    await clock.advance(120.0)
    assert await clients["refreshed"].closed() == 4005


async def test_nothing_is_delivered_after_the_end_of_a_token_and_its_grace(net: MemoryServer) -> None:
    client = let_in(net, issue(net, 0.0, 3.0))
    await clock_of(net).advance(4.0 + GRACE + 1.0)
    await net.server.broadcaster.broadcast_to_all("note", 1)
    events = [message["event"] for message in await client.take_all()]
    assert events == ["connected", "token-expiring"] and client.end.close_code == 4005
