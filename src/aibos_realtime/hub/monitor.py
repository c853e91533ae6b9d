"""What an operator asks of the connections: how many, how long, how they end. It reads counters; who counts is `metrics.Metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from pydantic import Field

from ..options import Options
from .connections import ConnectionPool


class MonitorOptions(Options):
    """`enable_metrics`: off, `get_metrics` gives the connection figures alone.

    `sample_rate`: the share of latency samples that quantiles are made of.
    """

    enable_metrics: bool = True
    sample_rate: float = Field(1.0, gt=0, le=1)


class ConnectionMetrics(Struct, frozen=True):
    """A moment's figures of one node.

    Durations and latencies in seconds; latency is from publish to the last member's write, None before the first.
    """

    active_connections: int
    total_connections: int
    peak_connections: int
    avg_duration: float
    """Of all connections, those alive counted until now."""
    error_rate: float
    """Share of the ended connections that ended otherwise than by a normal close or a planned move."""
    close_codes: dict[int, int]
    refused_handshakes: dict[int, int]
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    events: int = 0
    deliveries: int = 0
    commits: int = 0
    commit_failures: int = 0
    publishes_refused: int = 0
    latency_p50: float | None = None
    latency_p95: float | None = None
    latency_p99: float | None = None
    slow_closes: int = 0
    volatile_dropped: int = 0
    rate_limited: int = 0
    recoveries: int = 0
    recoveries_failed: int = 0
    resyncs: int = 0
    handler_failures: int = 0
    authentications: int = 0
    authentications_failed: int = 0
    connections_behind: int = 0
    outbox_bytes: int = 0
    gaps_repaired: int = 0
    gaps_lost: int = 0
    subscriptions_repaired: int = 0


class ConnectionMonitor:
    """Figures of a pool, and of the server whose pool it is."""

    def __init__(self, *, pool: ConnectionPool, metrics: MonitorOptions | Mapping[str, Any] | None = None) -> None:
        self.options = MonitorOptions.parse("metrics", metrics)
        self._pool = pool
        pool.metrics.sample_rate = self.options.sample_rate

    async def get_metrics(self) -> ConnectionMetrics:
        """The figures now."""
        pool, found = self._pool, self._pool.metrics
        now = pool.clock.now()
        lived = found.duration_total + sum(max(0.0, now - socket.connected_at) for socket in pool)
        basic = dict(
            active_connections=len(pool),
            total_connections=found.connections_total,
            peak_connections=found.peak_connections,
            avg_duration=lived / found.connections_total if found.connections_total else 0.0,
            error_rate=found.connections_failed / found.connections_ended if found.connections_ended else 0.0,
            close_codes=dict(found.close_codes),
            refused_handshakes=dict(found.handshakes_refused),
        )
        if not self.options.enable_metrics:
            return ConnectionMetrics(**basic)  # type: ignore[arg-type]
        names = [name for name in ConnectionMetrics.__struct_fields__ if name not in basic and not name.startswith("latency_")]
        quantiles = {f"latency_p{percent}": found.latency(percent / 100) for percent in (50, 95, 99)}
        return ConnectionMetrics(**basic, **{name: getattr(found, name) for name in names}, **quantiles)  # type: ignore[arg-type]
