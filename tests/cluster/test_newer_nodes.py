"""A node of a newer version on the same Redis, as during a rolling update: it writes what this version knows, and more beside it."""

from __future__ import annotations

import asyncio
import json
import time

from aibos_realtime import Position
from aibos_realtime.backends.redis.intake import RedisIntake
from tests.servers.redis import RedisServer
from tests.unit.backends.redis.log_rig import Bench, draft, log_on, members_on


class NewerNode:
    """Publishes by hand, with a field more wherever there is a place for one."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def publish(self, place: Position) -> None:
        """The next event of the room, whose last one is at a place."""
        command, key = self._bench.command, self._bench.key
        offset, now = place.offset + 1, int(time.time() * 1000)
        record = json.dumps({"e": "note", "d": {"number": offset}, "i": f"newer-{offset}", "signature": "x"})
        words = ("p", f"{place.epoch} {offset} {now}", "m", "lobby", "r", record, "k", "1", "lane", "7")
        await command("XADD", self._bench.shard_key("intake"), "*", *words)
        await command("XADD", key("log"), f"{offset}-0", "r", record, "t", str(now), "lane", "7")
        await command("HSET", key("head"), "offset", str(offset), "ms", str(now), "lane", "7")
        await command("HSET", self._bench.shard_key("state"), "lane", "7")
        await command("SPUBLISH", key("room"), f"e{place.epoch} {offset} {now} {record}")

    async def say(self, message: str) -> None:
        """Something on the channel of the room."""
        await self._bench.command("SPUBLISH", self._bench.key("room"), message)


async def test_what_a_newer_node_adds_costs_no_event(redis_server: RedisServer, redis_prefix: str) -> None:
    """With one field more in what waits for the database, an older node that drained took acknowledged events for none of ours, and dropped them."""
    async with (
        log_on(redis_server.url, redis_prefix, node="newer", has_store=True) as bench,
        members_on(redis_server.url, redis_prefix, 1) as (older,),
    ):
        await older.watch("lobby")
        [first] = await bench.append(draft())
        if first.position is None:
            await bench.begin()
            [first] = await bench.append(draft())
        assert first.position is not None
        newer = NewerNode(bench)
        await newer.publish(first.position)
        epoch = first.position.epoch
        await older.until_at(Position(epoch, 2))
        stretch = await older.log.read_after("lobby", Position(epoch, 0), 10)
        assert [event.offset for event in stretch.events] == [1, 2] and json.loads(stretch.events[1].data) == {"number": 2}
        waiting = await RedisIntake(bench.log).read(0, None, 10)
        assert [entry.event.offset for entry in waiting if entry.event is not None] == [1, 2]
        assert older.metrics.foreign_records == 0
        third = await older.publish()
        assert (third.epoch, third.offset) == (epoch, 3) and older.resyncs() in ([], [Position(epoch, 0)])


async def test_a_kind_of_message_that_is_not_known_is_counted_and_passed_over(redis_server: RedisServer, redis_prefix: str) -> None:
    async with log_on(redis_server.url, redis_prefix, node="newer") as bench, members_on(redis_server.url, redis_prefix, 1) as (older,):
        await older.watch("lobby")
        newer = NewerNode(bench)
        for message in ("q1 2 3", "Z{}", "\u00e4", ""):
            await newer.say(message)
        await older.until_at(await older.publish())
        async with asyncio.timeout(5):
            while older.metrics.foreign_records < 4:
                await bench.command("PING")
        assert older.metrics.foreign_records == 4 and len(older.events()) == 1
