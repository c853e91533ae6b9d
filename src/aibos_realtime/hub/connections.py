"""The connections of this node: admission, look-up, and what is known of those that ended. Not their life signs (`liveness`), not their rooms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Never

from ..auth.user import User
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError, ConnectionLimitExceeded
from ..metrics import Metrics
from ..options import Count, Options, Seconds
from ..protocol.limits import ALL
from .departed import Departed
from .socket import Socket

RECOVERY_WINDOW = 300.0
"""Seconds for which the stream of everybody can be recovered."""

_NORMAL_ENDS = frozenset({1000, 1001, 1005, 4001, 4011})


class ConnectionOptions(Options):
    """See `ConnectionPool`."""

    max_connections: Count | None = 1000
    connection_timeout: Seconds | None = 30.0
    heartbeat_interval: Seconds | None = 30.0
    heartbeat_timeout: Seconds | None = 60.0


class ConnectionPool:
    """Live connections by id and by user.

    `max_connections`: more are refused (the handshake answers 503). `connection_timeout`: seconds from accept to authenticated, in all.
    `heartbeat_interval`, `heartbeat_timeout`: seconds between pings, and of silence after which a connection is given up. None = off.
    """

    def __init__(
        self,
        *,
        max_connections: int | None = 1000,
        connection_timeout: float | None = 30.0,
        heartbeat_interval: float | None = 30.0,
        heartbeat_timeout: float | None = 60.0,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Never,
    ) -> None:
        given = dict(
            max_connections=max_connections,
            connection_timeout=connection_timeout,
            heartbeat_interval=heartbeat_interval,
            heartbeat_timeout=heartbeat_timeout,
        )
        self.options = ConnectionOptions.parse("connections", given | unknown)
        if self.options.heartbeat_interval and self.options.heartbeat_timeout and self.options.heartbeat_timeout <= self.options.heartbeat_interval:
            raise ConfigurationError("connections.heartbeat_timeout: must be longer than heartbeat_interval")
        self.metrics = metrics or Metrics()
        self.clock = clock
        self.most = self.options.max_connections
        """How many there may be: `max_connections`, or fewer where the process has no descriptors for them. None: any number."""
        self._departed = Departed(RECOVERY_WINDOW)
        self._by_id: dict[str, Socket] = {}
        self._by_user: dict[str, Socket | dict[Socket, None]] = {}
        """Of most users there is one: he has no dict for it."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Socket]:
        return iter(list(self._by_id.values()))

    def __contains__(self, socket_id: object) -> bool:
        return socket_id in self._by_id

    @property
    def is_full(self) -> bool:
        return self.most is not None and len(self._by_id) >= self.most

    def add_connection(self, socket: Socket) -> None:
        """Admit a connection. Raises `ConnectionLimitExceeded` when the pool is full; adding one twice changes nothing."""
        if socket.id in self._by_id:
            return
        if self.is_full:
            raise ConnectionLimitExceeded(f"All {self.most} connections of this node are taken: try again later.")
        self._by_id[socket.id] = socket
        self.bind(socket)
        self.metrics.connections_total += 1
        self.metrics.peak_connections = max(self.metrics.peak_connections, len(self._by_id))

    def remove_connection(self, socket_id: str, *, code: int = 1000) -> Socket | None:
        """Forget a connection and return it, or None if it is not here. `code`: how it ended. Closing it is the caller's business."""
        socket = self._by_id.pop(socket_id, None)
        if socket is None:
            return None
        self.unbind(socket)
        if socket.user is not None and socket.user.id not in self._by_user:
            self._departed.note(ALL, socket.user, self.clock.monotonic())
        self.metrics.connections_ended += 1
        self.metrics.connections_failed += code not in _NORMAL_ENDS
        self.metrics.close_codes[code] += 1
        self.metrics.duration_total += max(0.0, self.clock.now() - socket.connected_at)
        return socket

    def get_connection(self, socket_id: str) -> Socket | None:
        """The connection of this id, or None."""
        return self._by_id.get(socket_id)

    def get_all_connections(self) -> list[Socket]:
        return list(self._by_id.values())

    def get_user_connections(self, user_id: str) -> list[Socket]:
        """The connections of a user on this node, oldest first."""
        found = self._by_user.get(user_id, ())
        return [found] if isinstance(found, Socket) else list(found)

    def count_user_connections(self, user_id: str) -> int:
        found = self._by_user.get(user_id, ())
        return 1 if isinstance(found, Socket) else len(found)

    def count_users(self) -> int:
        """How many users have a connection on this node."""
        return len(self._by_user)

    def users_within_reach(self, window: float) -> list[User]:
        """The users of this node who are connected, or gone for less than `window` seconds."""
        users = {socket.user.id: socket.user for socket in self._by_id.values() if socket.user is not None}
        gone = self._departed.users(ALL, self.clock.monotonic(), window)
        return [*users.values(), *(user for user in gone if user.id not in users)]

    def bind(self, socket: Socket) -> None:
        """Let a connection be found by its user."""
        user = socket.user
        if user is None or socket.id not in self._by_id:
            return
        found = self._by_user.setdefault(user.id, socket)
        if isinstance(found, dict):
            found[socket] = None
        elif found is not socket:
            self._by_user[user.id] = {found: None, socket: None}

    def is_bound(self, socket: Socket) -> bool:
        """Whether a connection can be found by its user."""
        found = self._by_user.get(socket.user.id, ()) if socket.user is not None else ()
        return found is socket or (not isinstance(found, Socket) and socket in found)

    def unbind(self, socket: Socket) -> None:
        """Let a connection no longer be found by its user."""
        if socket.user is None:
            return
        found = self._by_user.get(socket.user.id)
        if isinstance(found, dict):
            found.pop(socket, None)
        if found is socket or found == {}:
            del self._by_user[socket.user.id]
