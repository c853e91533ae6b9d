"""What this node answers when operators ask about it: its connections, its acts, its figures. Other nodes ask over the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..audit import Audit
from ..backends.bus import Bus
from ..clock import Clock
from ..hub.connections import ConnectionPool
from ..hub.socket import Socket
from ..protocol.frames import BINARY
from .figures import Figures
from .reports import ActReport, ConnectionReport
from .requests import DescribeNode, ListActs, ListConnections

ROOMS_SHOWN = 20


class Node:
    """Registers its answers on the bus, which has not started yet."""

    def __init__(self, *, name: str, pool: ConnectionPool, audit: Audit, figures: Figures, bus: Bus, clock: Clock) -> None:
        self._name = name
        self._pool = pool
        self._audit = audit
        self._figures = figures
        self._clock = clock
        bus.on(DescribeNode, self._describe)
        bus.on(ListConnections, self._list_connections)
        bus.on(ListActs, self._list_acts)

    def _describe(self, request: DescribeNode) -> dict[str, Any]:
        return self._figures.report(samples=request.samples, since=request.since).to_wire()

    def _list_connections(self, request: ListConnections) -> dict[str, Any]:
        fits = _condition(request)
        found = [socket for socket in self._candidates(request) if fits(socket)]
        found.sort(key=lambda socket: socket.connected_at, reverse=True)
        shown = [self._report(socket).to_wire() for socket in found[: request.limit]]
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


def _condition(request: ListConnections) -> Callable[[Socket], bool]:
    search, room_id = request.search.lower(), request.room_id

    def fits(socket: Socket) -> bool:
        if room_id is not None and room_id not in (socket.memberships or ()):
            return False
        if not search:
            return True
        user = socket.user
        texts = (socket.id, socket.remote_address, *((user.id, user.tenant_id or "") if user else ()))
        return any(search in text.lower() for text in texts)

    return fits
