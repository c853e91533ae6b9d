"""The HTTP API of one node speaks for all of them: what is asked of one is answered by every node, and done on every node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from aibos_realtime import ConnectionClosed, RealtimeClient, RealtimeServer
from tests.cluster.two_servers import two_servers
from tests.servers.redis import RedisServer

KEY = "rk_only_for_the_tests_of_two_servers"


class Both:
    """Two servers, clients on either, and what asks the first one."""

    def __init__(self, one: RealtimeServer, two: RealtimeServer, http: httpx.AsyncClient, clients: AsyncExitStack) -> None:
        self.one = one
        self.two = two
        self._http = http
        self._clients = clients

    async def connect(self, server: RealtimeServer, user: str, room: str) -> RealtimeClient:
        client = RealtimeClient(server.url, token=server.auth.issue(user_id=user, tenant_id="1"), reconnect=False)
        await client.connect()
        self._clients.push_async_callback(client.close)
        await client.join_room(room)
        return client

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._http.request(method, f"/api/v1{path}", json=body, headers={"X-API-Key": KEY})
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


@pytest.fixture
async def both(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Both]:
    async with (
        two_servers(redis_server.url, redis_prefix, http={"api_keys": [KEY]}) as (one, two),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", trust_env=False) as http,
        AsyncExitStack() as clients,
    ):
        yield Both(one, two, http, clients)


async def test_what_is_asked_of_one_is_answered_by_both(both: Both) -> None:
    await both.connect(both.one, "ann", "lobby")
    await both.connect(both.two, "bob", "lobby")
    page = await both.ask("GET", "/connections")
    assert {(found["userId"], found["node"]) for found in page["connections"]} == {("ann", "one"), ("bob", "two")}
    assert (page["total"], page["matching"]) == (2, 2)
    assert [found["userId"] for found in (await both.ask("GET", "/connections?search=bob"))["connections"]] == ["bob"]
    assert [node["name"] for node in (await both.ask("GET", "/nodes"))["nodes"]] == ["one", "two"]
    assert (await both.ask("GET", "/rooms/lobby"))["userCount"] == 2
    assert {member["userId"] for member in (await both.ask("GET", "/rooms/lobby/presence"))["members"]} == {"ann", "bob"}


async def test_what_is_asked_of_one_is_done_on_both(both: Both) -> None:
    bob = await both.connect(both.two, "bob", "lobby")
    receipt = await both.ask("POST", "/publish", {"room": "lobby", "event": "note", "data": 1})
    (event,) = (await both.ask("GET", "/rooms/lobby/history"))["events"]
    assert event["offset"] == receipt["offset"] == 1
    await both.ask("POST", "/rooms/lobby/kick", {"userId": "bob"})
    assert (await both.ask("GET", "/rooms/lobby/presence"))["members"] == []
    (found,) = (await both.ask("GET", "/connections?userId=bob"))["connections"]
    assert await both.ask("POST", "/disconnect", {"userId": "bob"}) == {"count": 1}
    with pytest.raises(ConnectionClosed):
        await bob.join_room("lobby")
    life = await both.ask("GET", f"/connections/{found['id']}")
    assert life["connection"] is None and [act["node"] for act in life["acts"]][-1:] == ["two"]


async def test_an_answer_larger_than_a_message_of_the_bus_comes_all_the_same(both: Both) -> None:
    bob = await both.connect(both.two, "bob", "lobby")
    for number in range(100):
        await bob.join_room(f"{number:03}" + "x" * 120)
    for number in range(300):
        both.two._parts.audit.note("requeue", user_id="x" * 120, room_id=f"{number:03}" + "y" * 120)
    acts = (await both.ask("GET", "/acts?limit=1000"))["acts"]
    assert len([act for act in acts if act["act"] == "requeue" and act["node"] == "two"]) == 300
    assert (await both.ask("GET", "/connections"))["connections"][0]["roomCount"] == 101
