"""What nodes ask of one another for operators (`backends.bus`). Each answers for itself, in plain values; a process without sockets answers None."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Limit = Annotated[int, Meta(ge=0, le=1000)]
Text = Annotated[str, Meta(max_length=128)]
Order = Literal["newest", "outbox"]
"""Of connections: the newest first, or those with the most bytes waiting to be sent."""


class DescribeNode(Struct, frozen=True, tag="describe-node"):
    """Answer: a `reports.NodeReport` with the samples that were taken after `since` (Unix seconds), at most `samples` of them, the newest."""

    samples: Limit = 0
    since: float = 0.0


class DescribeMetrics(Struct, frozen=True, tag="describe-metrics"):
    """Answer: a `prometheus.NodeMetrics`."""


class ListConnections(Struct, frozen=True, tag="list-connections"):
    """Answer: `{"total", "matching", "connections": [reports.ConnectionReport, …]}`, in the order asked for.

    `search`: a part of the socket id, user id, tenant or address. The other members have to be the same.
    """

    limit: Limit = 100
    search: Text = ""
    user_id: Text | None = None
    room_id: Text | None = None
    socket_id: Text | None = None
    order: Order = "newest"


class ListActs(Struct, frozen=True, tag="list-acts"):
    """Answer: a list of `reports.ActReport`, the newest first."""

    limit: Limit = 100
    socket_id: Text | None = None
    user_id: Text | None = None
