"""What nodes tell of themselves, and what becomes of that for those who choose among instances. It reads no register and chooses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sized
from typing import Any

from msgspec import Struct

from ..backends.nodes import NodeRecord, NodeState
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError
from .instances import Instance

_SHORTEST = 1.0
"""Seconds over which the use of the processor is measured at least."""


class OwnReport:
    """What this node is like at the moment; for `Nodes.describe`. `state`: whether it takes connections or drains."""

    def __init__(
        self, *, pool: Sized, max_connections: int | None, rooms: Sized, weight: int, state: Callable[[], NodeState], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._pool = pool
        self._max_connections = max_connections
        self._rooms = rooms
        self._weight = weight
        self._state = state
        self._clock = clock
        self._load = 0.0
        self._at = clock.monotonic(), time.process_time()

    def __call__(self) -> dict[str, Any]:
        return {
            "state": self._state(),
            "connections": len(self._pool),
            "max_connections": self._max_connections,
            "rooms": len(self._rooms),
            "load": self._measure(),
            "weight": self._weight,
        }

    def _measure(self) -> float:
        """The share of a core that this process used since it was asked last."""
        now, used = self._clock.monotonic(), time.process_time()
        seconds = now - self._at[0]
        if seconds >= _SHORTEST:
            self._load = round((used - self._at[1]) / seconds, 3)
            self._at = now, used
        return self._load


class InstanceReport(Struct, frozen=True):
    """One address that clients can go to, with what all processes behind it told.

    `connections`: None where nobody tells. `load`: share of a core that each used lately, on the average. `weight`: of all of them together.
    """

    url: str
    name: str
    connections: int | None
    load: float
    weight: int
    is_full: bool = False
    is_draining: bool = False
    """Every process behind it is."""

    @property
    def instance(self) -> Instance:
        return Instance(self.url, weight=self.weight)


def merge(records: Iterable[NodeRecord]) -> list[InstanceReport]:
    """By address, the least loaded first: connections by weight, then use of the processor; what is full comes last. Workers share an address."""
    by_url: dict[str, list[NodeRecord]] = {}
    for record in records:
        try:
            url = str(Instance.parse("url", record.url))
        except ConfigurationError:
            continue
        by_url.setdefault(url, []).append(record)
    return sorted((_merge(url, found) for url, found in by_url.items()), key=_rank)


def _merge(url: str, records: list[NodeRecord]) -> InstanceReport:
    """What a server tells of itself counts, and what others tell of it only where it does not; of its processes those that do not drain."""
    own = [record for record in records if record.role == "server"]
    is_draining = bool(own) and all(record.state == "draining" for record in own)
    counted = [record for record in own if is_draining or record.state == "up"] or records
    return InstanceReport(
        url=url,
        name=min(record.name for record in counted),
        connections=sum(record.connections for record in counted) if own else None,
        load=round(sum(record.load for record in counted) / len(counted), 3),
        weight=sum(record.weight for record in counted) if own else max(record.weight for record in counted),
        is_full=bool(own) and all(record.max_connections is not None and record.connections >= record.max_connections for record in counted),
        is_draining=is_draining,
    )


def _rank(report: InstanceReport) -> tuple[bool, float, float, str]:
    return report.is_full, (report.connections or 0) / report.weight, report.load, report.url
