"""The acts of the model by name: what can be drawn, and how each is done. A step is a plain tuple, so a failing run can be pasted into a test."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from typing import Any

from tests.model.judge import check_empty, check_quiet, measure
from tests.model.ledger import Fault
from tests.model.world import ROOMS, USERS, World

Step = tuple[str, int, str, str, Any]
"""what, a number (of a node or a connection), a room, a user, how"""

ROLES = ("user", "user", "user", "user", "reader", "none")
JOINS = ("plain", "plain", "true", "true", "old", "foreign", "forged", "negative", "beyond", "huge", "rewind", "watch")
FATES: dict[int, list[list[float]]] = {1: [[0.0], []], 2: [[0.0], [0.0, 0.0], [0.3]], 3: [[0.0], [0.0, 0.7], [], [0.2]], 4: [[]]}
"""Delays of the copies of a message: none is a loss."""

COMMON: dict[str, list[Any]] = {
    "connect": [(role, seconds, kind) for role in ROLES for seconds in (4.0, 40.0, 3600.0, 3600.0) for kind in ("json", "json", "msgpack", "late")],
    "join": list(JOINS),
    "publish": [1, 1, 3, 6, 60],
    "keyed": [(id, content) for id in "xyz" for content in (0, 0, 0, 1)],
    "wait": [0.0, 0.1, 0.6, 1.5, 4.0, 12.0],
    "rush": [2, 4, 8],
}
USUAL: dict[str, list[Any]] = COMMON | {
    "leave-room": [None],
    "history": [None],
    "presence": [None],
    "stall": [True, True, False],
    "part": [True, False],
    "refresh": [(role, seconds) for role in ROLES for seconds in (3.0, 60.0)],
    "impersonate": [None],
    "broadcast": [(excluded, is_volatile) for excluded in (True, False) for is_volatile in (True, False, False)],
    "wide": [True, False],
    "kick": ["kick", "kick", "kick", "leave", "destroy"],
    "put": [None],
    "role": list(ROLES),
    "revoke": [None],
    "jump": [3600.0, -3600.0],
}
HARMLESS: dict[str, list[Any]] = {
    "messages": [1, 2, 3, 4, None],
    "deaf": [True, False],
    "deaf_room": [None],
    "lose_connection": [None],
    "cut_replies": [1, 2, 3],
    "cut_off": [True, False, False],
    "down": [True, False, False],
    "hung": [True, False, False],
    "restart": [None],
    "kill": [None],
    "stop": [None],
    "begin": [None],
    "heal": [None],
}
LOSSES: dict[str, list[Any]] = {"fail_over": [0, 1, 3, 12], "forget_all": [None], "expire": [30.0, 400.0]}


BEGINNING: list[Step] = [
    ("connect", 0, "", "ann", ("user", 3600.0, "json")), ("connect", 1, "", "bob", ("user", 3600.0, "msgpack")),
    ("connect", 2, "", "cat", ("user", 3600.0, "json")), ("connect", 1, "", "dan", ("user", 3600.0, "json")),
    ("connect", 2, "", "ann", ("user", 3600.0, "json")),
    ("join", 1, "tenant_a:1", "", "plain"), ("join", 3, "tenant_a:1", "", "watch"), ("join", 4, "tenant_a:1", "", "plain"),
    ("join", 1, "tenant_a:small", "", "plain"), ("join", 2, "tenant_b:1", "", "plain"), ("publish", 1, "tenant_a:1", "", 3),
]  # fmt: skip
"""Before the steps of a run: somebody is there, and something has happened."""


def draw(chance: random.Random, table: dict[str, list[Any]]) -> Step:
    """One step by chance; the common ones half of the time."""
    names = list(COMMON) if chance.random() < 0.5 else list(table)
    what = chance.choice(names)
    return what, chance.randrange(6), chance.choice(ROOMS), chance.choice(list(USERS)), chance.choice(table[what])


async def do(world: World, step: Step) -> None:
    """One act of a client or of a server; what is none, is a fault (`break_something`)."""
    what, n, room, user, how = step
    if what == "connect":
        await world.connect(n, user, *how)
    elif what == "join":
        await world.join(n, room, how)
    elif what == "publish":
        await world.publish(n, room, how)
    elif what == "keyed":
        await world.publish_keyed(n, room, *how)
    elif what == "wait":
        await world.advance(how)
    elif what in ("leave-room", "history", "presence"):
        await world.request(n, what, room)
    elif what == "stall":
        world.stall(n, how)
    elif what == "part":
        await world.part(n, how)
    elif what == "refresh":
        await world.refresh(n, *how)
    elif what == "impersonate":
        await world.refresh(n, "user", 3600.0, user)
    elif what == "broadcast":
        await world.broadcast(n, room, user if how[0] else None, how[1])
    elif what == "wide":
        await world.broadcast_wide(n, user if how else None)
    elif what == "kick":
        await world.kick(n, room, user, how)
    elif what == "put":
        await world.put(n, room, user)
    elif what == "role":
        await world.set_role(n, user, how)
    elif what == "revoke":
        await world.revoke(n, user)
    elif what == "rush":
        world.rush = how
        return
    elif what == "jump":
        world.jump(how)
    else:
        await break_something(world, step)
        await world.settle()


async def break_something(world: World, step: Step) -> None:
    what, n, room, _, how = step
    node, log = world.node(n), world.cluster.log
    if what == "begin":
        await world.begin(n)
    elif what == "down":
        log.is_down = how
    elif what == "hung":
        log.is_hung = how
    elif what == "restart":
        log.restart()
    elif what == "heal":
        world.cluster.heal()
    elif what == "fail_over":
        world.fail_over(how)
    elif what == "forget_all":
        world.forget_all()
    elif what == "expire":
        world.expire(how)
    elif node is None:
        return
    elif what == "messages":
        node.link.fate = None if how is None else lambda: world.chance.choice(FATES[how])
    elif what == "deaf":
        node.link.is_deaf = how
    elif what == "deaf_room":
        node.link.deaf_rooms ^= {room}
    elif what == "lose_connection":
        node.link.lose_connection()
    elif what == "cut_replies":
        node.link.replies_lost = how
    elif what == "cut_off":
        node.link.is_cut_off = how and not world.is_settling
    elif what == "kill":
        world.end(node, is_killed=True)
    elif what == "stop":
        world.end(node, is_killed=False)
    else:
        raise ValueError(f"there is no step {what}")


class Complaints(logging.Handler):
    """What the product logged as a failure of itself, or left in a task that nobody looked at."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")

    def take(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.found.append(f"{context.get('message')}: {context.get('exception')!r} {context.get('future') or context.get('task') or ''}")


async def play(steps: list[Step], seed: int, *, has_store: bool, nodes: int = 3) -> None:
    """Do the steps, then see that everything is right again, and that nothing is left. Raises `Fault`."""
    complaints = Complaints()
    asyncio.get_running_loop().set_exception_handler(complaints.take)
    logger = logging.getLogger("aibos_realtime")
    level, logger.propagate = logger.level, False
    logger.setLevel(logging.WARNING)
    logger.addHandler(complaints)
    world = World(seed, nodes=nodes, has_store=has_store)
    try:
        async with world.cluster:
            idle = await measure(world)
            for step in BEGINNING + steps:
                await do(world, step)
            await check_quiet(world)
            await check_empty(world, idle)
    finally:
        logger.removeHandler(complaints)
        logger.setLevel(level)
        logger.propagate = True
    gc.collect(0)
    if complaints.found:
        raise Fault(f"something failed in itself: {complaints.found[0]}")


def run(steps: list[Step], seed: int, *, has_store: bool, nodes: int = 3) -> None:
    """The same, on a loop of its own."""
    asyncio.run(play(steps, seed, has_store=has_store, nodes=nodes))
