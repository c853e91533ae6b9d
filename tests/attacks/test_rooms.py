"""Rooms and names without end: joined, left, published to, and asked for, by users who have the right to. Afterwards nothing of them is kept."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.attacks.arena import MEGABYTE, Arena, Field
from tests.network.raw import Raw, echoes, text

EVERYWHERE: dict[str, Any] = {"authorization": {"permissions": {"*": ["read", "write"]}}}
UNPACED: dict[str, Any] = {"messages_per_second": None, "publishes_per_second": None}
BRIEF: dict[str, Any] = {"rooms": {"room_timeout": 0.5}}


async def requests(connection: Raw, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send all at once; their answers, in order."""
    sending = asyncio.ensure_future(connection.send(b"".join(text(message | {"ref": number}) for number, message in enumerate(messages))))
    answers: list[dict[str, Any]] = []
    while len(answers) < len(messages):
        answer = await connection.message()
        if answer.get("ref") is not None:
            answers.append(answer)
    await sending
    return answers


def name(number: int, size: int = 128) -> str:
    """Names that differ at their end alone, as long as may be."""
    return f"{number:x}".rjust(size, "z")


async def test_ten_thousand_rooms_at_once(arena: Arena) -> None:
    async with arena("joining 10,000 rooms", attackers=1, **EVERYWHERE, limits=UNPACED, **BRIEF) as field, field.member("user") as attacker:
        answers = await requests(attacker, [{"event": "join-room", "data": name(number)} for number in range(10_000)])
        assert [answer["event"] for answer in answers[:128]] == ["joined-room"] * 128
        assert {answer["data"]["code"] for answer in answers[128:]} == {"room_limit"}
        await field.until(lambda figures: figures["kept"]["rooms"] == 128)
        attacker.reset()
        await field.until(lambda figures: figures["kept"]["rooms"] == 0)


async def test_joining_and_leaving(arena: Arena) -> None:
    """Of a thousand rooms in turn, as fast as it goes, ten users at once; then of names that never come again."""
    async with arena("20,000 joins and leaves", attackers=10, **EVERYWHERE, limits=UNPACED, **BRIEF) as field, AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(field.member(f"user_{number}")) for number in range(10)]
        begin = time.perf_counter()

        async def come_and_go(attacker: Raw, first: int) -> None:
            for start in range(0, 1000, 100):
                messages: list[dict[str, Any]] = []
                for number in range(start, start + 100):
                    room = name(first * 1000 + number)
                    messages += [{"event": "join-room", "data": room}, {"event": "leave-room", "data": room}]
                answers = await requests(attacker, messages)
                assert {answer["event"] for answer in answers} <= {"joined-room", "left-room", "error"}

        await asyncio.gather(*(come_and_go(attacker, number) for number, attacker in enumerate(attackers)))
        field.figures["a second"] = round(20_000 / (time.perf_counter() - begin))
        await field.until(lambda figures: figures["kept"]["rooms"] == 0)


async def test_a_room_that_one_has_left_is_nobodys_loss(arena: Arena) -> None:
    """One user who joined and left a thousand rooms had taken all that there may be, for five minutes: nobody else could open one."""
    async with arena("1,000 rooms, all empty again", **EVERYWHERE, limits=UNPACED) as field, field.member("user") as attacker:
        for number in range(1100):
            await requests(attacker, [{"event": "join-room", "data": name(number)}, {"event": "leave-room", "data": name(number)}])
        async with field.member("other", "a_room_of_his_own") as other:
            await echoes(other)


@pytest.mark.parametrize("memory", ["memory://"])
async def test_publishing_to_names_that_never_come_again(arena: Arena, memory: str) -> None:
    """What is published to a room nobody is in is kept for recovery, for as long as its history says, and no longer."""
    patterns = {"*": {"history_ttl": 0.5, "history_size": 10}}
    options = EVERYWHERE | {"rooms": {"room_timeout": 0.2, "max_rooms": None, "patterns": patterns}, "limits": UNPACED}
    # Where each room stands is kept for a day.
    async with arena("10,000 events, each to a room of its own", memory=30 * MEGABYTE, **options) as field, field.member("user") as attacker:
        before = field.memory()
        for start in range(0, 10_000, 500):
            await requests(attacker, [{"event": "x", "room": name(number), "data": 1} for number in range(start, start + 500)])
        await field.until(lambda figures: figures["kept"]["rooms"] == 0)
        report = await field.report()
        field.figures["bytes a room"] = round((field.memory() - before) / 10_000)
        field.figures["logs kept"] = report["kept"]["logs"]


async def test_presence_of_a_large_room(arena: Arena) -> None:
    """Fifty users who come to a room of fifty and go, over and over, with everybody watching."""
    options: dict[str, Any] = EVERYWHERE | {"rooms": {"max_users_per_room": 200}}
    async with arena("comings and goings of 50 in a room of 100", attackers=50, **options) as field, AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(field.member(f"watcher_{number}")) for number in range(50)]
        for watcher in watchers:
            await watcher.ask("join-room", {"roomId": "hall", "presence": True})
        comers = [await stack.enter_async_context(field.member(f"comer_{number}")) for number in range(50)]
        draining = [asyncio.ensure_future(drain(watcher)) for watcher in watchers]
        await asyncio.gather(
            *(requests(comer, [{"event": "join-room", "data": "hall"}, {"event": "leave-room", "data": "hall"}] * 12) for comer in comers)
        )
        for one in draining:
            one.cancel()
        report = await field.report()
        assert report["connections"] == 101


async def drain(connection: Raw) -> None:
    """Read on and on."""
    while True:
        await connection.frame()


HARD_NAMES = ["", " ", "a" * 129, "a\x00b", "a\nb", "{tenant_id}", "*", "..", "user:canary", "all", "__proto__", "\u202e", "ä" * 64, "a/../b", "%00"]


@pytest.mark.parametrize("event", ["join-room", "leave-room", "presence", "history", "x"])
async def test_names_of_the_worst_kind(arena: Arena, event: str) -> None:
    async with arena(f"names of the worst kind: {event}", **EVERYWHERE) as field, field.member("user") as attacker:
        for bad in HARD_NAMES:
            message: dict[str, Any] = {"event": event, "room": bad, "data": 1} if event == "x" else {"event": event, "data": {"roomId": bad}}
            [answer] = await requests(attacker, [message])
            assert answer["data"].get("code") != "internal", (bad, answer)
        await until_same(field)


async def until_same(field: Field) -> None:
    assert (await field.report())["handlerFailures"] == 0
