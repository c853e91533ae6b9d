"""One fault among several nodes, from a load that flows to a load that flows again: what was lost, who was told, how long it took.

What a fault does is elsewhere; what is promised of it stands beside it, in `Fault`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tests.faults.checker import History, Place, Verdict, check
from tests.faults.clients import pause
from tests.faults.journal import Acknowledged, Attempt, Delivered, Joined, Record, Told
from tests.faults.load import BOUND_PUBLISHER, BOUND_SUBSCRIBER, Load
from tests.faults.nodes import Nodes
from tests.faults.processes import Zygote
from tests.faults.redis_data import Places, until_drained
from tests.faults.replica import Replica
from tests.faults.rows import read_rows
from tests.servers.postgres import running_postgres
from tests.servers.redis import RedisServer, running_redis

Store = Literal["none", "sqlite", "postgresql"]
Ack = Literal["queued", "committed"]

CLIENTS: dict[str, Any] = {"heartbeat": {"interval": 0.5, "timeout": 1.0}, "connect_timeout": 1.5}
SPLIT = ("reused", "moved", "lost")
"""What becomes of events whose positions are those of others too. Without a store nothing of an epoch can be read once it has ended."""
SHARED_STORE = ThreadPoolExecutor(1, thread_name_prefix="postgres")
"""PostgreSQL ends with the thread that started it."""


@dataclass(frozen=True)
class Setting:
    """What the faults happen to. `rate`: publishes a second, of all publishers; `calm`: seconds of load before and after a fault."""

    store: Store = "none"
    ack: Ack = "queued"
    rate: float = 500.0
    calm: float = 3.0
    wanderers: int = 2
    seed: int = 1
    program: str | None = None
    """The Redis server's; None: the first that there is."""


@dataclass
class Bench:
    """What a fault may touch, and what it says of itself."""

    redis: RedisServer
    nodes: Nodes
    load: Load
    database: str
    seconds: float
    chance: random.Random
    ended: float | None = None
    """When it was over, in monotonic seconds; unless the fault says so, when it returns."""
    lost: Places = field(default_factory=set)
    """What Redis has lost, and nothing else has."""
    replica: Replica | None = None
    """Of `redis`, where the fault asks for one."""

    @property
    def kept_by_redis_alone(self) -> list[str] | None:
        """Rooms; None: what waits for the store."""
        return self.load.rooms if self.database == "memory://" else None


@dataclass(frozen=True)
class Fault:
    """`act` makes it and mends it, `seconds` long in full. In seconds, within which after its end every node acknowledges and delivers (`back`) and
    a publisher has heard of it meanwhile (`refusal`; None: nothing is promised)."""

    act: Callable[[Bench], Awaitable[None]]
    seconds: float = 5.0
    back: float = 2.0
    refusal: float | None = 2.5
    is_told: bool = False
    """Whether members may be told that continuity is lost."""
    has_lines: bool = False
    """Whether it is one of the lines between nodes and Redis that fails."""
    suits: Callable[[Setting], bool] = lambda setting: True
    """Where it can happen."""
    has_replica: bool = False
    """Whether Redis has a replica; implies lines, which a fail-over aims at it."""
    redis: Mapping[str, str] = field(default_factory=dict)
    """Settings of Redis."""
    is_split: bool = False
    """Whether some nodes go on with another Redis than the others: of what they did all members have to be told, since positions mean two things."""


@dataclass
class Outcome:
    """What became of one fault. `back`: seconds, of the slowest node; infinite: never."""

    name: str
    verdict: Verdict
    acknowledged_after: float
    delivered_after: float
    slowest_refusal: float
    complaints: list[str]

    @property
    def is_kept(self) -> bool:
        return not self.complaints


async def prove(
    zygote: Zygote, folder: Path, name: str, fault: Fault, setting: Setting, *, seconds: float | None = None, slack: float = 1.0
) -> Outcome:
    """One fault. `seconds`: how long it lasts, instead of in full; `slack`: how many times as long as promised everything may take."""
    chance = random.Random(setting.seed)
    complaints: list[str] = []
    with running_redis(setting.program, **fault.redis) as redis:
        async with (
            _replica(redis, fault, setting) as replica,
            _store(setting, folder) as database,
            _nodes(zygote, redis, folder, database, fault, setting) as nodes,
        ):
            async with _load(folder, nodes, setting) as load:
                await load.until_flowing(3)
                await load.until_everywhere()
                await pause(setting.calm)
                bench = Bench(redis, nodes, load, database, fault.seconds if seconds is None else seconds, chance, replica=replica)
                complaints += await _try_all(partial(fault.act, bench))
                ended = bench.ended or time.monotonic()
                complaints += await _try_all(
                    load.until_everywhere, load.until_flowing, partial(pause, setting.calm), load.settle, partial(until_drained, bench.redis)
                )
                log = await load.read_log()
            await nodes.stop()
            store = await read_rows(database)
    refusal = max((wait for one in load.publishers if not one.gives_up for wait in one.waits), default=0.0)
    records = load.read_journals()
    may_lack = _may_lack(bench, setting, records)
    verdict = check(History(records, log, store, may_be_late=True, may_announce=fault.is_told, may_lack=may_lack))
    if fault.is_split:
        complaints += excuse_split(verdict, records, (*SPLIT, "unlogged") if setting.store == "none" else SPLIT)
    outcome = Outcome(name, verdict, *measure_back(records, ended, len(nodes)), refusal, complaints)
    complaints += judge(outcome, fault, slack)
    return outcome


async def _try_all(*steps: Callable[[], Awaitable[None]]) -> list[str]:
    """What did not come about."""
    found: list[str] = []
    for step in steps:
        try:
            await step()
        except AssertionError as error:
            found.append(str(error))
    return found


def judge(outcome: Outcome, fault: Fault, slack: float) -> list[str]:
    """What was promised and not kept."""
    found = [] if outcome.verdict.is_clean else [str(outcome.verdict)]
    told = outcome.verdict.counts["told of a gap"]
    if told and not fault.is_told:
        found.append(f"subscribers were told {told} times of a gap")
    for what, took in (("acknowledge", outcome.acknowledged_after), ("deliver", outcome.delivered_after)):
        if took > fault.back * slack:
            found.append(f"not every node did {what} within {fault.back:g} s, but after {took:.1f} s")
    if fault.refusal is not None and outcome.slowest_refusal > fault.refusal * slack:
        found.append(f"a publisher heard of it after {outcome.slowest_refusal:.1f} s and not within {fault.refusal:g} s")
    return found


def excuse_split(verdict: Verdict, records: list[Record], excused: Sequence[str]) -> list[str]:
    """Take what two histories of one epoch bring about for no fault, provided that every member of every room was told; who was not."""
    joined, told = ({(one.client, one.room) for one in records if isinstance(one, kind)} for kind in (Joined, Told))
    for name in excused:
        verdict.counts[f"{name}, and told"] = verdict.faults.pop(name, 0)
    return [f"{client} was not told that {room} had two histories" for client, room in sorted(joined - told)]


def measure_back(records: list[Record], ended: float, nodes: int) -> tuple[float, float]:
    """Seconds until every node acknowledged, and until every node delivered what was sent since the end."""
    first_sent: dict[str, float] = {}
    for record in records:
        if isinstance(record, Attempt):
            first_sent.setdefault(record.id, record.at)
    first: dict[str, float] = {}
    for record in records:
        if isinstance(record, Acknowledged) or (isinstance(record, Delivered) and first_sent.get(record.id, 0.0) >= ended):
            if record.at >= ended:
                first[record.client] = min(record.at, first.get(record.client, record.at))
    never = float("inf")
    acknowledged, delivered = (
        max(first.get(f"{name}{number}", never) - ended for number in range(nodes)) for name in (BOUND_PUBLISHER, BOUND_SUBSCRIBER)
    )
    return acknowledged, delivered


def _may_lack(bench: Bench, setting: Setting, records: list[Record]) -> Callable[[str, Place], bool]:
    """What Redis alone had and lost may be gone, unless it was said to be committed."""
    lost = bench.lost
    if setting.ack == "committed":
        lost = lost - {(record.room, record.epoch, record.offset) for record in records if isinstance(record, Acknowledged)}
    return lambda room, place: (room, *place) in lost


def _nodes(zygote: Zygote, redis: RedisServer, folder: Path, database: str, fault: Fault, setting: Setting) -> Nodes:
    # Without a store what Redis keeps is the whole log; with one most of a run is read from the store.
    pattern = {"history_size": 200_000 if setting.store == "none" else 500, "history_ttl": 3600}
    return Nodes(zygote, redis, folder, database=database, ack=setting.ack, has_lines=fault.has_lines or fault.has_replica, pattern=pattern)


def _load(folder: Path, nodes: Nodes, setting: Setting) -> Load:
    publishers: dict[str, Any] = {"serial": 3, "pipelined": 3, "careless": 1}
    pace = (sum(publishers.values()) + len(nodes)) / setting.rate
    return Load(folder, nodes.urls, seed=setting.seed, rooms=5, subscribers=4, wanderers=setting.wanderers, pace=pace, **publishers, **CLIENTS)


@asynccontextmanager
async def _replica(redis: RedisServer, fault: Fault, setting: Setting) -> AsyncIterator[Replica | None]:
    if not fault.has_replica:
        yield None
        return
    async with Replica(redis, setting.program, fault.redis) as replica:
        yield replica


@asynccontextmanager
async def _store(setting: Setting, folder: Path) -> AsyncIterator[str]:
    if setting.store == "none":
        yield "memory://"
    elif setting.store == "sqlite":
        yield f"sqlite:///{folder}/realtime.db"
    else:
        running, loop = running_postgres(), asyncio.get_running_loop()
        postgres = await loop.run_in_executor(SHARED_STORE, running.__enter__)
        try:
            with postgres.database() as url:
                yield url
        finally:
            await loop.run_in_executor(SHARED_STORE, running.__exit__, None, None, None)
