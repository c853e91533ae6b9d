"""What a server counts: plain integers that anybody may read at any time. Never by user or room."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: how far each bucket of a histogram reaches."""


class Histogram:
    """How often something took how long. `counts[n]`: up to `BOUNDS[n]`, and longer than the bound before; the last one: longer than all bounds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        """Seconds, of all together."""

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def __len__(self) -> int:
        return sum(self.counts)


class Metrics:
    """The counters of one server. Bytes and messages out are counted per fan-out, not per delivery."""

    __slots__ = (
        "authentications", "authentications_failed", "bytes_in", "bytes_out", "close_codes", "commit_failures", "commit_times", "commits",
        "connections_behind", "connections_ended", "connections_failed", "connections_total", "deliveries", "delivery_times", "duration_total",
        "events", "fanout_times", "foreign_records", "gaps_lost", "gaps_repaired", "handler_failures", "handshakes_accepted", "handshakes_refused",
        "latencies", "latencies_kept", "messages_in", "messages_out", "outbox_bytes", "peak_connections", "publishes_refused", "rate_limited",
        "recoveries", "recoveries_failed", "resyncs", "sample_rate", "slow_closes", "subscriptions_repaired", "tasks_restarted",
        "volatile_dropped", "_turn",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections_total = 0
        self.connections_ended = 0
        self.connections_failed = 0
        """Ended otherwise than by a normal close or a planned move."""
        self.peak_connections = 0
        self.duration_total = 0.0
        """Seconds, of ended connections."""
        self.close_codes: Counter[int] = Counter()
        self.handshakes_accepted = 0
        self.handshakes_refused: Counter[int] = Counter()
        """By HTTP status."""
        self.authentications = 0
        """Of connections: users that they became, by whatever way."""
        self.authentications_failed = 0
        """Tokens and API keys that were no good, over HTTP too."""
        self.connections_behind = 0
        """For which bytes waited, when each was looked at last, less than two seconds ago."""
        self.outbox_bytes = 0
        """That waited then for all of them together."""
        self.messages_in = self.messages_out = 0
        self.bytes_in = self.bytes_out = 0
        self.events = 0
        """Published to rooms."""
        self.commits = 0
        """Transactions in which events were stored; each holds what was published while the one before was on its way."""
        self.commit_times = Histogram()
        self.commit_failures = 0
        self.publishes_refused = 0
        """Events that were not taken: too many waited for their commit, or the store could not hold one."""
        self.deliveries = 0
        """Events × members written to."""
        self.fanout_times = Histogram()
        """From when an event has its position to its last member's write."""
        self.delivery_times = Histogram()
        """From when an event was published, on whichever node, to its last member's write: as exact as the nodes' clocks, and to a millisecond."""
        self.latencies: deque[float] = deque(maxlen=1000)
        """Of the latest fan-outs, as in `fanout_times`; newest last."""
        self.latencies_kept = 0
        """How many went into `latencies`."""
        self._turn = 0.0
        self.sample_rate = 1.0
        """The share of fan-outs whose latency is kept."""
        self.slow_closes = 0
        self.volatile_dropped = 0
        self.rate_limited = 0
        self.recoveries = 0
        self.recoveries_failed = 0
        self.resyncs = 0
        self.handler_failures = 0
        self.gaps_repaired = 0
        """Stretches of a room that were not heard from the shared log, and were read from it."""
        self.gaps_lost = 0
        """Those that could not be read either: their members were told to `resync`."""
        self.subscriptions_repaired = 0
        """How often hearing the shared log was begun anew, since the connection was lost or the node was deaf."""
        self.foreign_records = 0
        """Things in Redis that none of our nodes wrote."""
        self.tasks_restarted = 0
        """How often work in the background failed in itself, and was begun anew."""

    def note_fanout(self, seconds: float, since_publish: float) -> None:
        """Count a fan-out that took so long; `since_publish`: since its oldest event was published. Kept for quantiles by `sample_rate`."""
        self.fanout_times.note(seconds)
        self.delivery_times.note(since_publish)
        self._turn += self.sample_rate
        if self._turn >= 1.0:
            self._turn -= 1.0
            self.latencies.append(seconds)
            self.latencies_kept += 1

    def latency(self, quantile: float) -> float | None:
        """Seconds at a quantile (0…1) of the latest fan-outs; None before the first."""
        return self.quantiles((quantile,))[0]

    def quantiles(self, wanted: Sequence[float], latest: int | None = None) -> list[float | None]:
        """As `latency`, several at once; `latest`: of so many fan-outs at most."""
        ordered = sorted(self.latencies if latest is None else list(self.latencies)[max(0, len(self.latencies) - latest) :])
        return [ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else None for quantile in wanted]
