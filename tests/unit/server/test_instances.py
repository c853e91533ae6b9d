"""Where else clients can connect: who may ask, what is told, and what is said when it is not known."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from aibos_realtime import BrokerUnavailable, WebSocketAuth
from aibos_realtime.auth.origin import OriginPolicy
from aibos_realtime.backends.nodes import NodeRecord
from aibos_realtime.cluster.scaling import ScalingManager
from aibos_realtime.server.http import HttpApp
from aibos_realtime.server.instances import INSTANCES_PATH, InstancesRoute
from aibos_realtime.server.upgrade import TrustedProxies
from aibos_realtime.testing.clock import ManualClock

SECRET = "only-for-the-tests-of-the-instances"
ORIGIN = (b"origin", b"https://app.example.com")


class Register:
    """A register in memory. `error`: it cannot be read."""

    def __init__(self, *records: NodeRecord) -> None:
        self.records = list(records)
        self.error: Exception | None = None
        self.readings = 0

    async def list_instances(self) -> list[NodeRecord]:
        self.readings += 1
        if self.error is not None:
            raise self.error
        return self.records


def record(name: str, **told: Any) -> NodeRecord:
    given: dict[str, Any] = {
        "id": name,
        "name": name,
        "url": f"ws://{name}:3001",
        "state": "up",
        "version": "1",
        "started_at": 0.0,
        "seen_at": 0.0,
    } | told
    return NodeRecord(**given)


class Caller:
    def __init__(self, *records: NodeRecord, **auth: Any) -> None:
        self.clock = ManualClock()
        self.auth = WebSocketAuth(jwt_secret=SECRET, clock=self.clock, **auth)
        self.register = Register(*records)
        self.failed: list[str] = []
        scaling = ScalingManager(nodes=self.register, clock=self.clock)  # type: ignore[arg-type]
        route = InstancesRoute(scaling, auth=self.auth, proxies=TrustedProxies(["10.0.0.1"]), penalty=self.penalty, clock=self.clock)
        origins = OriginPolicy({"origin": ["https://app.example.com"], "credentials": True})
        self.app = HttpApp(status=lambda: (True, "ok"), websocket_paths=("/",), origins=origins, routes={INSTANCES_PATH: route})

    def penalty(self, address: str) -> float:
        self.failed.append(address)
        return 1.0 if len(self.failed) > 1 else 0.0

    async def ask(
        self, *headers: tuple[bytes, bytes], token: str | None = None, method: str = "GET", query: bytes = b""
    ) -> tuple[int, Any, dict[bytes, bytes]]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        async def receive() -> Any:
            raise AssertionError("no body is read")

        given = [(b"host", b"a.example"), *headers] + ([(b"authorization", f"Bearer {token}".encode())] if token is not None else [])
        scope = {"type": "http", "path": INSTANCES_PATH, "method": method, "headers": given, "query_string": query, "scheme": "http"}
        await self.app(scope | {"client": ("10.0.0.1", 1234)}, receive, send)
        body = said[1]["body"]
        return said[0]["status"], msgspec.json.decode(body) if body else None, dict(said[0]["headers"])

    def token(self, role: str = "guest") -> str:
        return self.auth.issue(user_id="user_1", role=role)


async def test_the_least_loaded_comes_first_and_what_drains_is_left_out() -> None:
    busy, idle = record("busy", connections=9, load=0.5, weight=2), record("idle", connections=1)
    caller = Caller(busy, record("leaving", state="draining"), idle, record("told", role="instance", weight=3))
    status, body, headers = await caller.ask(ORIGIN, token=caller.token())
    assert status == 200 and headers[b"access-control-allow-origin"] == ORIGIN[1] and headers[b"cache-control"] == b"no-store"
    assert body == {"instances": [
        {"url": "ws://told:3001", "name": "told", "connections": None, "load": 0.0, "weight": 3},
        {"url": "ws://idle:3001", "name": "idle", "connections": 1, "load": 0.0, "weight": 1},
        {"url": "ws://busy:3001", "name": "busy", "connections": 9, "load": 0.5, "weight": 2},
    ]}  # fmt: skip


async def test_a_head_and_a_preflight() -> None:
    caller = Caller(record("web-1"))
    status, body, headers = await caller.ask(token=caller.token(), method="HEAD")
    assert (status, body) == (200, None) and int(headers[b"content-length"]) > 50
    status, _, headers = await caller.ask(ORIGIN, method="OPTIONS")
    assert status == 204 and b"Authorization" in headers[b"access-control-allow-headers"]
    assert (await caller.ask(method="POST", token=caller.token()))[0] == 405


@pytest.mark.parametrize("token", [None, "", "abc"])
async def test_without_a_valid_token_nothing_is_told(token: str | None) -> None:
    caller = Caller(record("web-1"))
    status, body, headers = await caller.ask(token=token)
    assert (status, body["code"], headers[b"www-authenticate"]) == (401, "not_authenticated", b"Bearer")
    assert caller.register.readings == 0 and len(caller.failed) == (token is not None)


async def test_a_token_that_expired_or_was_revoked_is_answered_as_any_other() -> None:
    caller = Caller(record("web-1"))
    token = caller.token()
    await caller.auth.revoke(user_id="user_1")
    revoked = await caller.ask(token=token)
    wrong = await Caller(record("web-1")).ask(token="abc")
    assert revoked == wrong


async def test_failed_authentications_are_counted_by_the_address_of_the_client_and_held_back() -> None:
    caller = Caller()
    assert (await caller.ask((b"x-forwarded-for", b"203.0.113.9"), token="abc"))[0] == 401
    answer = asyncio.ensure_future(caller.ask(token="abc"))
    await caller.clock.until_planned(1.0)
    assert not answer.done() and caller.failed == ["203.0.113.9", "10.0.0.1"]
    await caller.clock.advance(1.0)
    assert (await answer)[0] == 401


async def test_a_token_in_the_query_where_that_is_switched_on() -> None:
    caller = Caller(record("web-1"), query_parameter="token")
    assert (await caller.ask(query=b"token=" + caller.token().encode()))[0] == 200
    strict = Caller(record("web-1"))
    assert (await strict.ask(query=b"token=" + strict.token().encode()))[0] == 401


async def test_a_path_that_was_excluded_from_authentication() -> None:
    assert (await Caller(record("web-1"), exclude_paths=[INSTANCES_PATH]).ask())[0] == 200


async def test_a_register_that_cannot_be_read() -> None:
    caller = Caller(record("web-1"))
    caller.register.error = BrokerUnavailable("Redis does not answer: try again later.")
    status, body, headers = await caller.ask(token=caller.token())
    assert (status, body["code"], body["retryable"], headers[b"retry-after"]) == (503, "unavailable", True, b"1")
    caller.register.error = None
    assert (await caller.ask(token=caller.token()))[0] == 200, "a failure is not remembered"


async def test_one_reading_serves_everybody_for_a_second() -> None:
    caller = Caller(record("web-1"))
    for _ in range(3):
        await caller.ask(token=caller.token())
    assert caller.register.readings == 1
    await caller.clock.advance(1.0)
    await caller.ask(token=caller.token())
    assert caller.register.readings == 2
