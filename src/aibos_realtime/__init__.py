"""aibos-realtime: realtime for multi-tenant SaaS. The public names, loaded when they are first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth.authentication import WebSocketAuth as WebSocketAuth
    from .auth.user import User as User
    from .client.client import RealtimeClient as RealtimeClient
    from .cluster.balancing import LoadBalancer as LoadBalancer
    from .cluster.cluster import Cluster as Cluster
    from .cluster.instances import Instance as Instance
    from .cluster.scaling import ScalingManager as ScalingManager
    from .config import RealtimeConfig as RealtimeConfig
    from .errors import *  # noqa: F403
    from .hub.connections import ConnectionPool as ConnectionPool
    from .hub.monitor import ConnectionMonitor as ConnectionMonitor
    from .hub.rooms import RoomManager as RoomManager
    from .hub.socket import Socket as Socket
    from .pipeline.authorization import WebSocketAuthorization as WebSocketAuthorization
    from .pipeline.broadcaster import Broadcast as Broadcast
    from .pipeline.broadcaster import EventBroadcaster as EventBroadcaster
    from .protocol.conditions import where as where
    from .protocol.messages import Event as Event
    from .protocol.messages import Position as Position
    from .server.server import RealtimeServer as RealtimeServer
    from .storage import outbox as outbox
    from .storage.messages import Message as Message
    from .storage.persistence import MessagePersistence as MessagePersistence
    from .storage.queue import MessageQueue as MessageQueue
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
    "Cluster": "cluster.cluster",
    "ConnectionMonitor": "hub.monitor",
    "ConnectionPool": "hub.connections",
    "Event": "protocol.messages",
    "EventBroadcaster": "pipeline.broadcaster",
    "EventHandler": "types",
    "Instance": "cluster.instances",
    "LoadBalancer": "cluster.balancing",
    "Message": "storage.messages",
    "MessagePersistence": "storage.persistence",
    "MessageQueue": "storage.queue",
    "Position": "protocol.messages",
    "RealtimeClient": "client.client",
    "RealtimeConfig": "config",
    "RealtimeServer": "server.server",
    "RoomManager": "hub.rooms",
    "ScalingManager": "cluster.scaling",
    "Socket": "hub.socket",
    "User": "auth.user",
    "WebSocketAuth": "auth.authentication",
    "WebSocketAuthorization": "pipeline.authorization",
    "outbox": "storage.outbox",
    "where": "protocol.conditions",
} | dict.fromkeys(_ERRORS, "errors")

__all__ = sorted(_PLACES)  # pyright: ignore


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{place}", __name__)
    value = module if place.endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
