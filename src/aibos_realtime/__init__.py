"""aibos-realtime: realtime for multi-tenant SaaS. The public names, loaded when they are first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth.authentication import WebSocketAuth as WebSocketAuth
    from .auth.user import User as User
    from .client.client import RealtimeClient as RealtimeClient
    from .cluster.balancing import LoadBalancer as LoadBalancer
    from .cluster.instances import Instance as Instance
    from .config import RealtimeConfig as RealtimeConfig
    from .errors import *  # noqa: F403
    from .hub.connections import ConnectionPool as ConnectionPool
    from .hub.monitor import ConnectionMonitor as ConnectionMonitor
    from .hub.rooms import RoomManager as RoomManager
    from .hub.socket import Socket as Socket
    from .pipeline.authorization import WebSocketAuthorization as WebSocketAuthorization
    from .pipeline.broadcaster import Broadcast as Broadcast
    from .pipeline.broadcaster import EventBroadcaster as EventBroadcaster
    from .pipeline.filters import where as where
    from .protocol.messages import Event as Event
    from .protocol.messages import Position as Position
    from .server.server import RealtimeServer as RealtimeServer
    from .types import EventHandler as EventHandler

__version__ = "0.1.0"

_ERRORS = (
    "AuthenticationError", "BackendError", "BrokerUnavailable", "ConfigurationError", "ConnectTimeout", "ConnectionClosed", "ConnectionError",
    "ConnectionLimitExceeded", "GuestsNotAllowed", "IdempotencyConflict", "MessageTooLarge", "NoInstanceAvailable", "NotInRoom", "Overloaded",
    "PermissionDenied", "ProtocolError", "QueueError", "QueueFull", "RateLimitExceeded", "RealtimeError", "RequestTimeout", "RoomError", "RoomFull",
    "RoomLimitExceeded", "RoomNotFound", "RoomRequired", "StoreUnavailable", "TokenExpired", "TokenRevoked", "UnknownEvent", "UnrecoverablePosition",
    "ValidationError",
)  # fmt: skip

_PLACES = {
    "Broadcast": "pipeline.broadcaster",
    "ConnectionMonitor": "hub.monitor",
    "ConnectionPool": "hub.connections",
    "Event": "protocol.messages",
    "EventBroadcaster": "pipeline.broadcaster",
    "EventHandler": "types",
    "Instance": "cluster.instances",
    "LoadBalancer": "cluster.balancing",
    "Position": "protocol.messages",
    "RealtimeClient": "client.client",
    "RealtimeConfig": "config",
    "RealtimeServer": "server.server",
    "RoomManager": "hub.rooms",
    "Socket": "hub.socket",
    "User": "auth.user",
    "WebSocketAuth": "auth.authentication",
    "WebSocketAuthorization": "pipeline.authorization",
    "where": "pipeline.filters",
} | dict.fromkeys(_ERRORS, "errors")

__all__ = sorted(_PLACES)  # pyright: ignore


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{place}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
