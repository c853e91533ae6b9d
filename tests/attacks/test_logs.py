"""What can be caused by the thousand writes a few lines a second, says how many more there were, and is counted one by one all the same."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aibos_realtime.audit import EVERY, KINDS_OF_STRANGERS
from aibos_realtime.logs import MOST_OF_A_KIND, MOST_TRACES
from tests.attacks.arena import Arena, Field
from tests.attacks.batch import say_and_go
from tests.network.raw import closing, frame, request, text

COUNT = 2000
BAD_TOKEN = "Authorization: Bearer no.good.token"


@asynccontextmanager
async def quiet(field: Field, most: int = MOST_OF_A_KIND) -> AsyncIterator[None]:
    """Meanwhile no kind of line is written more often than `most` times a second, whatever the values in it."""
    before, begin = len(field.process.lines), time.perf_counter()
    yield
    await field.report()
    seconds = 1 + time.perf_counter() - begin
    lines = field.process.lines[before:]
    kinds = Counter(re.sub(r"[0-9]+|'[^']*'|\([0-9a-f]{12}\)", "_", line) for line in lines if not line.startswith("figures "))
    field.figures["lines"] = sum(kinds.values())
    for kind, count in kinds.items():
        bound = MOST_TRACES if kind.startswith("a trace of") else most
        assert count <= bound * (seconds / EVERY + 1), (kind, count, seconds)


HANDSHAKES: dict[str, tuple[bytes, str]] = {
    "no HTTP": (b"no HTTP at all\r\n\r\n", "400"),
    "a bad origin": (request("Origin: https://evil.example"), "403"),
    "a bad token": (request(BAD_TOKEN), "401"),
    "no path of ours": (request(line="GET /other HTTP/1.1"), "404"),
}


@pytest.mark.parametrize("kind", HANDSHAKES)
async def test_bad_handshakes(arena: Arena, kind: str) -> None:
    """A bad token wrote a line each: only `serve` had a filter before its log, and a server in a program of one's own had none."""
    data, status = HANDSHAKES[kind]
    async with arena(f"{COUNT:,} handshakes: {kind}", attackers=COUNT) as field:
        begin = time.perf_counter()
        async with quiet(field):
            await asyncio.to_thread(say_and_go, field.port, data, COUNT, answered=status != "401")
        field.figures["a second"] = round(COUNT / (time.perf_counter() - begin))
        await field.until(lambda figures: figures["handshakesRefused"].get(status, 0) == COUNT)


async def test_bad_tokens_over_http(arena: Arena) -> None:
    data = f"GET /api/v1/rooms HTTP/1.1\r\nHost: localhost\r\n{BAD_TOKEN}\r\n\r\n".encode()
    async with arena("500 bad tokens over HTTP", attackers=500) as field:
        async with quiet(field):
            await asyncio.to_thread(say_and_go, field.port, data, 500, answered=False)
        await field.until(lambda figures: figures["kept"]["failed_authentications"] == 500)


async def test_bad_tokens_in_the_first_message(arena: Arena) -> None:
    data = request() + text({"event": "authenticate", "data": {"token": "no.good.token"}})
    async with arena("500 bad tokens in the first message", attackers=500) as field:
        async with quiet(field):
            await asyncio.to_thread(say_and_go, field.port, data, 500)
        await field.until(lambda figures: figures["connections"] == 1)
        await field.until(lambda figures: figures["kept"]["failed_authentications"] == 500)


@pytest.mark.parametrize("data", [b"\xc1\x80" + bytes(4), frame(1, b"\xff"), closing(4999), closing(3210)], ids=["1002", "1007", "4999", "3210"])
async def test_connections_that_end_badly(arena: Arena, data: bytes) -> None:
    async with arena(f"1,000 connections that end badly: {data[:8].hex()}", attackers=1000) as field:
        async with quiet(field):
            await asyncio.to_thread(say_and_go, field.port, request() + data, 1000)
        await field.until(lambda figures: figures["connections"] == 1)


async def test_every_close_code_there_is(arena: Arena) -> None:
    """The peer chooses the code that it closes with, and each was a kind of its own: two thousand lines a second."""
    async with arena("2,000 connections with 1,000 close codes", attackers=2000) as field:
        async with quiet(field, KINDS_OF_STRANGERS + 1):
            await asyncio.to_thread(lambda: [say_and_go(field.port, request() + closing(3000 + number % 1000), 1) for number in range(2000)])
        await field.until(lambda figures: figures["connections"] == 1)


async def test_a_handler_that_always_fails(arena: Arena) -> None:
    """Each failure wrote its trace: a client that had found a handler's weak spot filled the disk at 50 traces a second and connection."""
    limits = {"messages_per_second": 1000}
    async with arena("2,000 failures of a handler", attackers=10, limits=limits, failing=True) as field, AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(field.member(f"user_{number}")) for number in range(10)]
        async with quiet(field):
            for attacker in attackers:
                await attacker.send(text({"event": "fail", "data": "a payload", "ref": 1}) * 200)
            for attacker in attackers:
                for _ in range(200):
                    answer = await attacker.message("error")
                    assert answer["data"]["code"] == "internal" and "payload" not in str(answer)
        report = await field.report()
        assert report["handlerFailures"] == 2000
        await field.process.until("more lines like this were left out")
    lines = field.process.lines
    assert sum("a trace of RuntimeError" in line for line in lines) >= 1
    told = sum(int(found[1]) for line in lines if (found := re.search(r" ([0-9]+) more lines like this", line)))
    assert told + sum("the handler of 'fail' failed" in line and "more lines" not in line for line in lines) == 2000


async def test_refused_permissions_and_unknown_events(arena: Arena) -> None:
    async with arena("1,000 refusals", attackers=10) as field, AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(field.member(f"user_{number}")) for number in range(10)]
        async with quiet(field):
            for attacker in attackers:
                await attacker.send(text({"event": "join-room", "data": "tenant_2", "ref": 1}) * 50 + text({"event": "x", "ref": 2}) * 50)
                await attacker.ask("ping")
        assert field.figures["lines"] < 20
