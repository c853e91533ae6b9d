"""Rights that are taken on one node from somebody who is connected to another: how soon they are gone, and that they are gone everywhere.

The order comes over HTTP to the one node; the connection, and who writes to the room all the while, are on the other.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aibos_realtime import AuthenticationError, RealtimeServer
from tests.attacks.arena import Toll
from tests.cluster.two_servers import two_servers
from tests.network.raw import Raw, member_of, upgraded
from tests.servers.redis import RedisServer

ROUNDS = 15
SOON = 1.0
"""Seconds within which an order takes effect on every node."""
OPTIONS: dict[str, Any] = {
    "authorization": {"roles": {"member": {"board": ["read", "write"]}}},
    "limits": {"handshakes_per_second_per_address": None, "handshakes_per_second": None, "publishes_per_second": None, "messages_per_second": None}
    | {"failed_authentications_per_minute": None},
}

Pair = tuple[RealtimeServer, RealtimeServer]
Order = Callable[[RealtimeServer, str], Awaitable[object]]


async def kick(node: RealtimeServer, user_id: str) -> None:
    await node.rooms.kick("board", user_id)


async def demote(node: RealtimeServer, user_id: str) -> None:
    assert await node._operation.operations._set_role(user_id, "user") == 1


async def revoke(node: RealtimeServer, user_id: str) -> None:
    await node.auth.revoke(user_id=user_id)


@asynccontextmanager
async def writer(node: RealtimeServer) -> AsyncIterator[list[float]]:
    """Somebody who writes to the room without a pause; the times at which he began each event, by its data."""
    times: list[float] = []
    async with member_of(node.port, node.auth.issue(user_id="ann", role="member"), "board") as ann:

        async def write() -> None:
            while True:
                times.append(time.perf_counter())
                await ann.ask("x", len(times) - 1, room="board")

        writing = asyncio.ensure_future(write())
        try:
            yield times
        finally:
            writing.cancel()
            await asyncio.wait((writing,))


async def _read_out(eve: Raw) -> tuple[int, float]:
    """The last event that came before the end of what he may have, and when he was told of that end."""
    last = -1
    while True:
        opcode, payload = await eve.frame()
        if opcode == 8 or b'"room-closed"' in payload:
            return last, time.perf_counter()
        if b'"x"' in payload:
            last = int(payload.partition(b'"data":')[2].partition(b",")[0])


@pytest.mark.parametrize("order", [kick, demote, revoke])
async def test_an_order_of_another_node_takes_effect_at_once(redis_server: RedisServer, redis_prefix: str, order: Order, tolls: list[Toll]) -> None:
    async with two_servers(redis_server.url, redis_prefix, **OPTIONS) as (one, two), writer(one) as times:
        took = []
        for number in range(ROUNDS):
            token = one.auth.issue(user_id=f"eve-{number}", role="member")
            async with member_of(one.port, token, "board") as eve:
                await eve.message("x")
                begin = time.perf_counter()
                reading = asyncio.ensure_future(_read_out(eve))
                await order(two, f"eve-{number}")
                done = time.perf_counter()
                last, told = await reading
                took.append(told - begin)
                assert last < len(times) and times[last] <= done, "an event was begun after the order was carried out, and reached him"
                await _try_again(one, two, eve, token, order)
        name = f"times until a {order.__name__} by another node took effect"
        tolls.append(Toll(name, 1, 0, 0.0, ROUNDS, statistics.median(took), sorted(took)[-2], max(took)))
        assert max(took) <= SOON, took


async def _try_again(one: RealtimeServer, two: RealtimeServer, eve: Raw, token: str, order: Order) -> None:
    """What he can still do: of a kick, come back, as he has the right; else nothing, on no node."""
    if order is kick:
        eve.say("ping", ref="mark")
        assert (await eve.message())["event"] == "pong", "nothing of the room comes any more"
    elif order is demote:
        for event, data in (("join-room", {"roomId": "board", "recover": {"epoch": "e", "offset": 0}}), ("history", {"roomId": "board"})):
            answer = await eve.ask(event, data)
            assert answer["data"]["code"] == "permission_denied"
        assert (await eve.ask("x", 1, room="board"))["data"]["code"] == "permission_denied"
        assert (await eve.ask("presence", "board"))["data"]["code"] == "permission_denied"
    else:
        for node in (one, two):
            with pytest.raises(AuthenticationError):
                await node.auth.identify(token)
            async with upgraded(node.port) as again:
                await again.message("connected")
                again.say("authenticate", token)
                assert await again.close_code() == 4500
