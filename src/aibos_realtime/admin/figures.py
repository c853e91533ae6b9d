"""A node's figures: totals, what stands at this moment, and a sample of every second of the last minutes. Not what its stores hold (`backlogs`)."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .. import __version__
from ..clock import SYSTEM_CLOCK, Clock, Timer
from ..hub.connections import ConnectionPool
from ..hub.rooms import RoomManager
from ..metrics import Histogram
from .reports import NodeReport, Sample

SAMPLES = 600
"""Seconds that are kept."""
LOOK_EVERY = 0.1
"""Seconds between two looks at how late the event loop is."""
SAMPLE_EVERY = 1.0
WORST_OF = 60.0
"""Seconds of which `worst_lag` is the worst."""


class Usage(NamedTuple):
    """What a process has used. `cpu`: seconds so far; `memory`: resident bytes now."""

    cpu: float
    memory: int


def read_usage() -> Usage:
    """Of this process. Takes some microseconds."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            pages = int(file.read(128).split()[1])
    except OSError:  # no Linux: the most that it ever was is better than nothing
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Usage(time.process_time(), most if sys.platform == "darwin" else most * 1024)
    return Usage(time.process_time(), pages * os.sysconf("SC_PAGE_SIZE"))


class Figures:
    """`id`, `name`, `url`: of the node. `state()`: the word of `/status`. `probe_lag()`, `store_waiting()`: see `NodeReport`.

    `lag`: how late the event loop was, ten times a second. `loop_clock`: by which that is seen, and the CPU's share: both are real, whatever the
    server's own clock is.
    """

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
        loop_clock: Clock = SYSTEM_CLOCK,
        usage: Callable[[], Usage] = read_usage,
    ) -> None:
        self._id, self._name, self._url = id, name, url
        self._pool = pool
        self._rooms = rooms
        self.state = state
        self._probe_lag = probe_lag
        self._store_waiting = store_waiting
        self._clock = clock
        self._loop_clock = loop_clock
        self._read_usage = usage
        self.metrics = pool.metrics
        self.lag = Histogram()
        self.started_at = clock.now()
        """Unix time of the last start; before the first one, of the making."""
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._sampling: Timer | None = None
        self._looking: Timer | None = None
        self._due = self._sampled_at = 0.0
        self._worst = 0.0
        self._latencies = 0
        self._cpu = 0.0
        self._usage = Usage(0.0, 0)

    # — every second —

    def start(self) -> None:
        """Take a sample every second. Idempotent. In the running loop."""
        if self._sampling is None:
            self.started_at = self._clock.now()
            self._usage, self._latencies, self._worst = self._read_usage(), self.metrics.latencies_kept, 0.0
            self._sampled_at = self._loop_clock.monotonic()
            self._sampling = self._clock.call_later(SAMPLE_EVERY, self._take)
            self._plan_look(self._sampled_at)

    def stop(self) -> None:
        """Take no more. Idempotent."""
        for timer in (self._sampling, self._looking):
            if timer is not None:
                timer.cancel()
        self._sampling = self._looking = None

    def _plan_look(self, now: float) -> None:
        self._due = now + LOOK_EVERY
        self._looking = self._loop_clock.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        now = self._loop_clock.monotonic()
        late = max(0.0, now - self._due)
        self.lag.note(late)
        self._worst = max(self._worst, late)
        self._plan_look(now)

    def _take(self) -> None:
        self._sampling = self._clock.call_later(SAMPLE_EVERY, self._take)
        now = self._loop_clock.monotonic()
        metrics, usage = self.metrics, self._read_usage()
        median, slow = metrics.quantiles((0.5, 0.99), metrics.latencies_kept - self._latencies)
        self._cpu = (usage.cpu - self._usage.cpu) / max(now - self._sampled_at, LOOK_EVERY)
        sample = Sample(
            time=self._clock.now(), connections=len(self._pool), rooms=len(self._rooms), messages_in=metrics.messages_in, events=metrics.events,
            deliveries=metrics.deliveries, bytes_in=metrics.bytes_in, bytes_out=metrics.bytes_out, latency_p50=median, latency_p99=slow,
            loop_lag=self._worst, cpu=self._cpu, memory=usage.memory,
        )  # fmt: skip
        self._samples.append(sample)
        self._usage, self._sampled_at, self._latencies, self._worst = usage, now, metrics.latencies_kept, 0.0

    # — what is asked —

    @property
    def connections(self) -> int:
        return len(self._pool)

    @property
    def probe_lag(self) -> float | None:
        return self._probe_lag()

    @property
    def store_waiting(self) -> int | None:
        return self._store_waiting()

    def loop_lag(self) -> float:
        """The latest that the event loop was within this second and the one before."""
        return max(self._worst, self._samples[-1].loop_lag if self._samples else 0.0)

    def worst_lag(self) -> float:
        """The latest that it was within the last minute."""
        since = self._clock.now() - WORST_OF
        return max([self._worst, *(sample.loop_lag for sample in self._latest(since, int(WORST_OF)))])

    def report(self, *, samples: int = 0, since: float = 0.0) -> NodeReport:
        """The figures now, with the samples taken after `since` (Unix seconds), at most `samples`, the newest."""
        metrics, pool = self.metrics, self._pool
        middle, high, slow = metrics.quantiles((0.5, 0.95, 0.99))
        totals = {name: getattr(metrics, name) for name in _TOTALS}
        return NodeReport(
            id=self._id, name=self._name, url=self._url, version=__version__, state=self.state(), started_at=self.started_at, now=self._clock.now(),
            connections=len(pool), max_connections=pool.most, users=pool.count_users(), rooms=len(self._rooms),
            close_codes=_by_text(metrics.close_codes), handshakes_refused=_by_text(metrics.handshakes_refused), latency_p50=middle, latency_p95=high,
            latency_p99=slow, loop_lag=self.loop_lag(), outbox_bytes=metrics.outbox_bytes, probe_lag=self.probe_lag,
            store_waiting=self.store_waiting, cpu=self._cpu, memory=self._read_usage().memory, samples=self._latest(since, samples), **totals,
        )  # fmt: skip

    def _latest(self, since: float, count: int) -> list[Sample]:
        found: list[Sample] = []
        for sample in reversed(self._samples):
            if sample.time <= since or len(found) == count:
                break
            found.append(sample)
        return found[::-1]


_TOTALS = (
    "connections_total", "connections_failed", "peak_connections", "messages_in", "messages_out", "bytes_in", "bytes_out", "events", "deliveries",
    "publishes_refused", "rate_limited", "slow_closes", "volatile_dropped", "recoveries", "recoveries_failed", "resyncs", "gaps_repaired",
    "gaps_lost", "subscriptions_repaired", "foreign_records", "handler_failures", "commits", "commit_failures",
)  # fmt: skip
"""Counters of `Metrics` that a report has under the same name."""


def _by_text(counts: dict[int, int]) -> dict[str, int]:
    return {str(code): count for code, count in sorted(counts.items())}
