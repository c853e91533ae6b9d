"""What the servers said of themselves while `bench` ran: CPU, memory, deliveries, from the samples that each node keeps of every second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .exits import Failure

if TYPE_CHECKING:
    from ..admin.reports import NodeReport
    from .target import Target

MOST = 600
"""Samples of a node that are asked for."""
PATIENCE = 5.0
"""Seconds for the answer."""
AFTER = 0.5
"""Seconds after the sending in which the clients are still there."""
MEMORY_FROM, LEAST_MEMORY = 500, 500.0
"""Clients on a node from which its memory is divided by them, and bytes of each: less says nothing. A process that had clients before has
memory left that is used again."""


@dataclass(frozen=True)
class NodeUse:
    """One node. `cpu`: share of a core; `delivery_cpu`: seconds for each delivery; `client_memory`: bytes. None: it cannot be said."""

    name: str
    cpu: float
    memory: int
    connections: int
    deliveries: int
    delivery_cpu: float | None
    client_memory: float | None
    loop_lag: float

    def to_wire(self) -> dict[str, Any]:
        return {
            "node": self.name, "cpu": self.cpu, "memory": self.memory, "connections": self.connections, "deliveries": self.deliveries,
            "deliveryCpu": self.delivery_cpu, "clientMemory": self.client_memory, "loopLag": self.loop_lag,
        }  # fmt: skip


def ask_servers(target: Target, token: str, began: float, sending: tuple[float, float]) -> list[NodeUse]:
    """Each node's use; nothing where the token's user may not know it. `began`: before any client came; `sending`: from when to when. Unix time."""
    from ..admin.reports import NodeReport
    from .api import Api, Credential

    try:
        api = Api(target.url, Credential(token, "--token"), url_from=target.url_from, timeout=PATIENCE)
        nodes = api.get_list("/nodes", "nodes", NodeReport, samples=MOST, since=0)
    except Failure:
        return []
    now = time.time()
    return [use for node in nodes if (use := use_of(node, began, sending, node.now - now)) is not None]


def use_of(node: NodeReport, began: float, sending: tuple[float, float], shift: float) -> NodeUse | None:
    """What a node's samples say; None where there are fewer than two of the time. `shift`: by how much its clock is ahead of ours."""
    samples = sorted(node.samples, key=lambda one: one.time)
    inside = [one for one in samples if sending[0] <= one.time - shift <= sending[1] + AFTER]
    if len(inside) < 2:
        return None
    used = sum(after.cpu * (after.time - before.time) for before, after in pairwise(inside))
    deliveries = inside[-1].deliveries - inside[0].deliveries
    fullest = max(inside, key=lambda one: one.connections)
    before = [one for one in samples if one.time - shift <= began]
    came = fullest.connections - before[-1].connections if before else 0
    each = (fullest.memory - before[-1].memory) / came if came >= MEMORY_FROM else 0.0
    return NodeUse(
        node.name, used / (inside[-1].time - inside[0].time), fullest.memory, fullest.connections, deliveries,
        used / deliveries if deliveries else None, each if each >= LEAST_MEMORY else None,
        max(one.loop_lag for one in inside),
    )  # fmt: skip
