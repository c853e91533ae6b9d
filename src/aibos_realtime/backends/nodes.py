"""The port to the register of nodes: which servers there are, by the register's own clock. Who may be asked what is not its business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

NodeState = Literal["up", "draining"]


class NodeRecord(Struct, frozen=True):
    """One server as it last told of itself. `id`: of this life of its process, never used again; `name`: the operator's (`INSTANCE_ID`).

    `url`: where clients reach it. Times are Unix seconds of the register. `load`: share of a core that it used lately.
    """

    id: str
    name: str
    url: str | None
    state: NodeState
    version: str
    started_at: float
    seen_at: float
    connections: int = 0
    max_connections: int | None = None
    rooms: int = 0
    load: float = 0.0
    weight: int = 1


class Nodes(Protocol):
    """Registers this node, keeps the registration alive, and notices nodes that died."""

    id: str
    """Of this node."""

    def describe(self, report: Callable[[], Mapping[str, Any]]) -> None:
        """What to tell at each beat: fields of `NodeRecord`."""

    def on_gone(self, callback: Callable[[str], Any]) -> None:
        """Call (id) when a node died or left without cleaning up: on exactly one of the living nodes, until that one has returned without an error."""

    def on_forgotten(self, callback: Callable[[], Any]) -> None:
        """Call when the register had forgotten this node (it stood still for too long, or the register lost its memory): what it told there is to be
        told again."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def beat(self) -> None:
        """Tell now, not only at the next turn: after a change of state."""

    async def list(self) -> list[NodeRecord]:
        """The nodes that live, by rising name. Raises `BrokerUnavailable`."""
