"""What is done to people's connections, on whichever node they are: close them, change a role, refuse what a revoked token let in."""

from __future__ import annotations

from msgspec.structs import replace

from ..audit import Audit, actor, on_request
from ..auth.authentication import WebSocketAuth
from ..auth.user import Identity
from ..backends.bus import Bus
from ..errors import ConfigurationError
from ..hub.connections import ConnectionPool
from ..hub.requests import Disconnect, SetRole
from ..hub.socket import Socket
from ..pipeline.handlers import BuiltIns
from ..protocol.close_codes import CloseCode, default_reason


class People:
    """Asks every node over the bus, which has not started yet, and does what is asked for this node's connections."""

    def __init__(self, *, pool: ConnectionPool, built_ins: BuiltIns, auth: WebSocketAuth, bus: Bus, audit: Audit) -> None:
        self._pool = pool
        self._built_ins = built_ins
        self._auth = auth
        self._bus = bus
        self._audit = audit
        bus.on(Disconnect, self._disconnect)
        bus.on(SetRole, self._set_role)
        auth.on_revoked(self._close_of)
        auth.on_loaded(self._close_revoked)

    async def disconnect(self, user_id: str | None, socket_id: str | None, code: int) -> int:
        """Close every connection of a user, or one; returns how many."""
        if (user_id is None) == (socket_id is None):
            raise ConfigurationError("disconnect: exactly one of user_id and socket_id is needed")
        count = _sum(await self._bus.ask(Disconnect(user_id, socket_id, code)))
        self._audit.note("disconnect", user_id=user_id, socket_id=socket_id, code=code, reason=on_request(count), by=actor())
        return count

    async def set_role(self, user_id: str, role: str) -> int:
        """Change a user's role on his connections; returns how many."""
        count = _sum(await self._bus.ask(SetRole(user_id, role)))
        self._audit.note("role", user_id=user_id, reason=role, by=actor())
        return count

    def _disconnect(self, request: Disconnect) -> int:
        if request.user_id is not None:
            found = self._pool.get_user_connections(request.user_id)
        else:
            one = self._pool.get_connection(str(request.socket_id))
            found = [one] if one is not None else []
        for socket in found:
            socket.disconnect(request.code, default_reason(request.code))
        return len(found)

    async def _set_role(self, request: SetRole) -> int:
        found = self._pool.get_user_connections(request.user_id)
        for socket in found:
            if socket.user is not None and socket.user.role != request.role:
                socket.user = replace(socket.user, role=request.role)
                await self._built_ins.recheck(socket)
        return len(found)

    def _close_of(self, user_id: str | None, token_id: str | None) -> None:
        for socket in list(self._pool) if user_id is None else self._pool.get_user_connections(user_id):
            if user_id is not None or socket.token_id == token_id:
                _close(socket)

    def _close_revoked(self) -> None:
        """Look at everybody again. Who came without a token came when he connected."""
        for socket in self._pool:
            if socket.user is None:
                continue
            issued_at = socket.token_issued_at if socket.expires_at is not None else socket.connected_at
            if self._auth.is_revoked(Identity(socket.user, socket.expires_at or 0.0, issued_at, socket.token_id)):
                _close(socket)


def _close(socket: Socket) -> None:
    socket.disconnect(CloseCode.DISCONNECTED, default_reason(CloseCode.DISCONNECTED))


def _sum(answers: list[object]) -> int:
    return sum(answer for answer in answers if type(answer) is int)
