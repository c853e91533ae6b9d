"""What a crowd of clients does to servers in trouble. `python -m tests.model.crowd --clients 10000` shows the figures."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.errors import AuthenticationError, ConnectionError, PermissionDenied, ProtocolError
from aibos_realtime.protocol.close_codes import CloseCode
from tests.model.crowd import (
    Crowd,
    accept,
    ask_to_wait,
    bound_of,
    close_at_once,
    correlation,
    count_attempts,
    distance_from_uniform,
    fullest_bucket,
    refuse,
    watch_outage,
)

MANY = 400
HAMMERING = 30
"""Attempts of one client in two minutes. On average there are 14: delays of 2.5, 5 and then 10 seconds."""


async def test_a_crowd_that_was_cut_off_comes_back_spread_out() -> None:
    delays, last = await watch_outage(MANY, 30.0)
    assert last <= 30.0 + 20.1
    for wave, ceiling in enumerate((5.0, 10.0, 20.0)):
        wide = [one[wave] for one in delays if len(one) > wave]
        assert distance_from_uniform(wide, 0.0, ceiling) < bound_of(len(wide), ceiling)
        assert fullest_bucket(wide, ceiling / 20, ceiling) <= 3
    assert abs(correlation([one[0] for one in delays], [one[1] for one in delays])) < 4 / MANY**0.5


@pytest.mark.parametrize(
    "serve",
    [refuse, close_at_once(4015), close_at_once(1006), close_at_once(4001, says={"delayMin": 0, "delayMax": 0, "reason": "x"})],
    ids=["refused", "overloaded", "cut", "come back at once"],
)
async def test_a_server_in_trouble_is_not_hammered(serve: Any) -> None:
    """The last kind was asked without a pause, thousands of times a second: each close said that the client might come back at once."""
    found = await count_attempts(60, serve, 120.0)
    assert 10 < sum(found) / len(found) < 18
    assert max(found) < HAMMERING


async def test_nobody_comes_before_the_server_asked_for_it() -> None:
    crowd = Crowd(100, 1, serve=ask_to_wait(7.0))
    with crowd.dialled():
        await crowd.start()
        await crowd.clock.advance(60.0)
        delays = [b - a for tries in crowd.attempts for a, b in zip(tries, tries[1:], strict=False)]
        await crowd.stop()
    assert min(delays) >= 7.0
    first = [tries[1] - tries[0] - 7.0 for tries in crowd.attempts]
    assert distance_from_uniform(first, 0.0, 5.0) < bound_of(100, 5.0)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CloseCode.TOKEN_INVALID, AuthenticationError),
        (CloseCode.BAD_REQUEST, ProtocolError),
        (CloseCode.NOT_AUTHENTICATED, AuthenticationError),
        (CloseCode.DISCONNECTED, ConnectionError),
        (CloseCode.CONNECTION_LIMIT, ConnectionError),
        (CloseCode.UNSUPPORTED_VERSION, ProtocolError),
        (CloseCode.PERMISSION_DENIED, PermissionDenied),
        (CloseCode.TOO_MANY_ERRORS, ProtocolError),
        (4888, ConnectionError),
    ],
)
async def test_after_a_final_close_there_is_no_further_attempt(code: int, kind: type[Exception]) -> None:
    """With a function for tokens there is one more where the token was at fault, and no more."""
    for token, attempts in ((None, 1), (lambda: "token", 2 if kind is AuthenticationError else 1)):
        crowd = Crowd(1, 1, serve=close_at_once(code), token=token)
        with crowd.dialled():
            await crowd.start()
            await crowd.clock.advance(120.0)
            assert len(crowd.attempts[0]) == attempts
            assert crowd.clients[0].state == "disconnected"
            await crowd.stop()


class Balancer:
    """One instance, and what is said of it."""

    def __init__(self) -> None:
        self.asked = 0
        self.down: list[object] = []

    async def get_next_instance(self) -> str:
        self.asked += 1
        return "ws://one.example"

    def mark_down(self, instance: object) -> None:
        self.down.append(instance)


async def test_a_token_endpoint_in_trouble_is_not_hammered_and_no_server_is_blamed() -> None:
    """The endpoint of a user's tokens was down, and his client told its load balancer of one server after the other that it did not answer."""
    calls: list[float] = []

    def ask() -> str:
        calls.append(crowd.clock.monotonic())
        if len(calls) < 10:
            raise OSError("the endpoint is down")
        return "token"

    balancer = Balancer()
    crowd = Crowd(1, 3, serve=accept, token=ask, url=balancer)
    with crowd.dialled():
        await crowd.start()
        await crowd.clock.advance(300.0)
        assert crowd.clients[0].state == "connected"
        await crowd.stop()
    assert len(calls) == 10 and len(crowd.attempts[0]) == 1
    assert (balancer.asked, balancer.down) == (1, [])
