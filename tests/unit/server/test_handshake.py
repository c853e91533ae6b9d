"""Who may open a WebSocket: origin, pace, capacity, token, in this order, each refusal counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import pytest

from aibos_realtime import RealtimeServer
from aibos_realtime.server.handshake import Arrival, Handshake
from aibos_realtime.server.upgrade import Upgrade
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.transport.http import Acceptance, HttpLimits, Refusal, UpgradeRequest
from aibos_realtime.transport.memory import MemoryTransport

from .test_upgrade import upgrade

KEY: dict[str, Any] = {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}


class Door:
    """A server's handshake, with a clock of ours."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        given: dict[str, Any] = {"authentication": KEY, "clock": self.clock, "persistence": {"database": {"url": "memory://"}}} | options
        self.server = RealtimeServer(**given)
        self.gate: Handshake = self.server._parts.handshake
        self.gate.is_open = True

    def admit(self, *headers: tuple[bytes, bytes], **request: Any) -> Refusal | Arrival | Awaitable[Refusal | Arrival]:
        return self.gate.admit(upgrade(*headers, **request))

    def status(self, *headers: tuple[bytes, bytes], **request: Any) -> int:
        """101, or the refusal's status."""
        outcome = self.admit(*headers, **request)
        assert not isawaitable(outcome)
        return outcome.status if isinstance(outcome, Refusal) else 101

    def token(self, **user: Any) -> bytes:
        return self.server.auth.issue(**{"user_id": "ann"} | user).encode()

    @property
    def refused(self) -> dict[int, int]:
        return dict(self.server.metrics.handshakes_refused)


def test_without_a_token_one_may_come_in_and_authenticate_later() -> None:
    outcome = Door().admit((b"user-agent", b"x"))
    assert isinstance(outcome, Arrival) and (outcome.identity, outcome.rejection, outcome.address) == (None, None, "192.0.2.1")
    assert outcome.subprotocol == "aibos.realtime.v1" and b"user-agent: x" in outcome.headers


def test_a_token_in_the_header_or_beside_the_subprotocol() -> None:
    door = Door()
    for header in ((b"authorization", b"Bearer " + door.token()), (b"sec-websocket-protocol", b"aibos.realtime.v1, bearer." + door.token())):
        outcome = door.admit(header)
        assert isinstance(outcome, Arrival) and outcome.identity is not None and outcome.identity.user.id == "ann"
        assert b"eyJ" not in outcome.headers


def test_a_bad_token_is_a_401_where_it_can_be_read_and_else_a_close(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    door = Door()
    outcome = door.admit((b"authorization", b"Bearer hunter2"))
    assert isinstance(outcome, Refusal) and outcome.status == 401 and ("WWW-Authenticate", "Bearer") in outcome.headers
    outcome = door.admit((b"sec-websocket-protocol", b"aibos.realtime.v1, bearer.hunter2"))
    assert isinstance(outcome, Arrival) and outcome.rejection == 4500 and outcome.identity is None
    assert door.refused == {401: 1} and "hunter2" not in caplog.text


async def test_five_bad_tokens_a_minute_then_the_refusal_comes_a_second_later() -> None:
    door = Door()
    bad = (b"authorization", b"Bearer nonsense")
    assert [door.status(bad) for _ in range(5)] == [401] * 5
    held = asyncio.ensure_future(door.admit(bad))  # type: ignore[arg-type]
    assert door.status((b"authorization", b"Bearer " + door.token())) == 101, "a good token is never delayed"
    assert door.status(bad, peer_address="192.0.2.2") == 401, "nor another address"
    await door.clock.advance(0.9)
    assert not held.done()
    await door.clock.advance(0.1)
    assert isinstance(await held, Refusal)
    await door.clock.advance(60)
    assert door.status(bad) == 401


def test_origins() -> None:
    door = Door(cors={"origin": ["https://app.example.com"]})
    for origin, status in ((b"https://app.example.com", 101), (b"https://evil.example", 403), (b"null", 403), (b"", 403)):
        assert door.status((b"origin", origin)) == status
    assert door.status() == 101, "no origin is no browser"
    same = Door()
    assert same.status((b"origin", b"http://app.example.com")) == 101 and same.status((b"origin", b"http://other.example")) == 403


def test_the_origin_is_checked_before_the_token() -> None:
    assert Door().status((b"origin", b"https://evil.example"), (b"authorization", b"Bearer x")) == 403


def test_paths_and_a_gate_that_is_closed() -> None:
    door = Door()
    assert [door.status(path=path) for path in ("/", "/ws", "/other", "/ws/")] == [101, 101, 404, 404]
    door.gate.is_open = False
    outcome = door.admit()
    assert isinstance(outcome, Refusal) and outcome.status == 503 and ("Retry-After", "5") in outcome.headers


def test_handshakes_per_address() -> None:
    door = Door()
    assert [door.status() for _ in range(51)] == [101] * 50 + [429]
    assert door.status(peer_address="192.0.2.2") == 101 and door.refused == {429: 1}


async def test_handshakes_per_address_come_back_with_time() -> None:
    door = Door(limits={"handshakes_per_second_per_address": 1, "handshakes_burst_per_address": 1})
    assert door.status() == 101
    outcome = door.admit()
    assert isinstance(outcome, Refusal) and (outcome.status, outcome.code, dict(outcome.headers)["Retry-After"]) == (429, "rate_limited", "1")
    await door.clock.advance(1)
    assert door.status() == 101


def test_handshakes_per_node() -> None:
    door = Door()
    statuses = [door.status(peer_address=f"10.0.{number // 250}.{number % 250}") for number in range(401)]
    assert statuses == [101] * 400 + [429]


def test_connections_per_address_behind_a_proxy_and_not() -> None:
    door = Door(limits={"connections_per_address": 2}, trusted_proxies=["10.0.0.0/8"])
    for _ in range(2):
        door.gate.entered("203.0.113.9")
    behind = (b"x-forwarded-for", b"203.0.113.9")
    assert door.status(behind, peer_address="10.0.0.1") == 429
    assert door.status(behind, peer_address="192.0.2.1") == 101 and door.status((b"x-forwarded-for", b"203.0.113.8"), peer_address="10.0.0.1") == 101
    door.gate.left("203.0.113.9")
    assert door.status(behind, peer_address="10.0.0.1") == 101
    door.gate.left("203.0.113.9")
    assert not door.gate._connections


async def test_a_full_server_says_503() -> None:
    door = Door(connections={"max_connections": 1})
    door.server.sockets.welcome(Arrival("192.0.2.1", "aibos.realtime.v1", b""), MemoryTransport(remote_address="192.0.2.1"))
    outcome = door.admit()
    assert isinstance(outcome, Refusal) and (outcome.status, outcome.code) == (503, "overloaded") and dict(outcome.headers)["Retry-After"]
    await door.server.open()
    await door.server.stop(drain=0)


def test_limits_that_are_off() -> None:
    off = dict.fromkeys(("handshakes_per_second", "handshakes_per_second_per_address", "connections_per_address", "handshake_seconds"))
    door = Door(limits=off, connections={"connection_timeout": None})
    assert [door.status() for _ in range(1000)] == [101] * 1000 and door.gate.http_limits.handshake_seconds is None


def test_what_the_port_is_told() -> None:
    assert Door().gate.http_limits == HttpLimits(8192, 64, 8192, 16384, 10.0)
    assert Door(connections={"connection_timeout": 3}).gate.http_limits.handshake_seconds == 3


def test_the_verdict_on_the_wire() -> None:
    door = Door(compression={"enabled": True})
    offers = ((b"sec-websocket-protocol", b"chat, aibos.realtime.v1.msgpack"), (b"sec-websocket-extensions", b"permessage-deflate"))
    verdict = door.gate.decide(upgrade(*offers).request)
    assert isinstance(verdict, Acceptance)
    headers = dict(verdict.headers)
    assert headers["Sec-WebSocket-Protocol"] == "aibos.realtime.v1.msgpack" and headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "permessage-deflate" in headers["Sec-WebSocket-Extensions"]
    plain = Door().gate.decide(upgrade(*offers[1:]).request)
    assert isinstance(plain, Acceptance) and dict(plain.headers).keys() == {"Sec-WebSocket-Accept"}, "compression is off by default"


def test_a_version_that_we_do_not_speak_is_let_in_to_be_told() -> None:
    outcome = Door().admit((b"sec-websocket-protocol", b"aibos.realtime.v9"))
    assert isinstance(outcome, Arrival) and outcome.rejection == 4506


def test_a_token_in_a_header_of_ones_own_is_not_kept() -> None:
    door = Door(authentication=KEY | {"token_header": "X-Auth", "token_prefix": ""})
    outcome = door.admit((b"x-auth", door.token()))
    assert isinstance(outcome, Arrival) and outcome.identity is not None and b"eyJ" not in outcome.headers


async def test_a_request_of_any_shape_raises_nothing() -> None:
    door = Door()
    for headers in ([], [(b"host", b"\xff")], [(b"sec-websocket-extensions", b"permessage-deflate; x=\xff")], [(b"authorization", b"\xff\xfe")]):
        request = UpgradeRequest("GET", "/\ud800", b"\xff", "1.1", headers, "not an address", False)
        outcome = door.gate.admit(Upgrade(request))
        assert isinstance(outcome, Refusal)
    await settle()


async def test_refusals_are_noted_with_their_address_and_a_burst_of_them_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aibos_realtime.handshake")
    door = Door()
    audit = door.server._parts.audit
    door.gate.is_open = False
    assert {door.status() for _ in range(100)} == {503} and door.refused == {503: 100}
    assert [record.getMessage()[:30] for record in caplog.records] == ["a handshake was refused: 503 T"]
    (entry,) = audit.latest()
    assert (entry.act, entry.code, entry.address, entry.reason, entry.count) == ("refuse", 503, "192.0.2.1", "overloaded", 1)
    await door.clock.advance(1.0)
    assert [entry.count for entry in audit.latest()] == [99, 1]
    door.gate.refused(431)  # before it could be decided
    assert audit.latest()[0].code == 431


def test_a_bad_token_is_noted_once() -> None:
    door = Door()
    door.status((b"authorization", b"Bearer nonsense"))
    door.clock._monotonic += 2
    door.admit((b"sec-websocket-protocol", b"aibos.realtime.v1, bearer.nonsense"))
    audit = door.server._parts.audit
    assert [(entry.act, entry.code, entry.address) for entry in audit.latest()] == [("refuse", 401, "192.0.2.1")]
    assert audit._held[("refuse", 401)] is not None and door.server.metrics.authentications_failed == 2
