"""What holds the event loop: a handler that waits in place, and messages that are made to be dear. It is named, and costs nobody his connection."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from aibos_realtime.protocol.frames import CLOSE, PING, PONG, TEXT, parse_close
from tests.attacks.arena import Arena
from tests.network.raw import Raw, frame, text

BRIEF: dict[str, Any] = {
    "heartbeat": {"interval": 1.0, "timeout": 2.0},
    "limits": {"authentication_seconds": 2.0, "messages_per_second": 45, "messages_burst": 45},
}
"""The canary asks 40 times a second."""


class Member:
    """Reads what comes, and answers pings, as every client does."""

    def __init__(self, connection: Raw) -> None:
        self._connection = connection
        self.close_code: int | None = None
        self.pings = 0
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        while self.close_code is None:
            first, second = await self._connection.reader.readexactly(2)
            payload = await self._connection.reader.readexactly(second)
            if first & 15 == PING:
                self.pings += 1
                await self._connection.send(frame(PONG, payload))
            elif first & 15 == CLOSE:
                self.close_code = parse_close(payload)[0]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_handler_that_waits_in_place(arena: Arena, loop: str) -> None:
    """A handler that held the loop for longer than a heartbeat cost every idle member his connection (4012), and who had gone on talking his own
    (4013): what they had sent meanwhile was not read yet, or came all at once. And nothing said which handler it was.
    """
    # The canary waits for as long as the loop is held: that is the attack.
    async with arena(f"a handler holds the loop for 2.5 s, {loop}", attackers=10, p99=10.0, loop=loop, **BRIEF) as field:
        async with AsyncExitStack() as stack:
            members = [Member(await stack.enter_async_context(field.member(f"user_{number}"))) for number in range(10)]
            blocking = await stack.enter_async_context(field.member("blocking"))
            late = [await stack.enter_async_context(field.upgraded()) for _ in range(8)]
            begin = time.perf_counter()
            blocking.say("block", 2.5, ref="block")
            await pause(0.3)  # it is in the handler by now
            for number, one in enumerate(late):
                await one.send(text({"event": "authenticate", "data": {"token": field.token(f"late_{number}")}, "ref": 1}))
            await blocking.ask("ping")
            field.figures["held for"] = round(time.perf_counter() - begin, 1)
            for one in late:
                assert (await one.message("authenticated"))["data"]["success"] is True, "he had two seconds, and said so in time"
            await pause(2.5)  # in which each is pinged, and would be given up
            assert [member.close_code for member in members] == [None] * 10
            assert all(member.pings for member in members)
            report = await field.report()
            assert report["closeCodes"].get("4012", 0) == 0 and report["loopLag"] >= 0 and report["worst_lag"] > 2.3
            for member in members:
                member.task.cancel()
    told = [line for line in field.process.lines if "the event loop" in line]
    assert len(told) == 2 and re.search(r"stood still for 1\.\d s: .* it is in main.<locals>.block \(attacks/victim.py:\d+\)", told[0])


def deep(size: int) -> str:
    return "[" * 31 + "1," * ((size - 100) // 2) + "1" + "]" * 31


HARD: dict[str, Callable[[int], str]] = {
    "numbers": lambda size: "[" + "1," * (size // 2) + "1]",
    "fractions": lambda size: "[" + "1.7976931348623157e308," * (size // 23) + "1]",
    "empty lists": lambda size: "[" + "[]," * (size // 3) + "[]]",
    "deep": deep,
    "keys": lambda size: "{" + ",".join(f'"k{number}":0' for number in range(size // 11)) + "}",
    "escapes": lambda size: '"' + "\\u20ac" * (size // 6) + '"',
    "the same key": lambda size: "{" + '"a":0,' * (size // 6) + '"a":0}',
}


@pytest.mark.parametrize("kind", HARD)
async def test_json_that_is_dear_to_read(arena: Arena, kind: str) -> None:
    message = '{"event":"unknown","data":' + HARD[kind](65_000) + "}"
    assert len(message) < 65_536 and json.loads(message)
    data = frame(TEXT, message.encode()) * 100
    async with arena(f"1,000 messages of 64 KiB at once: {kind}", attackers=10) as field, AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(field.member(f"user_{number}")) for number in range(10)]
        begin = time.perf_counter()
        await asyncio.gather(*(attacker.send(data) for attacker in attackers))
        for attacker in attackers:
            await attacker.ask("ping")
        field.figures["a second"] = round(1000 / (time.perf_counter() - begin))


async def pause(seconds: float) -> None:
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=seconds)
