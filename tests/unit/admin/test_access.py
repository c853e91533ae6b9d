"""Who asks over HTTP, and how long somebody waits who tries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import AuthenticationError, WebSocketAuth
from aibos_realtime.admin.access import Access
from aibos_realtime.auth.operators import HttpOptions, Operators
from aibos_realtime.testing.clock import ManualClock

KEY = "rk_only_for_the_tests_of_the_access"


class Door:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.failed: list[str] = []
        self.auth = WebSocketAuth(jwt_secret="only-for-the-tests-of-the-access", clock=self.clock)
        operators = Operators(HttpOptions(api_keys=[KEY]), auth=self.auth)
        self.access = Access(operators, address_of=lambda scope: scope["client"][0], penalty=self._penalty, clock=self.clock)

    def _penalty(self, address: str) -> float:
        self.failed.append(address)
        return 1.0 if len(self.failed) > 1 else 0.0

    async def ask(self, *headers: tuple[bytes, bytes]) -> Any:
        return await self.access.identify({"headers": list(headers), "query_string": b"", "client": ("192.0.2.1", 5)})


async def test_a_key_and_a_token() -> None:
    door = Door()
    caller = await door.ask((b"x-api-key", KEY.encode()))
    assert caller.is_operator and caller.user is None and caller.name.startswith("key:") and KEY not in repr(caller)
    caller = await door.ask((b"authorization", f"Bearer {door.auth.issue(user_id='ann', role='operator')}".encode()))
    assert (caller.name, caller.is_operator) == ("user:ann", True) and door.failed == []


async def test_whoever_tries_too_often_waits_for_the_answer() -> None:
    door = Door()
    with pytest.raises(AuthenticationError):
        await door.ask()
    asking = asyncio.ensure_future(door.ask((b"x-api-key", b"wrong")))
    await door.clock.until_planned(1.0)
    assert not asking.done() and door.failed == ["192.0.2.1"] * 2
    await door.clock.advance(1.0)
    with pytest.raises(AuthenticationError):
        await asking
    assert (await door.ask((b"x-api-key", KEY.encode()))).is_operator
