"""Users who come to a room and go again all the time, while everything fails; in the end every node has to name those who are there, and nobody else.

Events are not their business: that is `load`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from aibos_realtime import RealtimeClient
from tests.faults.clients import ask_again, make_client, pause

LOBBY = "lobby"
MOST_DOUBT = 60.0
"""Seconds after a crash within which presence is right again."""


class Guests:
    """`count` users, each with a client at a time. `urls`: where they connect; `direct`: each node, to be asked who is there."""

    def __init__(self, urls: Sequence[str], direct: Sequence[str], *, count: int, seed: int) -> None:
        self._urls = list(urls)
        self._direct = list(direct)
        self._chance = random.Random(seed)
        self._names = [f"guest-{number}" for number in range(count)]
        self._there: dict[str, RealtimeClient] = {}
        self.visits = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Come and go until told to stop; then every other one comes, and stays until `close`."""
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(self._names):
                group.create_task(self._come_and_go(name, stop, stays=number % 2 == 0))

    async def until_right(self) -> tuple[float, list[str]]:
        """(seconds until every node named exactly those who stay, what was wrong at the deadline)."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._until_right_at(url, began + MOST_DOUBT)) for url in self._direct]
        return time.monotonic() - began, [wrong for one in asked if (wrong := one.result())]

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._there.values()))

    async def _come_and_go(self, name: str, stop: asyncio.Event, *, stays: bool) -> None:
        while not stop.is_set():
            client = await self._come(name)
            await pause(self._chance.uniform(0.5, 4))
            if self._chance.random() < 0.5:
                await ask_again(lambda: client.leave_room(LOBBY))  # noqa: B023
            await client.close()
            await pause(self._chance.uniform(0.1, 2))
        if stays:
            self._there[name] = await self._come(name)

    async def _come(self, name: str) -> RealtimeClient:
        self.visits += 1
        first = self._chance.randrange(len(self._urls))
        client = make_client(self._urls[first:] + self._urls[:first], name, self._chance, connect_timeout=1.5)
        await client.connect()
        await ask_again(lambda: client.join_room(LOBBY, presence=True))
        return client

    async def _until_right_at(self, url: str, until: float) -> str:
        async with make_client(url, "watcher", self._chance) as watcher:
            while True:
                named = {member.user_id for member in await ask_again(lambda: watcher.presence(LOBBY))}
                if named == self._there.keys():
                    return ""
                if time.monotonic() > until:
                    wrong = sorted(named ^ self._there.keys())
                    return f"presence: after {MOST_DOUBT:g} s a node names {', '.join(sorted(named))}; wrong is {', '.join(wrong)}"
                await pause(0.2)
