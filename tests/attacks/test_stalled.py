"""Members of a large room who stop reading, break off and come back while it is written to: only they are cut, and told what they missed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.arena import MEGABYTE, Arena, Field
from tests.attacks.peers import LONG, NO_PACE, pause
from tests.faults.processes import Process, Zygote
from tests.network.raw import Raw, request, text

ROOM = "tenant_1"
MEMBERS = 1000 if LONG else 200
EVENTS = 5000 if LONG else 500
RATE = 400 if LONG else 200
"""Events a second."""
LIMITS = NO_PACE | ({} if LONG else {"outbox_soft_bytes": 64 * 1024, "outbox_bytes": 128 * 1024, "outbox_seconds": 2.0})
OPTIONS: dict[str, Any] = {"rooms": {"max_users_per_room": None}, "connections": {"max_connections": 2500}, "limits": LIMITS}
KERNEL = 640 * 1024
"""Bytes that the kernel may keep for one who does not read: 256 KiB of the sender's, and a receive buffer."""
RESET = struct.pack("ii", 1, 0)


class Crier:
    """Writes to the room, and asks the audience what came."""

    def __init__(self, field: Field, audience: Process, writer: Raw) -> None:
        self._field = field
        self._audience = audience
        self._writer = writer

    async def cry(self, count: int, between: Callable[[int], None] = lambda number: None) -> dict[str, Any]:
        """So many events of 1 KB at an even pace; returns what was heard of them, which is all, in order, by everybody. `between`: done at each."""
        filling = "*" * 1000
        begin = time.monotonic()
        for number in range(count):
            await pause(begin + number / RATE - time.monotonic())
            self._writer.say("tick", {"at": time.monotonic(), "filling": filling}, room=ROOM)
            between(number)
        assert (await self._writer.ask("ping"))["event"] == "pong"
        await self._field.until(lambda figures: figures["outboxBytes"] == 0)
        before = len(self._audience.lines)
        self._audience.signal(signal.SIGUSR1)
        line = await self._audience.until(lambda line: line.startswith("heard"), after=before)
        heard: dict[str, Any] = json.loads(line.partition(" ")[2])
        [offsets] = heard["offsets"]
        assert len(offsets) == count and offsets == sorted(set(offsets)) and heard["lost"] == 0
        return heard


@asynccontextmanager
async def filled(field: Field, zygote: Zygote, members: int) -> AsyncIterator[Crier]:
    """A room with so many members who read, and somebody who writes."""
    tokens = [field.token(f"member_{number}") for number in range(members)]
    audience = await Process.start(zygote, "tests.attacks.audience", {"port": field.port, "tokens": tokens, "room": ROOM})
    try:
        await audience.until("seated")
        async with field.member("writer", role="service") as writer:
            yield Crier(field, audience, writer)
    finally:
        await audience.kill()


@contextmanager
def unread(field: Field, count: int, **recover: Any) -> Iterator[list[socket.socket]]:
    """Members with a small buffer, who never read anything unless the test does it for them."""
    found: list[socket.socket] = []
    try:
        for number in range(count):
            member = socket.socket()
            found.append(member)
            member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            member.settimeout(10)
            member.connect(("127.0.0.1", field.port))
            member.sendall(
                request(f"Authorization: Bearer {field.token(f'stalled_{number}')}")
                + text({"event": "join-room", "ref": 1, "data": {"roomId": ROOM, **recover}})
            )
        yield found
    finally:
        for member in found:
            member.close()


def unsent(port: int) -> list[int]:
    """What the kernel keeps for each peer of a server, in bytes, as /proc/net/tcp tells it."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(fields[4].partition(":")[0], 16) for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "01"]


@pytest.mark.parametrize("share", [0.005, 0.1], ids=["one", "a tenth"])
async def test_members_who_stop_reading(arena: Arena, zygote: Zygote, share: float) -> None:
    """Of each the kernel kept up to 4 MB that no limit counted."""
    count = max(1, int(MEMBERS * share))
    attack = f"{count} of {MEMBERS} members read nothing"
    async with arena(attack, attackers=count, memory=3 * MEGABYTE, **OPTIONS) as field, filled(field, zygote, MEMBERS - count) as crier:
        without = await crier.cry(EVENTS // 2)
        with unread(field, count):
            await field.until(lambda figures: figures["connections"] == MEMBERS + 2)
            most: list[int] = []
            beside = await crier.cry(EVENTS, lambda number: most.extend(unsent(field.port) if number % 50 == 0 else ()))
            await field.until(lambda figures: figures["closeCodes"].get("4008") == count)
        field.figures |= {"p99 ms": round(1000 * beside["p99"], 1), "without": round(1000 * without["p99"], 1), "kernel": f"{max(most):,}"}
        assert max(most) <= KERNEL
        assert beside["p99"] <= field.starvation() * (1.2 * without["p99"] + 0.05)  # the machine may be busy with something else by now


async def test_members_who_read_a_byte_now_and_then(arena: Arena, zygote: Zygote) -> None:
    """What counts is how old the oldest byte is that waits."""

    async with arena("20 members read a byte at a time", attackers=20, **OPTIONS) as field, filled(field, zygote, 50) as crier:
        with unread(field, 20) as members:

            def between(number: int) -> None:
                for member in members if number % 20 == 0 else ():
                    member.recv(1)

            await crier.cry(EVENTS, between)
            await field.until(lambda figures: figures["closeCodes"].get("4008") == 20)


@pytest.mark.parametrize("options", [{}, {"loop": "asyncio", "sender": "python"}, {"sender": "send"}], ids=["compiled", "python", "send"])
async def test_members_who_break_off_in_the_middle(arena: Arena, zygote: Zygote, options: dict[str, Any]) -> None:
    """Some with a reset, some with half a goodbye, with bytes under way to them."""
    async with arena(f"100 members break off {options.get('sender', '')}", attackers=100, **OPTIONS, **options) as field:
        async with filled(field, zygote, 50) as crier:
            with unread(field, 100) as members:

                def between(number: int) -> None:
                    for member in members[number::100][:1] if number < 100 else ():
                        if number % 2:
                            member.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                            member.close()
                        else:
                            member.shutdown(socket.SHUT_WR)

                await crier.cry(150, between)
                await field.until(lambda figures: figures["connections"] == 52)


async def test_all_come_back_at_once(arena: Arena, zygote: Zygote) -> None:
    """Each asks for the 300 events that it missed: all get them, and whoever does not take them costs no more than another."""
    async with arena(f"{MEMBERS} recover 300 events at once", attackers=MEMBERS, **OPTIONS) as field, filled(field, zygote, 10) as crier:
        await crier.cry(300)
        async with field.member("probe", ROOM) as probe:
            top = (await probe.ask("history", {"roomId": ROOM, "limit": 1}))["data"]
        position = {"epoch": top["epoch"], "offset": top["events"][-1]["offset"] - 300}
        half = MEMBERS // 2
        with unread(field, half, recover=position):
            got = await asyncio.gather(*(recovered(field, number, position) for number in range(half)))
            assert got == [300] * half
            await field.until(lambda figures: figures["closeCodes"].get("4008") == half)


async def recovered(field: Field, number: int, position: dict[str, Any]) -> int:
    """How many events a member gets, by rising offset."""
    async with field.member(f"back_{number}") as member:
        answer = await member.ask("join-room", {"roomId": ROOM, "recover": position})
        assert answer["data"]["recovered"] is True, answer
        offsets = [(await member.message("tick"))["offset"] for _ in range(300)]
        assert offsets == list(range(position["offset"] + 1, position["offset"] + 301))
        return len(offsets)
