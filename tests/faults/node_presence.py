"""A node is killed: who was there alone is gone from its rooms within a minute, told once; who goes on at another node never was.

python -m tests.faults.node_presence --clients 200 --seed 1
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aibos_realtime import RealtimeClient
from tests.faults.clients import ask_again, make_client, pause
from tests.faults.nodes import Nodes
from tests.faults.processes import Zygote
from tests.servers.redis import running_redis

ROOM = "room"
LIMIT = 60.0
"""Seconds after a crash within which presence is right again."""


@dataclass
class Farewell:
    """What became of it. `gone`: seconds from the kill until no node named those who had gone; `told`: how often watchers were told of whom."""

    gone: float
    ghosts: set[str]
    movers: set[str]
    present: set[str]
    told: list[Counter[str]]

    @property
    def complaints(self) -> list[str]:
        found = [] if self.gone <= LIMIT else [f"those who had gone were named for {self.gone:.0f} s"]
        if self.movers - self.present:
            found.append(f"{len(self.movers - self.present)} of those who went to another node are missing")
        for number, told in enumerate(self.told):
            if told != Counter(self.ghosts):
                wrong = {name: told[name] for name in (told.keys() | self.ghosts) if told[name] != (name in self.ghosts)}
                found.append(
                    f"watcher {number} was not told once of each one who went, but of {len(wrong)} otherwise, as {dict(sorted(wrong.items())[:5])}"
                )
        return found


async def prove(zygote: Zygote, folder: Path, *, clients: int, seed: int) -> Farewell:
    """Half of so many clients of a node end with it, half go to another one. One watcher at each node that stays."""
    chance = random.Random(seed)
    with running_redis() as redis:
        async with Nodes(zygote, redis, folder, database="memory://") as nodes, AsyncExitStack() as life:
            first, *others = nodes.servers

            async def join(name: str, urls: list[str], **options: Any) -> RealtimeClient:
                client = await life.enter_async_context(make_client(urls, name, chance, **options))
                await client.join_room(ROOM)
                return client

            ghosts = {f"ghost-{number}" for number in range(clients // 2)}
            movers = {f"mover-{number}" for number in range(clients // 2)}
            await asyncio.gather(*(join(name, [first.url], reconnect=False) for name in ghosts), *(join(name, nodes.urls) for name in movers))
            watchers = [await life.enter_async_context(make_client(server.url, f"watcher-{n}", chance)) for n, server in enumerate(others)]
            told: list[Counter[str]] = [Counter() for _ in watchers]
            for watcher, heard in zip(watchers, told, strict=True):
                watcher.on("user.left", partial(_note, heard))
                await watcher.join_room(ROOM, presence=True)
            began = time.monotonic()
            await first.kill()
            present = await _until_gone(watchers, ghosts)
            gone = time.monotonic() - began
            await _until_told(told, ghosts)
            return Farewell(gone, ghosts, movers, present, [Counter(heard) for heard in told])


def _note(heard: Counter[str], data: Any, event: Any) -> None:
    heard[data["userId"]] += 1


async def _until_gone(watchers: list[RealtimeClient], ghosts: set[str]) -> set[str]:
    """Who is named by every watcher's node once none names a ghost."""
    async with asyncio.timeout(2 * LIMIT):
        while True:
            named = [{member.user_id for member in await ask_again(lambda: watcher.presence(ROOM))} for watcher in watchers]  # noqa: B023
            if not any(names & ghosts for names in named):
                return set.intersection(*named)
            await pause(0.2)


async def _until_told(told: list[Counter[str]], ghosts: set[str]) -> None:
    """Notices come after what is noticed; what does not come is for the verdict."""
    until = time.monotonic() + 5
    while time.monotonic() < until and any(ghosts - heard.keys() for heard in told):
        await pause(0.1)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200, help="of the node that is killed")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    given = parser.parse_args()
    logging.getLogger("aibos_realtime.client").setLevel(logging.CRITICAL)  # that connections are lost is no news here
    zygote = Zygote()
    with tempfile.TemporaryDirectory() as folder:
        try:
            farewell = asyncio.run(prove(zygote, Path(folder), clients=given.clients, seed=given.seed))
        finally:
            zygote.close()
    print(f"those who had gone were named for {farewell.gone:.1f} s; {len(farewell.present)} others are present")
    print("\n".join(farewell.complaints) or "kept")
    sys.exit(1 if farewell.complaints else 0)


if __name__ == "__main__":
    main()
