"""How soon is noticed what nodes did not hear, and how often an id is published that comes by several ways at once: by the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime.testing.clock import settle
from tests.model.judge import check_quiet
from tests.model.world import World

ROOM = "tenant_a:1"
STEP = 0.05


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three servers; ann, bob and dan are in a room, each on one of them."""
    world = World(2, nodes=3, has_store=True)
    async with world.cluster:
        for number, user in enumerate(("ann", "bob", "dan")):
            await world.connect(number, user, "user", 3600.0, "json")
            await world.join(number, ROOM, "plain")
        yield world


async def go_on(world: World, until: Any, seconds: float) -> float:
    """Let time pass until something holds; how long that took."""
    began = world.clock.monotonic()
    while not until() and world.clock.monotonic() - began < seconds:
        await world.clock.advance(STEP)
        world.look()
    assert until(), f"not within {seconds} s"
    return world.clock.monotonic() - began


def are_level(world: World) -> bool:
    """Whether everybody has what the log has."""
    head = world.cluster.log.head(ROOM)
    return head is not None and all((at := view.rooms[ROOM]) is not None and at.offset == head.offset for view in world.views)


async def test_what_is_lost_now_and_then_comes_within_moments(world: World) -> None:
    """One message in a hundred is lost, doubled or late, at ten events a second: nine in ten of those that are not heard are there with the next."""
    for node in world.cluster.nodes:
        node.link.fate = lambda: world.chance.choices([[0.0], [], [0.0, 0.0], [0.12]], [97, 1, 1, 1])[0]
    waits: list[float] = []
    seen = dict.fromkeys(world.views, 0)
    began = world.clock.monotonic()
    for turn in range(2 * 600):
        if turn % 2 == 0:
            await world.publish(turn, ROOM, 1)
        await world.clock.advance(STEP)
        world.look()
        for view in world.views:
            at = view.rooms[ROOM]
            assert at is not None
            waits += [world.clock.monotonic() - began - (offset - 1) * 2 * STEP for offset in range(seen[view] + 1, at.offset + 1)]
            seen[view] = at.offset
    late = sorted(wait for wait in waits if wait > 1.5 * STEP)
    assert len(late) >= 10 and late[int(len(late) * 0.9)] <= 3.5 * STEP and late[-1] <= 10.0
    assert sum(node.server.metrics.gaps_repaired for node in world.cluster.nodes) >= 10
    assert sum(node.server.metrics.gaps_lost for node in world.cluster.nodes) == 0


async def test_a_gap_is_filled_when_the_next_event_is_heard(world: World) -> None:
    """A lost message costs no more than the time to the next one."""
    link = world.cluster.nodes[1].link
    for _ in range(50):
        link.fate = lambda: []
        await world.publish(0, ROOM, 1)
        link.fate = None
        await world.publish(0, ROOM, 1)
        assert await go_on(world, lambda: are_level(world), 0.1) <= 0.1


async def test_the_last_event_of_a_quiet_room_is_found(world: World) -> None:
    """Nobody speaks after it: looking finds it."""
    waits = []
    for _ in range(20):
        for node in world.cluster.nodes:
            node.link.fate = lambda: []
        await world.publish(0, ROOM, 1)
        for node in world.cluster.nodes:
            node.link.fate = None
        waits.append(await go_on(world, lambda: are_level(world), 10.0))
        await world.advance(world.chance.random() * 3.0)
    assert max(waits) > 0.5, "it was not lost"


async def test_an_id_that_comes_fifty_times_over_three_nodes_is_published_once(world: World) -> None:
    """The same person, on each node, in the same moment; then with another content, then in another room, then after five minutes."""
    for number in (1, 2):
        await world.connect(number, "ann", "user", 3600.0, "json")
    mine = [view for view in world.views if view.user == "ann"]
    assert len({view.node.id for view in mine}) == 3
    for number in range(50):
        mine[number % 3].send("note", {"k": 0}, ROOM, room=ROOM, id="once")
    await settle(60)
    world.look()
    acks = [message["data"] for view in mine for _, message in view.answers if message["event"] == "ack"]
    assert len(acks) == 50
    assert len({(ack["epoch"], ack["offset"]) for ack in acks}) == 1 and [ack["duplicate"] for ack in acks].count(False) == 1
    mine[1].send("note", {"k": 1}, ROOM, room=ROOM, id="once")
    mine[2].send("note", {"k": 0}, ROOM, room="tenant_a:2", id="once")
    await world.settle()
    assert mine[1].answers[-1][1]["data"]["code"] == "idempotency_conflict"
    assert mine[2].answers[-1][1]["data"]["duplicate"] is False
    await world.advance(301.0)
    mine[1].send("note", {"k": 0}, ROOM, room=ROOM, id="once")
    await world.advance(1.0)
    late = mine[1].answers[-1][1]["data"]
    assert late["duplicate"] is False and late["offset"] == acks[0]["offset"] + 1
    store = world.cluster.store
    assert store is not None and [row.offset for row in store.rows if row.room == ROOM] == [1, 2], "what is stored late is not stored twice"
    await check_quiet(world)
