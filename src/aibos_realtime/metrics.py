"""What a server counts: plain integers that anybody may read at any time. Never by user or room."""

from __future__ import annotations

from collections import Counter, deque


class Metrics:
    """The counters of one server. Bytes and messages out are counted per fan-out, not per delivery."""

    __slots__ = (
        "bytes_in", "bytes_out", "close_codes", "commit_failures", "commits", "connections_ended", "connections_failed", "connections_total",
        "deliveries", "duration_total", "events", "foreign_records", "gaps_lost", "gaps_repaired", "handler_failures", "handshakes_refused",
        "latencies", "messages_in", "messages_out", "peak_connections", "publishes_refused", "rate_limited", "recoveries", "recoveries_failed",
        "resyncs", "sample_rate", "slow_closes", "subscriptions_repaired", "volatile_dropped", "_turn",
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
        self.handshakes_refused: Counter[int] = Counter()
        """By HTTP status."""
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.events = 0
        """Published to rooms."""
        self.commits = 0
        """Transactions in which events were stored; each holds what was published while the one before was on its way."""
        self.commit_failures = 0
        self.publishes_refused = 0
        """Events that were not taken: too many waited for their commit, or the store could not hold one."""
        self.deliveries = 0
        """Events × members written to."""
        self.latencies: deque[float] = deque(maxlen=1000)
        """Seconds from publish to the last write of a fan-out, newest last."""
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

    def note_latency(self, seconds: float) -> None:
        """Keep a latency, if it is this one's turn by `sample_rate`."""
        self._turn += self.sample_rate
        if self._turn >= 1.0:
            self._turn -= 1.0
            self.latencies.append(seconds)

    def latency(self, quantile: float) -> float | None:
        """Seconds at a quantile (0…1) of the latest fan-outs; None before the first."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else None
