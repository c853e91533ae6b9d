"""What this node answers when operators ask about it: its connections, its acts, its figures. Other nodes ask over the bus."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import Any

from msgspec import Struct

from ..audit import Audit
from ..backends.bus import Bus
from ..clock import Clock
from ..hub.connections import ConnectionPool
from ..hub.socket import Socket
from ..protocol.frames import BINARY
from .figures import Figures
from .reports import ActReport, ConnectionReport
from .requests import DescribeNode, ListActs, ListConnections, Order

ROOMS_SHOWN = 20

_ORDERS: dict[Order, Callable[[Socket], float]] = {
    "newest": lambda socket: socket.connected_at,
    "outbox": lambda socket: socket.transport.buffered(),
}


class Node:
    """Registers its answers on the bus, which has not started yet."""

    def __init__(self, *, name: str, pool: ConnectionPool, audit: Audit, figures: Figures, bus: Bus, clock: Clock) -> None:
        self._name = name
        self._pool = pool
        self._audit = audit
        self._figures = figures
        self._clock = clock
        self._answers: dict[type[Struct], Callable[[Any], Any]] = {
            DescribeNode: self._describe,
            ListConnections: self._list_connections,
            ListActs: self._list_acts,
        }
        for kind, answer in self._answers.items():
            bus.on(kind, answer)

    def answer(self, request: Struct) -> Any:
        """What this node answers when it is asked over the bus."""
        return self._answers[type(request)](request)

    def _describe(self, request: DescribeNode) -> dict[str, Any]:
        return self._figures.report(samples=request.samples, since=request.since).to_wire()

    def _list_connections(self, request: ListConnections) -> dict[str, Any]:
        fits = _condition(request)
        found = self._candidates(request) if fits is None else [socket for socket in self._candidates(request) if fits(socket)]
        shown = [self._report(socket).to_wire() for socket in nlargest(request.limit, found, key=_ORDERS[request.order])]
        return {"total": len(self._pool), "matching": len(found), "connections": shown}

    def _candidates(self, request: ListConnections) -> list[Socket]:
        if request.socket_id is not None:
            one = self._pool.get_connection(request.socket_id)
            return [one] if one is not None else []
        return self._pool.get_all_connections() if request.user_id is None else self._pool.get_user_connections(request.user_id)

    def _report(self, socket: Socket) -> ConnectionReport:
        user = socket.user
        rooms = sorted(socket.memberships or ())
        ago = max(0.0, self._clock.monotonic() - socket.heard_at)
        return ConnectionReport(
            id=socket.id,
            node=self._name,
            user_id=user.id if user else None,
            role=user.role if user else None,
            tenant_id=user.tenant_id if user else None,
            address=socket.remote_address,
            state="closing" if socket.closing else "open" if user else "unauthenticated",
            codec="msgpack" if socket.encoding.codec.opcode == BINARY else "json",
            connected_at=socket.connected_at,
            heard_at=self._clock.now() - ago,
            expires_at=socket.expires_at,
            rooms=rooms[:ROOMS_SHOWN],
            room_count=len(rooms),
            outbox_bytes=socket.transport.buffered(),
            user_agent=socket.headers.get("user-agent"),
        )

    def _list_acts(self, request: ListActs) -> list[dict[str, Any]]:
        found = self._audit.latest(request.limit, socket_id=request.socket_id, user_id=request.user_id)
        names = ActReport.model_fields.keys() - {"node"}
        return [ActReport(node=self._name, **{name: getattr(entry, name) for name in names}).to_wire() for entry in found]


def _condition(request: ListConnections) -> Callable[[Socket], bool] | None:
    """What a connection has to fulfil beyond being a candidate; None: nothing."""
    search, room_id = request.search.lower(), request.room_id
    if not search and room_id is None:
        return None

    def fits(socket: Socket) -> bool:
        if room_id is not None and room_id not in (socket.memberships or ()):
            return False
        if not search:
            return True
        user = socket.user
        known = f"{user.id}\n{user.tenant_id or ''}" if user else ""
        return search in f"{socket.id}\n{socket.remote_address}\n{known}".lower()

    return fits
