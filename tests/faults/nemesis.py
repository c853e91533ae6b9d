"""What goes wrong in the soak, and when: a fault every few seconds, drawn by a seed, each mended within a bounded time; some overlap.

Two faults of one part never do: the later one waits. What becomes of the events meanwhile is not judged here.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.clients import pause
from tests.faults.proxy import Blackhole, CutBeforeReply, Delay, Mode, Pass, Proxy, Rate, Reset
from tests.faults.redis_data import start as start_redis
from tests.faults.soak_program import MOST_SKEW
from tests.faults.soak_site import NODES, Site

Part = Literal["node", "clock", "worker", "redis", "postgresql", "line to redis", "line to postgresql", "line to clients"]
Act = Callable[[Site, int, float, random.Random], Awaitable[None]]
"""(site, which one of several, seconds, chance): makes it, and mends it, also when it is cancelled."""

PARTS: dict[Part, int] = {
    "node": NODES, "clock": NODES, "worker": 2, "redis": 1, "postgresql": 1, "line to redis": NODES, "line to postgresql": NODES,
    "line to clients": NODES,
}  # fmt: skip
"""How many there are of each."""

LONG = 0.25
"""The share of faults that last longer than the time to the next one, and so overlap with others."""
SHORTEST = 0.5
"""Seconds."""
MOST_HEALING = 60.0
"""Seconds beyond its own time within which a fault is mended."""


@dataclass(frozen=True)
class Kind:
    """One way in which one part fails."""

    part: Part
    act: Act


@dataclass(frozen=True)
class Plan:
    """One fault that will come. `at`: seconds from the beginning; `seconds`: how long it lasts; `seed`: of what chance decides in it."""

    at: float
    kind: str
    number: int
    seconds: float
    seed: int


@dataclass
class Fault:
    """One that came. Times are monotonic seconds; `healed`: when it was over; `complaint`: what did not come about."""

    plan: Plan
    began: float
    healed: float = 0.0
    complaint: str | None = None


async def kill_node(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGKILL, and a start on the same port after a while."""
    node = site.nodes[number]
    await node.process.kill()
    try:
        await pause(seconds)
    finally:
        await node.start()


async def pause_node(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGSTOP: the kernel goes on acknowledging packets of its clients, of Redis and of PostgreSQL."""
    process = site.nodes[number].process
    process.pause()
    try:
        await pause(seconds)
    finally:
        process.resume()


async def terminate_node(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGTERM, whatever else has failed, and a start."""
    node = site.nodes[number]
    try:
        await node.terminate()
    finally:
        await node.start()


def skew_clock(skew: float) -> Act:
    """Its clock jumps, and back."""

    async def act(site: Site, number: int, seconds: float, chance: random.Random) -> None:
        site.nodes[number].set_clock(skew)
        try:
            await pause(seconds)
        finally:
            site.nodes[number].set_clock(0.0)

    return act


async def kill_worker(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGKILL, in whatever it is doing, and a new one after a while."""
    worker = site.workers[number]
    await worker.process.kill()
    try:
        await pause(seconds)
    finally:
        await worker.start()


async def pause_worker(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGSTOP for longer than what it has taken stays its own."""
    process = site.workers[number].process
    process.pause()
    try:
        await pause(seconds)
    finally:
        process.resume()


async def kill_redis(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGKILL, and after a while a start on its append-only file."""
    site.redis.stop(signal.SIGKILL)
    try:
        await pause(seconds)
    finally:
        await start_redis(site.redis)


async def pause_redis(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGSTOP: connections stay open, and nothing is answered."""
    site.redis.pause()
    try:
        await pause(seconds)
    finally:
        site.redis.go_on()


async def kill_subscribers(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """Every connection on which nodes hear is closed by Redis, again and again."""
    for _ in range(3):
        assert site.redis.execute("CLIENT", "KILL", "TYPE", "pubsub").startswith(b":")
        await pause(chance.uniform(0, seconds / 2))


async def kill_postgres(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """SIGKILL for every process of it, and after a while a start: it recovers from its write-ahead log."""
    assert site.store is not None
    await site.store.stop(signal.SIGKILL)
    try:
        await pause(seconds)
    finally:
        await site.store.start()


async def pause_postgres(site: Site, number: int, seconds: float, chance: random.Random) -> None:
    """Nothing of it runs; connections stay open."""
    assert site.store is not None
    site.store.postgres.pause()
    try:
        await pause(seconds)
    finally:
        site.store.postgres.resume()


def line_of(site: Site, part: Part, number: int) -> Proxy:
    """The one between a node and something else."""
    node = site.nodes[number]
    line = node.redis if part == "line to redis" else node.store if part == "line to postgresql" else node.clients
    assert line is not None
    return line


def in_mode(part: Part, make: Callable[[random.Random], Mode]) -> Act:
    """The line in this mode for the time."""

    async def act(site: Site, number: int, seconds: float, chance: random.Random) -> None:
        line = line_of(site, part, number)
        line.mode = make(chance)
        try:
            await pause(seconds)
        finally:
            line.mode = Pass()

    return act


def reset_often(part: Part) -> Act:
    """Every connection of the line ends by RST, and new ones are let through, three times."""

    async def act(site: Site, number: int, seconds: float, chance: random.Random) -> None:
        for _ in range(3):
            line_of(site, part, number).reset()
            await pause(chance.uniform(0, seconds / 2))

    return act


def cut_replies(part: Part) -> Act:
    """An answer never comes, on one connection after another: what was asked for is done, and who asked cannot know."""

    async def act(site: Site, number: int, seconds: float, chance: random.Random) -> None:
        line = line_of(site, part, number)
        try:
            async with asyncio.timeout(seconds):
                for _ in range(3):
                    before = line.cuts
                    line.mode = CutBeforeReply(chance.randrange(1, 10))
                    await line.until_cut(before + 1)
        except TimeoutError:
            pass  # nobody asked that often
        finally:
            line.mode = Pass()

    return act


def _kinds_of_line(part: Part) -> dict[str, Kind]:
    acts = {
        "cut": in_mode(part, lambda chance: Reset()),
        "silent": in_mode(part, lambda chance: Blackhole()),
        "silent upwards": in_mode(part, lambda chance: Blackhole("up")),
        "silent downwards": in_mode(part, lambda chance: Blackhole("down")),
        "slow": in_mode(part, lambda chance: Delay(chance.uniform(0.05, 0.3), jitter=0.05, seed=chance.randrange(1000))),
        "a trickle": in_mode(part, lambda chance: Rate(20_000)),
        "reset": reset_often(part),
        "replies cut": cut_replies(part),
    }
    return {f"{part}: {name}": Kind(part, act) for name, act in acts.items()}


KINDS: dict[str, Kind] = {
    "node: killed": Kind("node", kill_node),
    "node: paused": Kind("node", pause_node),
    "node: terminated": Kind("node", terminate_node),
    "clock: ahead": Kind("clock", skew_clock(MOST_SKEW)),
    "clock: behind": Kind("clock", skew_clock(-MOST_SKEW)),
    "worker: killed": Kind("worker", kill_worker),
    "worker: paused": Kind("worker", pause_worker),
    "redis: killed": Kind("redis", kill_redis),
    "redis: paused": Kind("redis", pause_redis),
    "redis: subscribers killed": Kind("redis", kill_subscribers),
    "postgresql: killed": Kind("postgresql", kill_postgres),
    "postgresql: paused": Kind("postgresql", pause_postgres),
    **_kinds_of_line("line to redis"),
    **_kinds_of_line("line to postgresql"),
    **_kinds_of_line("line to clients"),
}
"""What goes wrong, by name."""


def kinds_for(store: str) -> list[str]:
    """Those that can happen with a store."""
    return [name for name, kind in KINDS.items() if store == "postgresql" or "postgresql" not in kind.part]


def draw(seed: int, seconds: float, *, interval: float, longest: float, kinds: list[str]) -> list[Plan]:
    """What comes within so many seconds: a fault at a moment of each interval, every kind as often as any other."""
    chance = random.Random(seed)
    plans: list[Plan] = []
    bag: list[str] = []
    for number in range(int(seconds / interval)):
        if not bag:
            bag = chance.sample(kinds, len(kinds))
        kind = bag.pop()
        is_long = chance.random() < LONG
        lasts = chance.uniform(min(interval, longest), longest) if is_long else chance.uniform(SHORTEST, min(interval, longest) * 0.6)
        at = interval * (number + chance.uniform(0, 0.3))
        plans.append(Plan(at, kind, chance.randrange(PARTS[KINDS[kind].part]), lasts, chance.randrange(2**32)))
    return plans


@dataclass
class Nemesis:
    """Has the faults happen. `tell`: called with each one that is over."""

    site: Site
    tell: Callable[[Fault], None]
    faults: list[Fault] = field(default_factory=list)
    _locks: dict[tuple[Part, int], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def run(self, plans: list[Plan]) -> None:
        """All of them, each at its time; returns when the last one is mended. Cancelling mends what is there."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for plan in plans:
                await pause(max(0.0, began + plan.at - time.monotonic()))
                group.create_task(self._act(plan))

    async def _act(self, plan: Plan) -> None:
        kind = KINDS[plan.kind]
        async with self._locks[kind.part, plan.number]:
            fault = Fault(plan, time.monotonic())
            self.faults.append(fault)
            try:
                async with asyncio.timeout(plan.seconds + MOST_HEALING):
                    await kind.act(self.site, plan.number, plan.seconds, random.Random(plan.seed))
            except (AssertionError, RuntimeError, TimeoutError) as error:
                fault.complaint = f"{type(error).__name__}: {error}"
            fault.healed = time.monotonic()
            self.tell(fault)
