"""The number of rooms of a cluster: a place for each, none given back that is another's, and leftovers found when all seem taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from aibos_realtime import RoomLimitExceeded
from aibos_realtime.backends.redis import room_places as module
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.room_places import RoomPlaces
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.testing.clock import ManualClock
from tests.servers.redis import RedisServer


@dataclass
class Rig:
    """Places, and where they are."""

    client: Client
    layout: Layout
    clock: ManualClock
    places: RoomPlaces

    @property
    def key(self) -> str:
        return self.layout.of_nodes("rooms")

    async def taken(self) -> set[str]:
        return {name.decode() for name in await self.client.command("HKEYS", self.key)}

    async def make(self, room: str) -> None:
        """The room itself, as far as anybody asks."""
        meta = self.layout.of_room(room, "meta")
        await self.client.command("HSET", meta, "birth", "b", "name", room, "type", "room", "max_users", 0, "guests", 0, "created", 1)


@pytest.fixture
async def rig(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Rig]:
    client = Client(read_url(redis_server.url))
    await client.open()
    layout, clock = Layout(redis_prefix, 4), ManualClock()
    yield Rig(client, layout, clock, RoomPlaces(client, layout, clock=clock))
    await client.close()


async def test_no_more_than_the_limit(rig: Rig) -> None:
    marks = {room: await rig.places.reserve(room, 2) for room in ("a", "b")}
    assert await rig.places.reserve("a", 2) != marks["a"], "who comes again has a place of his own"
    with pytest.raises(RoomLimitExceeded, match="All 2"):
        await rig.places.reserve("c", 2)
    await rig.places.release("a", marks["a"])
    assert await rig.taken() == {"a", "b"}, "it was taken anew since"
    await rig.places.release("b", marks["b"])
    await rig.places.reserve("c", 2)
    await rig.places.reserve("d", None)
    assert await rig.taken() == {"a", "c", "d"}


async def test_leftovers_are_found_when_all_seem_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_USE", -1000)
    for room in ("there", "lost", "lost_too"):
        await rig.places.reserve(room, 3)
    await rig.make("there")
    await rig.client.command("HSET", rig.key, b"\xff", "garbage")
    await rig.places.reserve("new", 3)
    assert await rig.taken() == {"there", "new"}
    await rig.make("new")
    await rig.places.reserve("third", 3)
    with pytest.raises(RoomLimitExceeded):
        await rig.places.reserve("fourth", 3)  # they were looked for a moment ago
    await rig.clock.advance(module.SEARCH_EVERY)
    await rig.places.reserve("fourth", 3)
    assert await rig.taken() == {"there", "new", "fourth"}


async def test_a_place_that_was_just_taken_is_no_leftover(rig: Rig) -> None:
    await rig.places.reserve("soon", 1)
    with pytest.raises(RoomLimitExceeded):
        await rig.places.reserve("other", 1)
    assert await rig.taken() == {"soon"}


async def test_places_that_were_lost_are_taken_again(rig: Rig) -> None:
    await rig.client.command("SET", rig.key, "x")
    await rig.places.release("a", "mark")
    await rig.places.take_again([f"room_{number}" for number in range(450)])
    assert len(await rig.taken()) == 450
    await rig.places.take_again([])
