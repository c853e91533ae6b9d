"""Floods of what is answered, by peers that do not read the answers: pings, and requests of the protocol."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import Any

import pytest

from aibos_realtime.protocol.frames import PING
from tests.attacks.arena import MEGABYTE, Arena, Field
from tests.attacks.peers import LONG, NO_PACE, close_code, flood
from tests.network.raw import Raw, frame, text

EACH = (15 if LONG else 2) * MEGABYTE
PINGS = frame(PING, b"p" * 125) * 2000


async def test_a_ping_flood(arena: Arena) -> None:
    """What is offered does not matter: it is closed at the first twenty."""
    async with arena(f"{20 * EACH // MEGABYTE} MB of pings") as field, field.upgraded() as attacker:
        sending = asyncio.ensure_future(flood(attacker, PINGS, 20 * EACH))
        assert await close_code(attacker) in (4013, None)
        await attacker.ended()
        field.figures["bytes taken"] = f"{await sending:,}"
        await field.until(lambda figures: figures["closeCodes"].get("4013") == 1)


@pytest.mark.parametrize("options", [{}, {"loop": "asyncio", "sender": "python"}, {"tls": True}], ids=["compiled", "python", "TLS"])
async def test_20_ping_floods_whose_pongs_are_not_read(arena: Arena, options: dict[str, Any]) -> None:
    """With no limit on control frames either, what waits for each is bounded, and nothing more is read of it."""
    attack = f"{20 * EACH // MEGABYTE} MB of pings, unread {' '.join(options)}"
    async with arena(attack, attackers=20, limits=NO_PACE | {"outbox_seconds": 1.0}, **options) as field, AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(field.upgraded(receive_bytes=4096)) for _ in range(20)]
        for attacker in attackers:
            attacker.stop_reading()
        sending = [asyncio.ensure_future(flood(attacker, PINGS, EACH)) for attacker in attackers]
        await field.until(lambda figures: figures["slowCloses"] == 20)
        await asyncio.gather(*sending)
        await field.until(lambda figures: figures["connections"] == 1)


async def ask(field: Field, attacker: Raw, question: dict[str, Any], count: int) -> None:
    attacker.stop_reading()
    await flood(attacker, text(question) * 100, count * len(text(question)))


QUESTIONS: dict[str, dict[str, Any]] = {
    "ping": {"event": "ping", "ref": "r" * 60},
    "history": {"event": "history", "ref": 1, "data": {"roomId": "tenant_1", "limit": 300}},
    "presence": {"event": "presence", "ref": 1, "data": "tenant_1"},
    "rejoining with a rewind": {"event": "join-room", "ref": 1, "data": {"roomId": "tenant_1", "rewind": 300}},
    "what is refused": {"event": "join-room", "ref": 1, "data": "tenant_2"},
    "what is unknown": {"event": "x" * 60, "ref": 1, "room": "tenant_9"},
    "what is no message": {"events": "x" * 100},
}

COUNT = 100_000 if LONG else 8_000


@pytest.mark.parametrize("what", QUESTIONS)
async def test_requests_whose_answers_are_not_read(arena: Arena, what: str) -> None:
    """20 members ask without end and without pace, and read nothing: no answer is made that there is no room for."""
    limits = NO_PACE | {"outbox_seconds": 1.0}
    async with arena(f"{what}, unread", attackers=20, limits=limits) as field, AsyncExitStack() as stack:
        writer = await stack.enter_async_context(field.member("writer", "tenant_1"))
        for _ in range(20):
            assert (await writer.ask("grow", secrets.token_hex(12_000), room="tenant_1"))["event"] == "ack"
        attackers = [await stack.enter_async_context(field.member(f"user_{n}", "tenant_1", receive_bytes=4096)) for n in range(20)]
        writer.writer.transport.abort()
        tasks = [asyncio.ensure_future(ask(field, attacker, QUESTIONS[what], COUNT)) for attacker in attackers]
        figures = await field.until(lambda figures: sum(figures["closeCodes"].get(code, 0) for code in ("4008", "4509")) == 20)
        field.figures["answers"] = f"{figures['messagesOut']:,}"
        await asyncio.gather(*tasks)
        await field.until(lambda figures: figures["connections"] == 1)


async def test_joining_and_leaving_without_end(arena: Arena) -> None:
    """Each tells a hundred others, who are not at fault that it does not read."""
    question = text({"event": "join-room", "ref": 1, "data": "tenant_1"}) + text({"event": "leave-room", "ref": 1, "data": "tenant_1"})
    async with arena("joining and leaving, unread", attackers=5) as field, AsyncExitStack() as stack:
        others = [await stack.enter_async_context(field.member(f"user_{n}", "tenant_1")) for n in range(90)]
        attackers = [await stack.enter_async_context(field.member(f"attacker_{n}", receive_bytes=4096)) for n in range(5)]
        for attacker in attackers:
            attacker.stop_reading()
        await asyncio.gather(*(flood(attacker, question * 100, 20_000 * len(question)) for attacker in attackers))
        await field.until(lambda figures: figures["closeCodes"].get("4013") == 5)
        for other in others:
            assert (await other.ask("ping"))["event"] == "pong"
