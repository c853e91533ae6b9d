"""A node that has every metric there is, for the tests of `/metrics` and of what names its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families as read_plain

from aibos_realtime.admin.backlogs import BacklogReader, Backlogs
from aibos_realtime.admin.families import PREFIX, collect
from aibos_realtime.admin.figures import Figures
from aibos_realtime.backends.base import Draft, Receipt
from aibos_realtime.backends.queue import QueueStats
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.storage.drain import Drainer
from aibos_realtime.storage.relay import Backlog, Relay
from aibos_realtime.testing.server import memory_server
from aibos_realtime.testing.store import MemoryStore
from tests.unit.storage.drain_rig import Holder, MemoryIntake, MemoryLease


class Sources(NamedTuple):
    """A node that has everything, by hand."""

    figures: Figures
    backlogs: BacklogReader
    drainer: Drainer
    relay: Relay
    sender: str = "io_uring"


@asynccontextmanager
async def full_node() -> AsyncIterator[Sources]:
    """A server with what only one of several nodes with a database has."""
    async with memory_server() as net:
        operation, clock = net.server._operation, net.server._clock
        operation.figures._probe_lag = lambda: 0.25
        drainer = Drainer(MemoryIntake(clock), MemoryStore(), MemoryLease(Holder(clock), "node"), clock=clock)
        drainer._held_until, drainer._waiting, drainer._lines[0].age = float("inf"), 17, 3.5
        drainer.entries, drainer.failures, drainer.buried = 5, 6, 7
        relay = Relay(Database("sqlite:///never-opened.db"), hanging, clock=clock)
        relay.relayed, relay.dead, relay.failures = 8, 9, 10
        yield Sources(operation.figures, operation.backlogs, drainer, relay)


async def hanging(draft: Draft) -> Receipt:
    await asyncio.Event().wait()
    raise AssertionError


FULL = Backlogs({"mail": QueueStats(depth=1, in_flight=2, delayed=3, dead=4, oldest_age=5.5, expired=6, dropped=7)}, Backlog(11, 12.5))


def values_of(text: str) -> dict[str, float]:
    found = {}
    for family in read_plain(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, f"{name} is there twice"
            found[name.removeprefix(PREFIX)] = sample.value
    return found


def names_of(sources: Sources) -> Iterator[tuple[str, str, str]]:
    """What `docs/how-to/monitor.md` lists: (name, type, meaning)."""
    for metric in collect(sources, FULL):
        name = {"counter": f"{metric.name}_total", "info": f"{metric.name}_info"}.get(metric.type, metric.name)
        yield name, metric.type, metric.documentation
