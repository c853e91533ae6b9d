"""The append-only file of Redis is damaged while Redis is down: it lacks its last bytes, or one byte is another one.

    python -m tests.faults.damaged_file --times 100 --seed 1

Redis starts with what it has, or refuses to and says so. A node then reads what is there: each event once, at its place, and a place that cannot be
read is told and not passed over. Of a byte within a payload nobody can know: there are no sums in the file.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from aibos_realtime import Position, RealtimeError, UnrecoverablePosition
from aibos_realtime.backends.base import Draft, LoggedEvent
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.log import RedisLog
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.storage.shared_broker import SharedBroker
from tests.arguments import count
from tests.faults.clients import pause
from tests.servers.redis import RedisServer, running_redis

ROOM = "lobby"
EVENTS = 100
PATIENCE = 15.0
MOST_CUT = 200
"""Bytes of the file that are lost, of an event or two."""
NEAR = 120
"""Bytes from the name of a room's log to the end of its entry."""
MOST_LOST = 3
"""Events that so few bytes may cost, and what follows each."""


class Node:
    """One node of its own over a Redis."""

    def __init__(self, redis: RedisServer) -> None:
        self._client = Client(read_url(redis.url))
        self.broker = SharedBroker(RedisLog(self._client, prefix="damaged", node="one", has_store=False))

    async def __aenter__(self) -> SharedBroker:
        async with AsyncExitStack() as life:
            life.push_async_callback(self._client.close)
            await self._client.open()
            await self.broker.start()
            life.push_async_callback(self.broker.stop)
            self._life = life.pop_all()
        return self.broker

    async def __aexit__(self, *error: object) -> None:
        await self._life.aclose()


async def publish(broker: SharedBroker, number: int) -> Position:
    """One event, repeated under its id until it is taken."""
    draft = Draft(ROOM, "tick", b'{"number":%d}' % number, f"id-{number}", keyed=True, history_size=1000, history_ttl=3600)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                receipt = await broker.publish(draft)
            except RealtimeError as error:
                if not error.retryable:
                    raise
                await pause(0.05)
            else:
                assert receipt.position is not None
                return receipt.position


async def read_all(broker: SharedBroker, start: Position) -> list[LoggedEvent] | None:
    """Everything after a position; None where it is told that this cannot be read."""
    found: list[LoggedEvent] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            at = Position(start.epoch, start.offset + len(found))
            try:
                page = await broker.read_after(ROOM, at, 100)
            except UnrecoverablePosition:
                return None
            found += page.events
            if not page.more:
                return found


async def prove(folder: Path, *, times: int, seed: int) -> Counter[str]:
    """Damage the file so many times, each time another way. Raises `AssertionError` where something is passed over in silence."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    with running_redis() as redis:
        async with Node(redis) as broker:
            places = [await publish(broker, number) for number in range(1, EVENTS + 1)]
        redis.stop(signal.SIGKILL)
        files, whole = _files(redis), folder / "whole"
        shutil.copytree(files, whole)
        for number in range(times):
            shutil.rmtree(files)
            shutil.copytree(whole, files)
            is_cut = number % 2 == 0
            damage(redis, chance, is_cut)
            try:
                redis.launch()
                await asyncio.to_thread(redis.until_ready)
            except RuntimeError as refusal:
                assert "Bad file format" in str(refusal) or "rror" in str(refusal), refusal
                counts["refused by Redis"] += 1
                redis.stop(signal.SIGKILL)
                continue
            counts[await look(redis, places, is_cut)] += 1
            redis.stop(signal.SIGKILL)
    return counts


async def look(redis: RedisServer, places: list[Position], is_cut: bool) -> str:
    """What a node that comes anew makes of what is there."""
    async with Node(redis) as broker:
        events = await read_all(broker, Position(places[0].epoch, 0))
        last = await publish(broker, EVENTS + 1)
        if events is None:
            assert last.epoch != places[0].epoch or last.offset >= EVENTS, "a place is given a second time"
            return "told"
        assert [event.offset for event in events] == list(range(1, len(events) + 1)), "something was passed over"
        assert (last.epoch, last.offset) == (places[0].epoch, len(events) + 1) or last.epoch != places[0].epoch
        sent = [(f"id-{number}", b'{"number":%d}' % number) for number in range(1, EVENTS + 1)]
        altered = sum((event.id, event.data) != one for event, one in zip(events, sent, strict=False))
        assert altered <= (0 if is_cut else 1), f"{altered} events are others"
        assert not is_cut or len(events) >= EVENTS - MOST_LOST, f"{EVENTS - len(events)} events are gone"
        return "altered" if altered else "whole" if len(events) == EVENTS else "shorter"


def damage(redis: RedisServer, chance: random.Random, is_cut: bool) -> None:
    """Take away the last bytes, or change one of an event's entry."""
    [path] = _files(redis).glob("*.incr.aof")
    content = bytearray(path.read_bytes())
    if is_cut:
        del content[-chance.randrange(1, MOST_CUT + 1) :]
    else:
        entry = chance.choice([found.end() for found in re.finditer(b":log:" + ROOM.encode(), content)])
        content[min(entry + chance.randrange(NEAR), len(content) - 1)] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _files(redis: RedisServer) -> Path:
    [folder] = redis.folder.glob("appendonly*")
    return folder


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=count, default=100, help="how often")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(dict(asyncio.run(prove(Path(folder), times=given.times, seed=given.seed))))
    sys.exit(0)


if __name__ == "__main__":
    main()
