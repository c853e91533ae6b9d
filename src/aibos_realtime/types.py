"""The public types, in one place: what calls take and return, and the option models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .auth.authentication import AuthenticationOptions
from .auth.origin import CorsOptions
from .auth.user import AuthResult, User
from .backends.base import Receipt
from .backends.nodes import NodeRecord
from .backends.queue import QueueStats
from .backends.redis.options import RedisOptions
from .backends.sql.options import DatabaseOptions
from .client.options import ClientOptions
from .cluster.balancing import HealthCheckOptions, LoadBalancerOptions
from .cluster.instances import Instance, InstanceOptions
from .cluster.reports import InstanceReport
from .cluster.scaling import ScalingManagerOptions
from .config import CompressionOptions, HeartbeatOptions, PersistenceOptions, RealtimeConfig, ScalingOptions, TlsOptions
from .hub.connections import ConnectionOptions
from .hub.monitor import ConnectionMetrics, MonitorOptions
from .hub.room import Room, RoomInfo, RoomSettings
from .hub.rooms import RoomOptions, RoomPattern
from .hub.socket import Socket
from .pipeline.authorization import AuthorizationOptions
from .pipeline.broadcaster import Broadcast
from .pipeline.throttle import LimitOptions
from .protocol.messages import Event, Member, Position
from .storage.handling import ProcessOptions, QueueHandler, QueueMessage
from .storage.messages import DeadMessage, Erased, Message
from .storage.persistence import RetentionOptions
from .storage.queue import DeadLetter, MessageQueueOptions, QueueOptions, QueueReceipt

EventHandler = Callable[..., Awaitable[Any] | Any]
"""A handler: `def` or `async def`."""

__all__ = [
    "AuthResult",
    "AuthenticationOptions",
    "AuthorizationOptions",
    "Broadcast",
    "ClientOptions",
    "CompressionOptions",
    "ConnectionMetrics",
    "ConnectionOptions",
    "CorsOptions",
    "DatabaseOptions",
    "DeadLetter",
    "DeadMessage",
    "Erased",
    "Event",
    "EventHandler",
    "HealthCheckOptions",
    "HeartbeatOptions",
    "Instance",
    "InstanceOptions",
    "InstanceReport",
    "LimitOptions",
    "LoadBalancerOptions",
    "Member",
    "Message",
    "MessageQueueOptions",
    "MonitorOptions",
    "NodeRecord",
    "PersistenceOptions",
    "Position",
    "ProcessOptions",
    "QueueHandler",
    "QueueMessage",
    "QueueOptions",
    "QueueReceipt",
    "QueueStats",
    "RealtimeConfig",
    "Receipt",
    "RedisOptions",
    "RetentionOptions",
    "Room",
    "RoomInfo",
    "RoomOptions",
    "RoomPattern",
    "RoomSettings",
    "ScalingManagerOptions",
    "ScalingOptions",
    "Socket",
    "TlsOptions",
    "User",
]
