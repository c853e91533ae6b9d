"""The public types, in one place: what calls take and return, and the option models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .auth.authentication import AuthenticationOptions
from .auth.origin import CorsOptions
from .auth.user import AuthResult, User
from .backends.base import Receipt
from .client.options import ClientOptions
from .cluster.balancing import HealthCheckOptions, LoadBalancerOptions
from .cluster.instances import Instance, InstanceOptions
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
    "Event",
    "EventHandler",
    "HealthCheckOptions",
    "HeartbeatOptions",
    "Instance",
    "InstanceOptions",
    "LimitOptions",
    "LoadBalancerOptions",
    "Member",
    "MonitorOptions",
    "PersistenceOptions",
    "Position",
    "RealtimeConfig",
    "Receipt",
    "Room",
    "RoomInfo",
    "RoomOptions",
    "RoomPattern",
    "RoomSettings",
    "ScalingOptions",
    "Socket",
    "TlsOptions",
    "User",
]
