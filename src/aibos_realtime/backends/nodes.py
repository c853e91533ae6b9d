"""The port to the register of nodes: which servers there are, by the register's own clock. Who may be asked what is not its business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct

NodeState = Literal["up", "draining"]
Role = Literal["server", "process", "instance"]
"""`server`: serves sockets. `process`: takes part without any (`Cluster`). `instance`: a server that others told of, and that answers no node."""

_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Name = Annotated[str, Meta(min_length=1, max_length=128)]


class NodeRecord(Struct, frozen=True):
    """One node as it last told of itself. `id`: of this life of its process, never used again; `name`: the operator's (`INSTANCE_ID`).

    `url`: where clients reach it. `started_at`: Unix seconds by the node's clock; `seen_at`: by the register's. `load`: share of a core that it
    used lately.
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    name: _Name
    url: Annotated[str, Meta(pattern=r"^wss?://[!-~]{1,500}$")] | None
    state: NodeState
    version: Annotated[str, Meta(max_length=64)]
    started_at: Annotated[float, Meta(ge=0)]
    seen_at: float
    connections: _Count = 0
    max_connections: _Count | None = None
    rooms: _Count = 0
    load: Annotated[float, Meta(ge=0)] = 0.0
    weight: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    role: Role = "server"


class Registration(Protocol):
    """One entry of the register, kept alive from `start` to `stop`."""

    id: str

    async def start(self) -> None:
        """Register. Raises `BrokerUnavailable`."""

    async def stop(self) -> None:
        """Take the entry out of the register, if that can be reached, and keep it alive no longer. Idempotent."""

    async def beat(self) -> None:
        """Tell now, not only at the next turn: after a change of state. Raises nothing where the register cannot be reached: the next beat tells."""


class Nodes(Registration, Protocol):
    """Registers this node, keeps the registration alive, and notices nodes that died."""

    def describe(self, report: Callable[[], Mapping[str, Any]]) -> None:
        """What to tell at each beat: fields of `NodeRecord`."""

    def on_gone(self, callback: Callable[[str], Any]) -> None:
        """Call (id) when a node died or left: on exactly one of the living nodes, until that one has returned without an error. What it does it may
        do again, or after the node itself did it.
        """

    def on_forgotten(self, callback: Callable[[], Any]) -> None:
        """Call when the register had forgotten this node (it stood still for too long, or the register lost its memory): what it told there is to be
        told again.
        """

    async def list(self) -> Records:
        """The nodes that live and answer one another, servers and processes, by rising name. Raises `BrokerUnavailable`."""

    async def list_instances(self) -> Records:
        """The servers that clients can reach by a URL, draining ones and those that others told of too. Raises `BrokerUnavailable`."""

    def register(self, url: str, *, name: str, weight: int) -> Registration:
        """An entry for a server that does not register itself; it begins with `start`. It counts as long as it is kept alive from here."""


Records = list[NodeRecord]
