"""Eight hours of comings and goings in minutes: sessions, rooms, tokens, repeats, refusals. Afterwards nothing of them may be left.

The server is the real one in memory, on a clock that is moved by hand, so that every expiry, grace and retention of those hours happens.
Sessions come by the minute, join rooms that nobody had before and rooms that many have, publish (some twice under one id), type, read history and
presence, get a fresh token or let theirs expire, and end in every way there is: closed, cut, kicked, revoked, refused, without having read.

    python -m tests.churn --hours 8 --per-minute 20 --seed 1
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from aibos_realtime import RealtimeServer, logs
from aibos_realtime.auth import tokens
from aibos_realtime.errors import ConnectionClosed, NotInRoom, RealtimeError
from aibos_realtime.hub import own_rooms
from aibos_realtime.protocol import limits
from aibos_realtime.testing import ManualClock
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server
from tests.churn.census import Census, grown, take_census

SECRET = "only for these tests, of 32 bytes or more"
ROOMS = ["tenant_1", "tenant_2", "lobby", "news"]
AFTERWARDS = 31 * 86_400.0
"""Seconds after the last session at which everything is looked at: past every expiry. A revocation is kept for 30 days, the life of a token."""
LIFE = 12
"""Minutes that a session lasts at most."""


@dataclass(frozen=True)
class Remains:
    """What was done, and what is left of it. `grown`: containers that hold more than after a first short churn, with both sizes; `bytes`: by which
    the traced memory grew, and `objects` the number of objects, between the same two moments.
    """

    done: Counter[str]
    connections: int
    rooms: int
    grown: dict[str, tuple[int, int]]
    bytes: int
    objects: int

    @property
    def is_nothing(self) -> bool:
        return not self.grown and self.connections == self.rooms == 0

    def __str__(self) -> str:
        done = ", ".join(f"{count:,} {what}" for what, count in sorted(self.done.items()))
        left = "".join(f"\n  {path}: {before} before, {after} after" for path, (before, after) in sorted(self.grown.items()))
        return (
            f"{done}\nleft: {self.connections} connections, {self.rooms} rooms, {len(self.grown)} containers that grew,"
            f" {self.objects:+,} objects, {self.bytes:+,} bytes{left}"
        )


class Churn:
    """Sessions on one server."""

    def __init__(self, net: MemoryServer, clock: ManualClock, *, per_minute: int, seed: int) -> None:
        self._net = net
        self._clock = clock
        self._chance = random.Random(seed)
        self._per_minute = per_minute
        self._number = 0
        self._present: list[tuple[int, str, MemoryClient]] = []
        self._minute = 0
        self.done: Counter[str] = Counter()

    async def run(self, minutes: int) -> None:
        """So many minutes, and then until everybody has left and everything has expired."""
        for _ in range(minutes):
            self._minute += 1
            for _ in range(self._per_minute):
                await self._come()
            await self._go()
            await self._read()
            await self._clock.advance(60.0)
        self._minute += LIFE + 1
        await self._go()
        await _skip(self._clock, AFTERWARDS)
        await self._visit()
        await _skip(self._clock, AFTERWARDS)

    async def _visit(self) -> None:
        """One more: some things are swept out when the next one comes."""
        client = await self._net.connect(None)
        await client.request("authenticate", self._token("visitor", 600.0))
        await client.request("join-room", "lobby")
        await client.request("visited", None, room="lobby")
        await self._net.server.auth.revoke(user_id="nobody")
        client.close()
        await settle()

    async def _come(self) -> None:
        self._number += 1
        chance, user = self._chance, f"user-{self._number % 5000}"
        client = await self._net.connect(None, codec=chance.choice(["json", "msgpack"]), address=f"192.0.2.{self._number % 250}")
        self.done["sessions"] += 1
        if chance.random() < 0.05:
            return await self._fail(client)
        token = self._token(user, chance.choice([90.0, 600.0, 3600.0]))
        try:
            await client.request("authenticate", token)
            for room in {chance.choice(ROOMS), f"room-{self._number}", f"shared-{self._number % 97}"}:
                await client.request("join-room", room)
                self.done["joins"] += 1
            for act in chance.sample(self._acts(client, user), 3):
                await act()
        except RealtimeError as error:
            self.done[f"refused ({error.code})"] += 1
        self._present.append((self._minute + chance.randrange(LIFE), user, client))

    def _token(self, user: str, life: float) -> str:
        return self._net.server.auth.issue(user_id=user, role="user", tenant_id=f"{self._number % 3}", expires_in=life)

    async def _fail(self, client: MemoryClient) -> None:
        """A token that is none, or none at all."""
        self.done["failed authentications"] += 1
        if self._chance.random() < 0.5:
            client.send("authenticate", "no.good.token")
            await self._clock.advance(2.0)
        client.cut()

    def _acts(self, client: MemoryClient, user: str) -> list[Callable[[], Awaitable[object]]]:
        room = f"room-{self._number}"

        async def publish_twice() -> None:
            for _ in range(2):
                await client.request("invoice.created", {"amount": self._number}, room=room, id=f"id-{self._number}")
                self.done["publishes"] += 1

        async def leave() -> None:
            await client.request("leave-room", room)

        async def refresh() -> None:
            await client.request("authenticate", self._token(user, 1200.0))
            self.done["refreshes"] += 1

        async def misuse() -> None:
            client.send("typing-start", room=f"never-joined-{self._number}")
            client.send(f"no.such.event.{self._number}", None, ref="x")

        return [
            publish_twice, leave, refresh, misuse,
            lambda: client.request("history", {"roomId": room}),
            lambda: client.request("presence", room),
            lambda: self._net.server.broadcaster.broadcast_to_user(user, "for.you", self._number),
        ]  # fmt: skip

    async def _read(self) -> None:
        """Two in three read what came."""
        for number, (_, _, client) in enumerate(self._present):
            with suppress(TimeoutError, ConnectionClosed):
                while number % 3:
                    await client.end.receive(timeout=0)

    async def _go(self) -> None:
        """Those whose time has come end, each in a way of its own."""
        going = [(user, client) for until, user, client in self._present if until <= self._minute]
        self._present = [entry for entry in self._present if entry[0] > self._minute]
        server = self._net.server
        for user, client in going:
            match self._chance.randrange(6):
                case 0:
                    with suppress(NotInRoom):
                        await server.rooms.kick(ROOMS[2], user)
                    client.close()
                case 1:
                    await server.auth.revoke(user_id=user)
                case 2:
                    await server.disconnect(user_id=user)
                case 3:
                    client.cut()
                case _:
                    client.close()
            self.done["ends"] += 1
        await settle()
        for _, client in going:
            client.cut()
        await settle()


async def prove(*, minutes: int, per_minute: int, seed: int, progress: Callable[[str], None] = print) -> Remains:
    """Churn for so long. A first, short one makes whatever is made once; what comes after it must leave nothing more."""
    clock = ManualClock()
    unpaced = {"handshakes_per_second": None, "handshakes_per_second_per_address": None, "connections_per_user": None, "outbox_seconds": 90.0}
    server = RealtimeServer(
        authentication={"jwt_secret": SECRET},
        authorization={"permissions": {"*": ["read", "write"]}},
        rooms={"max_rooms": None, "max_users_per_room": None},
        connections={"max_connections": None},
        limits=unpaced,
        persistence={"database": {"url": "memory://"}},
        clock=clock,
    )
    async with memory_server(server) as net:
        churn = Churn(net, clock, per_minute=per_minute, seed=seed)
        await churn.run(10)
        progress(f"after 10 minutes: {len(server.rooms)} rooms, {len(server.pool)} connections")
        before, size, objects = _measure(server)
        for hour in range(0, minutes, 60):
            await churn.run(min(60, minutes - hour))
            progress(f"after {hour + min(60, minutes - hour)} minutes: {churn.done['sessions']:,} sessions")
        after, size_after, objects_after = _measure(server)
        return Remains(churn.done, len(server.pool), len(server.rooms), grown(before, after), size_after - size, objects_after - objects)


def _measure(server: RealtimeServer) -> tuple[Census, int, int]:
    """Containers, bytes (0 unless they are traced), and objects. What has a bound of its own (caches, kinds of log lines, the last entries of the
    audit log) is emptied first: that it keeps to its bound is tested where it is.
    """
    server._parts.audit._entries.clear()
    server._parts.audit._of_strangers.clear()
    logs.FLOOD._kinds.clear()
    tokens._names.clear()
    limits.known_names.clear()
    own_rooms._text_of.cache_clear()
    server.rooms.patterns._found.clear()
    gc.collect()
    return take_census(server), tracemalloc.get_traced_memory()[0], len(gc.get_objects())


async def _skip(clock: ManualClock, seconds: float) -> None:
    """Let time pass in strides: what is due in one of them comes at its end, as after a machine has slept."""
    for _ in range(20):
        clock._monotonic += seconds / 20
        await clock.advance(5.0)
