"""Erasing from the shared log, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aibos_realtime.backends.base import Draft
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.erasure import RedisErasure
from aibos_realtime.backends.redis.intake import RedisIntake
from aibos_realtime.backends.redis.log import RedisLog
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.storage.shared_broker import SharedBroker


class Bench:
    def __init__(self, url: str, prefix: str) -> None:
        self.client = Client.from_options(RedisOptions(url=url, prefix=prefix))
        self.log = RedisLog(self.client, prefix=prefix, node="one", has_store=True)
        self.broker = SharedBroker(self.log)
        self.intake = RedisIntake(self.log)
        self.erasure = RedisErasure(self.log, clock=SYSTEM_CLOCK)

    async def publish(self, room: str, user_id: str, count: int) -> None:
        drafts = (Draft(room, "note", b"1", f"{room}-{user_id}-{number}", user_id=user_id) for number in range(count))
        await asyncio.gather(*(self.broker.publish(draft) for draft in drafts))

    async def users(self, room: str) -> list[str | None]:
        return [event.user_id for event in (await self.broker.read_before(room, None, 500)).events]


@pytest.fixture
async def bench(redis_url_any: str, redis_prefix: str) -> AsyncIterator[Bench]:
    bench = Bench(redis_url_any, redis_prefix)
    await bench.client.open()
    await bench.broker.start()
    yield bench
    await bench.broker.stop()
    await bench.client.close()


async def test_what_is_meant_goes_out_of_every_room_and_the_rest_stays(bench: Bench) -> None:
    for room in ("lobby", "tenant:1"):
        await bench.publish(room, "ann", 150)
        await bench.publish(room, "bob", 1)
    await bench.erasure.erase(lambda event: event.user_id == "ann")
    assert await bench.users("lobby") == await bench.users("tenant:1") == ["bob"]
    await bench.erasure.erase(lambda event: event.user_id == "ann")
    await bench.publish("lobby", "eve", 1)
    assert await bench.users("lobby") == ["bob", "eve"]


async def test_settling_waits_for_what_the_store_does_not_have(bench: Bench) -> None:
    await bench.publish("lobby", "ann", 3)
    assert await bench.intake.count() == 3
    settling = asyncio.ensure_future(bench.erasure.settle())
    shard = bench.log.shard("lobby")
    entries = await bench.intake.read(shard, None, 10)
    await bench.intake.drop(shard, entries[1].id)
    assert await bench.intake.count() == 1
    assert len(await bench.intake.read(shard, None, 10)) == 1 and not settling.done()  # asked for after it: it has seen what waits
    await bench.publish("lobby", "bob", 1)
    await bench.intake.drop(shard, entries[2].id)
    async with asyncio.timeout(3):
        await settling
    assert len(await bench.intake.read(shard, None, 10)) == 1, "what came later is not waited for"
