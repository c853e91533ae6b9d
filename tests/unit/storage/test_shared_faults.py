"""Whatever goes wrong between several nodes and the log that they share, in whatever order: no gap is silent, and nobody is told anything twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aibos_realtime import BrokerUnavailable
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.shared_log import SETTLING
from tests.unit.storage.shared_rig import Nodes

ROOMS = ("lobby", "office")

number = st.integers(0, 2)
room = st.sampled_from(ROOMS)
seconds = st.sampled_from([0.0, 0.1, 0.6, 1.5, 4.0])

HARMLESS: list[Any] = [
    st.tuples(st.just("publish"), number, room, st.integers(1, 6)),
    st.tuples(st.just("publish"), number, room, st.integers(1, 6)),
    st.tuples(st.just("many"), number, room, st.sampled_from([20, 120])),
    st.tuples(st.just("keyed"), number, room, st.sampled_from("xyz")),
    st.tuples(st.just("wait"), number, room, seconds),
    st.tuples(st.just("wait"), number, room, seconds),
    st.tuples(st.just("messages"), number, room, st.integers(1, 5)),
    st.tuples(st.just("deaf"), number, room, st.booleans()),
    st.tuples(st.just("lose_connection"), number, room, st.none()),
    st.tuples(st.just("cut_replies"), number, room, st.integers(1, 3)),
    st.tuples(st.just("cut_off"), number, room, st.booleans()),
    st.tuples(st.just("down"), number, room, st.booleans()),
    st.tuples(st.just("restart"), number, room, st.none()),
    st.tuples(st.just("leave"), number, room, st.none()),
]
LOSSES: list[Any] = [
    st.tuples(st.just("many"), number, room, st.just(600)),
    st.tuples(st.just("fail_over"), number, room, st.integers(0, 12)),
    st.tuples(st.just("forget_all"), number, room, st.none()),
    st.tuples(st.just("fork"), number, room, st.integers(1, 12)),
    st.tuples(st.just("fork"), number, room, st.integers(1, 12)),
]


def act(nodes: Nodes, chance: random.Random, is_lossless: bool, what: str, where: int, room: str, how: Any) -> None:
    """One step, which waits for nothing."""
    node, log = nodes[where], nodes.log
    if what == "publish" or what == "many":
        for _ in range(how):
            nodes.publish(where, room, history_size=4000 if is_lossless else 500)
    elif what == "keyed":
        nodes.publish(where, room, id=how, keyed=True)
    elif what == "messages":
        table: dict[int, list[list[float]]] = {2: [[0.0], []], 3: [[0.0], [0.0, 0.0], [0.3]], 4: [[0.0], [0.0, 0.7], [], [0.2]], 5: [[]]}
        node.link.fate = None if how == 1 else lambda: chance.choice(table[how])
    elif what == "deaf":
        node.link.is_deaf = how
        node.link.deaf_rooms ^= {room}
    elif what == "lose_connection":
        node.link.lose_connection()
    elif what == "cut_replies":
        node.link.replies_lost = how
    elif what == "cut_off":
        node.link.is_cut_off = how and not is_settling(nodes)
    elif what == "down":
        log.is_down = how
    elif what == "restart":
        log.restart()
    elif what == "fail_over":
        fail_over(nodes, how)
    elif what == "forget_all":
        log.forget_all()


async def run(steps: list[tuple[str, int, str, Any]], seed: int, *, has_store: bool, is_lossless: bool) -> None:
    chance = random.Random(seed)
    async with Nodes(3, has_store=has_store) as nodes:
        for node in nodes.nodes:
            node.link.turns = lambda: chance.choice([0, 1, 1, 3])
            await node.watch(*ROOMS)
        for what, where, room, how in steps:
            if what == "wait":
                await nodes.clock.advance(how)
            elif what == "fork":
                await fork(nodes, chance, where, room, how)
            elif what == "leave":
                await leave_and_return(nodes, where, room)
            else:
                act(nodes, chance, is_lossless, what, where, room, how)
                await settle(chance.choice([0, 1, 2, 5, 25]))
        await nodes.be_quiet()
        for node in nodes.nodes:
            assert node.broker.is_available
        nodes.check(ROOMS, is_lossless=is_lossless)


def fail_over(nodes: Nodes, lost: int) -> None:
    """What a node saw that is cut off from the log just then, the others cannot know: that is promised to nobody."""
    for node in nodes.nodes:
        node.link.is_cut_off = False
    nodes.failed_over_at = nodes.clock.monotonic()
    nodes.log.fail_over(lost)


def is_settling(nodes: Nodes) -> bool:
    return nodes.log.is_down or nodes.clock.monotonic() - nodes.failed_over_at < 2 * SETTLING


async def fork(nodes: Nodes, chance: random.Random, where: int, room: str, lost: int) -> None:
    """What one node published is lost, and another one, which has not heard of that, publishes at once."""
    nodes[where + 1].link.is_deaf = True
    for _ in range(lost):
        nodes.publish(where, room)
    await settle(chance.choice([1, 5, 25]))
    fail_over(nodes, lost)
    for _ in range(chance.choice([1, lost, lost + 5])):
        nodes.publish(where + 1, room)
    await nodes.clock.advance(chance.choice([0.0, 0.3, 1.2, 3.0]))


async def leave_and_return(nodes: Nodes, where: int, room: str) -> None:
    """Nobody is there for a while, and then somebody is, if the log answers: he begins where he is told."""
    node = nodes[where]
    node.watcher.watched.discard(room)
    await nodes.clock.advance(8.0)
    node.watcher.told[room] = []
    watching = asyncio.ensure_future(node.watch(room))
    await nodes.clock.advance(3.0)
    try:
        await watching
    except BrokerUnavailable:
        node.watcher.watched.discard(room)


@given(steps=st.lists(st.one_of(HARMLESS), max_size=25), seed=st.integers(0, 2**16))
@settings(max_examples=150)
def test_while_the_log_loses_nothing_every_event_comes_once_and_in_order(steps: list[Any], seed: int) -> None:
    asyncio.run(run(steps, seed, has_store=False, is_lossless=True))


# The log in memory once answered that it would be in doubt for 4e-16 s more, and a wait of that moves no clock: everybody asked again, for ever.
NO_TIME_LEFT = [
    ("leave", 2, "office", None), ("leave", 1, "lobby", None), ("wait", 1, "lobby", 1.5), ("forget_all", 2, "lobby", None),
    ("cut_replies", 2, "office", 2), ("deaf", 0, "office", False), ("wait", 0, "office", 0.1), ("many", 0, "lobby", 600),
    ("forget_all", 0, "office", None), ("down", 0, "lobby", False), ("publish", 0, "lobby", 6), ("restart", 1, "lobby", None),
]  # fmt: skip


@pytest.mark.parametrize("has_store", [False, True])
@example(steps=NO_TIME_LEFT, seed=564)
@given(steps=st.lists(st.one_of(HARMLESS + LOSSES), max_size=25), seed=st.integers(0, 2**16))
@settings(max_examples=150)
def test_what_the_log_loses_is_told_before_anything_later(has_store: bool, steps: list[Any], seed: int) -> None:
    asyncio.run(run(steps, seed, has_store=has_store, is_lossless=False))
