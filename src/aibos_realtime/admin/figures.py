"""A node's figures: totals, what stands at this moment, and a sample of every second of the last minutes."""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock
from ..hub.connections import ConnectionPool
from ..hub.rooms import RoomManager
from .reports import NodeReport


class Figures:
    """`id`, `name`, `url`, `version`: of the node. `state()`: the word of `/status`. `probe_lag()`, `store_waiting()`: see `NodeReport`."""

    def __init__(
        self,
        *,
        id: str,
        name: str,
        url: str | None,
        pool: ConnectionPool,
        rooms: RoomManager,
        state: Callable[[], str],
        probe_lag: Callable[[], float | None],
        store_waiting: Callable[[], int | None],
        clock: Clock,
    ) -> None:
        self._name = name

    def start(self) -> None:
        """Take a sample every second. Idempotent."""

    def stop(self) -> None: ...

    def report(self, *, samples: int = 0, since: float = 0.0) -> NodeReport:
        """The figures now, with the samples taken after `since` (Unix seconds), at most `samples`, the newest."""
        raise NotImplementedError
