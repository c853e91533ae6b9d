"""A node's plain numbers under the names that Prometheus knows them by, with units. No label names a user, a room or an address."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric

from .. import __version__
from ..metrics import BOUNDS, Histogram
from ..protocol.close_codes import CloseCode
from ..storage.drain import Drainer
from ..storage.relay import Relay
from .backlogs import BacklogReader, Backlogs
from .figures import Figures

PREFIX = "aibos_realtime_"

_COUNTERS = {
    "handshakes_accepted": ("handshakes_accepted", "Handshakes that ended as a WebSocket."),
    "authentications": ("authentications", "Connections that became a user's."),
    "authentications_failed": ("authentications_failed", "Tokens and API keys that were no good, over HTTP too."),
    "connections_opened": ("connections_total", "Connections that began."),
    "connections_failed": ("connections_failed", "Connections that ended otherwise than by a normal close or a planned move."),
    "connections_duration_seconds": ("duration_total", "How long the connections that ended had lasted, all together."),
    "messages_received": ("messages_in", "Messages from clients."),
    "messages_sent": ("messages_out", "Messages to clients: events and answers."),
    "received_bytes": ("bytes_in", "Payloads from clients."),
    "sent_bytes": ("bytes_out", "Frames to clients."),
    "events": ("events", "Events that were published to rooms and reached this node."),
    "deliveries": ("deliveries", "Events times the members that they were written to."),
    "volatile_dropped": ("volatile_dropped", "Volatile events that a client that is behind did not get."),
    "publishes_refused": ("publishes_refused", "Events that were not taken: too many waited to be stored, or one could not be stored."),
    "rate_limited": ("rate_limited", "Messages that were refused for their rate."),
    "slow_closes": ("slow_closes", "Connections that were closed (4008) since they did not read."),
    "recoveries": ("recoveries", "Joins that went on from a position."),
    "recoveries_failed": ("recoveries_failed", "Joins whose position was no longer there."),
    "resyncs": ("resyncs", "Members who were told that they may have missed something."),
    "handler_failures": ("handler_failures", "Messages whose handler raised what is no error of the client's."),
    "commit_failures": ("commit_failures", "Transactions with events that failed, or whose outcome was not told at once."),
    "gaps_repaired": ("gaps_repaired", "Stretches of a room that were not heard from the other nodes, and were read."),
    "gaps_lost": ("gaps_lost", "Those that could not be read either: their members were told to resync."),
    "subscriptions_repaired": ("subscriptions_repaired", "How often hearing the other nodes was begun anew."),
    "foreign_records": ("foreign_records", "Things in Redis that none of our nodes wrote."),
    "tasks_restarted": ("tasks_restarted", "How often work in the background failed in itself, and was begun anew."),
}
"""Name without prefix and `_total` → the number in `Metrics`, and what it is."""

_HISTOGRAMS = {
    "fanout_seconds": ("fanout_times", "From when an event has its position to the write to its last member on this node."),
    "delivery_seconds": ("delivery_times", "From when an event was published, on whichever node, to the write to its last member; to a millisecond."),
    "commit_seconds": ("commit_times", "Transactions in which events were stored."),
}

_CODES = frozenset(int(code) for code in CloseCode)
_STATUSES = (400, 401, 403, 404, 408, 429, 503)
_ENDS = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.ABNORMAL, CloseCode.TOO_SLOW, CloseCode.NO_SIGN_OF_LIFE)
"""Series that are there from the beginning: a rate does not see the rise of one that was not there before."""


class Sources(Protocol):
    """Where the numbers are. `drainer`, `relay`: None where there is none. `sender`: its engine. (`server.operation.Operation`.)"""

    @property
    def sender(self) -> str: ...

    @property
    def figures(self) -> Figures: ...

    @property
    def backlogs(self) -> BacklogReader: ...

    @property
    def drainer(self) -> Drainer | None: ...

    @property
    def relay(self) -> Relay | None: ...


def collect(sources: Sources, backlogs: Backlogs) -> Iterator[Metric]:
    """This node's own metrics."""
    figures, metrics = sources.figures, sources.figures.metrics
    what = {"version": __version__, "python": platform.python_version(), "sender": sources.sender}
    yield InfoMetricFamily(f"{PREFIX}build", "What runs, as labels.", what)
    yield from _of_this_moment(figures)
    for name, (attribute, meaning) in _COUNTERS.items():
        yield _counter(name, meaning, getattr(metrics, attribute))
    refused = dict.fromkeys(_STATUSES, 0) | metrics.handshakes_refused
    yield _by("handshakes_refused", "Handshakes that were refused, by HTTP status.", "status", refused)
    ends = _known(dict.fromkeys(_ENDS, 0) | metrics.close_codes)
    yield _by("connections_closed", "Connections that ended, by close code; codes that are a client's own are `other`.", "code", ends)
    for name, (attribute, meaning) in _HISTOGRAMS.items():
        yield _histogram(name, meaning, getattr(metrics, attribute))
    yield _histogram("loop_lag_seconds", "How late the event loop was, looked at ten times a second.", figures.lag)
    yield _counter("backlog_read_failures", "How often the stores did not say in time what waits in them.", sources.backlogs.failures)
    if sources.drainer is not None:
        yield from _of_drainer(sources.drainer)
    if sources.relay is not None:
        yield from _of_relay(sources.relay, backlogs)
    yield from _of_queues(backlogs)


def _of_this_moment(figures: Figures) -> Iterator[Metric]:
    now = figures.report()
    yield _gauge("ready", "1: takes connections and events; 0: starts, drains, or lacks what it depends on.", float(now.state == "ok"))
    yield _gauge("connections", "Connections now.", now.connections)
    if now.max_connections is not None:
        yield _gauge("connections_limit", "Connections that are allowed.", now.max_connections)
    yield _gauge("users", "Users with a connection to this node.", now.users)
    yield _gauge("rooms", "Rooms in which somebody of this node is.", now.rooms)
    yield _gauge("connections_behind", "Connections for which bytes wait to be sent.", figures.metrics.connections_behind)
    yield _gauge("outbox_bytes", "Bytes that wait to be sent, of all connections.", now.outbox_bytes)
    yield _gauge("loop_lag_worst_seconds", "The latest that the event loop was within the last minute.", figures.worst_lag())
    if now.probe_lag is not None:
        yield _gauge("broker_probe_lag_seconds", "How long the last probe through the log that the nodes share was on its way.", now.probe_lag)


def _of_drainer(drainer: Drainer) -> Iterator[Metric]:
    yield _gauge("store_lease", "1: this node takes events to the database; of all nodes one does.", float(drainer.is_holder))
    if (waiting := drainer.waiting) is not None:
        yield _gauge("store_waiting_events", "Events that wait in the shared log for the database; told by the node that takes them there.", waiting)
        yield _gauge("store_waiting_seconds", "For how long the oldest of them has waited.", drainer.oldest_age)
    yield _counter("store_events", "Events that this node took to the database.", drainer.entries)
    yield _counter("store_failures", "How often the database, or what waits for it, did not answer.", drainer.failures)
    yield _counter("store_buried_events", "Events that the database refused: they are among the dead messages.", drainer.buried)


def _of_relay(relay: Relay, backlogs: Backlogs) -> Iterator[Metric]:
    yield _counter("relay_events", "Events of the transactional outbox that this node published.", relay.relayed)
    yield _counter("relay_dead_events", "Events of the outbox that can never be published: they are among the dead messages.", relay.dead)
    yield _counter("relay_failures", "Tries to publish from the outbox that ended in a wait.", relay.failures)
    if backlogs.outbox is not None:
        yield _gauge("relay_waiting_events", "Events that wait in the outbox, of all nodes.", backlogs.outbox.waiting)
        yield _gauge("relay_waiting_seconds", "For how long the oldest of them has waited.", backlogs.outbox.oldest_age)


def _of_queues(backlogs: Backlogs) -> Iterator[Metric]:
    messages = GaugeMetricFamily(f"{PREFIX}queue_messages", "Messages in a queue, of all nodes, by state.", labels=("queue", "state"))
    ages = GaugeMetricFamily(f"{PREFIX}queue_oldest_seconds", "Age of the oldest message that waits or is in flight; else 0.", labels=("queue",))
    expired = CounterMetricFamily(f"{PREFIX}queue_expired", "Messages that were not handled within their time.", labels=("queue",))
    dropped = CounterMetricFamily(f"{PREFIX}queue_dropped", "Dead letters that made room for younger ones.", labels=("queue",))
    for name, stats in backlogs.queues.items():
        for state, count in (("waiting", stats.depth), ("in_flight", stats.in_flight), ("delayed", stats.delayed), ("dead", stats.dead)):
            messages.add_metric((name, state), count)
        ages.add_metric((name,), stats.oldest_age or 0.0)
        expired.add_metric((name,), stats.expired)
        dropped.add_metric((name,), stats.dropped)
    yield from (messages, ages, expired, dropped)


# — families —


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, meaning, value)


def _by(name: str, meaning: str, label: str, counts: Mapping[int, int] | Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, meaning, labels=(label,))
    for value, count in sorted(counts.items(), key=str):
        family.add_metric((str(value),), count)
    return family


def _known(codes: Mapping[int, int]) -> dict[str, int]:
    """Clients may close with any of some thousand codes: no series for each."""
    known: dict[str, int] = {}
    for code, count in codes.items():
        name = str(int(code)) if code in _CODES else "other"
        known[name] = known.get(name, 0) + count
    return known


def _histogram(name: str, meaning: str, histogram: Histogram) -> Metric:
    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
    return HistogramMetricFamily(PREFIX + name, meaning, buckets, histogram.total)
