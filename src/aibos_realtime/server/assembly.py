"""The one place that knows the concrete classes: from options, and parts that were passed in, to a server's parts."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..audit import Audit
from ..auth.authentication import WebSocketAuth
from ..auth.origin import OriginPolicy
from ..backends.base import Broker
from ..backends.bus import Bus, LocalBus
from ..clock import Clock
from ..cluster.scaling import ScalingManager
from ..config import RealtimeConfig
from ..errors import ConfigurationError
from ..hub.callbacks import Callbacks
from ..hub.connections import ConnectionPool
from ..hub.rooms import RoomManager
from ..metrics import Metrics
from ..options import Options
from ..pipeline.authorization import WebSocketAuthorization
from ..pipeline.broadcaster import Sending
from ..pipeline.fanout import Fanout
from ..pipeline.filters import Filters
from ..pipeline.handlers import BuiltIns
from ..pipeline.inbound import Inbound
from ..pipeline.routing import Router
from ..pipeline.throttle import LimitOptions
from ..protocol.deflate import Inflater
from ..protocol.frames import FrameReader
from ..storage.persistence import MessagePersistence
from ..storage.queue import MessageQueue
from ..storage.shared_broker import SharedBroker
from ..transport.batch import Sender
from ..transport.entrance import websocket_of
from .availability import Availability
from .handshake import Arrival, Handshake, Welcome
from .instances import InstancesRoute
from .scaling import Scaling
from .sockets import Sockets
from .storage import Storage, is_store_in_memory
from .traces import find_tracing
from .upgrade import TrustedProxies

if TYPE_CHECKING:
    from ..pipeline.tracing import Tracing

WEBSOCKET_PATHS = ("/", "/ws")


@dataclass(frozen=True)
class Parts:
    """What a server is made of."""

    auth: WebSocketAuth
    authorization: WebSocketAuthorization
    broker: Broker
    storage: Storage
    scaling: Scaling | None
    bus: Bus
    scaling_manager: ScalingManager
    instances_route: InstancesRoute
    availability: Availability | None
    rooms: RoomManager
    pool: ConnectionPool
    router: Router
    callbacks: Callbacks
    sending: Sending
    sender: Sender
    fanout: Fanout
    built_ins: BuiltIns
    sockets: Sockets
    handshake: Handshake
    origins: OriginPolicy
    metrics: Metrics
    tls: ssl.SSLContext | None
    node: str
    instance_url: str | None
    proxies: TrustedProxies
    audit: Audit
    tracing: Tracing | None


def assemble(
    config: RealtimeConfig,
    *,
    clock: Clock,
    auth: WebSocketAuth | None = None,
    authorization: WebSocketAuthorization | None = None,
    rooms: RoomManager | None = None,
    pool: ConnectionPool | None = None,
    broker: Broker | None = None,
    persistence: MessagePersistence | None = None,
    queue: MessageQueue | None = None,
) -> Parts:
    """Build a server's parts. Opens nothing, and binds to no event loop. Raises `ConfigurationError`."""
    limits = config.limits
    metrics = pool.metrics if pool is not None else Metrics()
    # Not `or`: an empty pool, or a manager without rooms, is falsy.
    auth = auth if auth is not None else WebSocketAuth.from_options(config.authentication, clock=clock)
    authorization = authorization if authorization is not None else WebSocketAuthorization(**_fields(config.authorization))
    rooms = rooms if rooms is not None else RoomManager(**_fields(config.rooms), clock=clock)
    pool = pool if pool is not None else _pool(config, metrics, clock)
    filters = Filters()
    has_store = not is_store_in_memory(config, persistence)
    scaling = Scaling(config, has_store=has_store, metrics=metrics, clock=clock) if config.scaling.enabled and broker is None else None
    storage = Storage(
        config, rooms=rooms, filters=filters, metrics=metrics, clock=clock, broker=broker, scaling=scaling, persistence=persistence, queue=queue,
    )  # fmt: skip
    broker = storage.broker
    tracing = find_tracing()
    sender = Sender(config.sender)
    fanout = (tracing.fanout if tracing else Fanout)(rooms=rooms, pool=pool, filters=filters, metrics=metrics, sender=sender, clock=clock)
    rooms.attach(pool, fanout.flush_room)
    broker.attach(fanout)
    if scaling is not None:
        assert isinstance(broker, SharedBroker)
        scaling.join(rooms=rooms, auth=auth, broker=broker)
    sending = Sending(
        broker=tracing.broker(broker) if tracing else broker, rooms=rooms, pool=pool, fanout=fanout, filters=filters, metrics=metrics, clock=clock,
        max_bytes=limits.broadcast_bytes,
    )  # fmt: skip
    built_ins = BuiltIns(auth=auth, authorization=authorization, sending=sending, limits=limits, metrics=metrics, clock=clock)
    router = tracing.router() if tracing else Router()
    is_immediate = authorization.is_immediate
    inbound = Inbound(router=router, built_ins=built_ins, limits=limits, metrics=metrics, clock=clock, is_immediate=is_immediate)
    callbacks = Callbacks("server", ("connection", "disconnect"))
    node = scaling.name if scaling else config.scaling.instance_id or f"node-{secrets.token_hex(4)}"
    audit = Audit(clock, node=node)
    rooms.audit = auth.audit = audit
    sockets = Sockets(
        node=node, pool=pool, rooms=rooms, fanout=fanout, inbound=inbound, built_ins=built_ins, callbacks=callbacks, limits=limits,
        deflate_threshold=config.compression.threshold, metrics=metrics, audit=audit, clock=clock,
    )  # fmt: skip
    origins = OriginPolicy(config.cors)
    proxies = TrustedProxies(config.trusted_proxies)
    handshake = Handshake(
        paths=WEBSOCKET_PATHS, origins=origins, auth=auth, pool=pool, limits=limits, proxies=proxies,
        offers_deflate=config.compression.enabled, metrics=metrics, audit=audit, clock=clock, welcome=_welcome(sockets, limits, sender),
    )  # fmt: skip
    sockets.handshake = handshake
    built_ins.penalty = handshake.penalty
    if scaling is not None:
        scaling.describe(pool=pool, rooms=rooms, handshake=handshake)
    manager = scaling.manager if scaling else ScalingManager(instances=[config.scaling.instance_url] if config.scaling.instance_url else [])
    instances = InstancesRoute(manager, auth=auth, proxies=proxies, penalty=handshake.penalty, clock=clock)
    availability = Availability(broker=broker, sockets=sockets, handshake=handshake, clock=clock) if scaling else None
    bus = scaling.bus if scaling else LocalBus()
    return Parts(
        auth, authorization, broker, storage, scaling, bus, manager, instances, availability, rooms, pool, router, callbacks, sending, sender, fanout,
        built_ins, sockets, handshake, origins, metrics, _tls(config), node, config.scaling.instance_url, proxies, audit, tracing
    )  # fmt: skip


def _welcome(sockets: Sockets, limits: LimitOptions, sender: Sender) -> Welcome:
    """What becomes of a stream whose handshake is done."""

    def welcome(arrival: Arrival, stream: asyncio.Transport, early: bytes, head: bytes = b"") -> None:
        inflater = Inflater() if arrival.deflate is not None else None
        reader = FrameReader(max_message=limits.message_bytes, max_fragments=limits.fragments, inflater=inflater)
        transport = websocket_of(stream, reader, arrival.address, sender.writer(stream))
        sockets.welcome(arrival, transport, head)
        transport.take_over(early, limits.outbox_soft_bytes)

    return welcome


def _fields(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in type(options).model_fields}


def _pool(config: RealtimeConfig, metrics: Metrics, clock: Clock) -> ConnectionPool:
    given = _fields(config.connections)
    if config.heartbeat is not None:
        given |= {"heartbeat_interval": config.heartbeat.interval, "heartbeat_timeout": config.heartbeat.timeout}
    return ConnectionPool(**given, metrics=metrics, clock=clock)


def _tls(config: RealtimeConfig) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls.certificate, config.tls.key)
    except (OSError, ssl.SSLError) as error:
        named = "what was given" if "@" in str(config.tls.certificate) else config.tls.certificate  # a URL in the wrong place may hold a password
        raise ConfigurationError(f"tls.certificate: {named} and its key cannot be used: {error}") from None
    return context
