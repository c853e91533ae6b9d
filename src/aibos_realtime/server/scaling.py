"""The parts by which a server is one of several, with one life: the connections to Redis, and what is shared over them."""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import AsyncExitStack

from .. import __version__
from ..auth.authentication import WebSocketAuth
from ..backends.nodes import NodeState
from ..backends.redis.bus import RedisBus
from ..backends.redis.client import Client
from ..backends.redis.directory import RedisDirectory
from ..backends.redis.erasure import RedisErasure
from ..backends.redis.intake import RedisIntake
from ..backends.redis.lease import RedisLease
from ..backends.redis.log import RedisLog
from ..backends.redis.nodes import RedisNodes
from ..backends.redis.options import placed
from ..backends.redis.revocations import RedisRevocations
from ..clock import Clock
from ..cluster.reports import OwnReport
from ..cluster.scaling import ScalingManager
from ..config import RealtimeConfig
from ..errors import BrokerUnavailable, ConfigurationError
from ..hub.connections import ConnectionPool
from ..hub.rooms import RoomManager
from ..metrics import Metrics
from ..storage.shared_broker import SharedBroker
from .handshake import Handshake


class Scaling:
    """`node`: the id of this life of the process. `has_store`: events wait in Redis until a database has them."""

    def __init__(self, config: RealtimeConfig, *, has_store: bool, metrics: Metrics, clock: Clock) -> None:
        redis = config.nodes_redis
        assert redis is not None, "the configuration was checked"
        self._redis = redis
        self._redis_path = "scaling.redis" if config.scaling.redis is not None else "queue.redis"
        self.name = config.scaling.instance_id or f"node-{secrets.token_hex(4)}"
        self.node = secrets.token_hex(8)
        self.client = Client.from_options(redis, clock=clock)
        self.log = RedisLog(
            self.client, prefix=redis.prefix, node=self.node, has_store=has_store, max_waiting=config.scaling.intake_events, metrics=metrics
        )

        self.intake = RedisIntake(self.log)
        self.erasure = RedisErasure(self.log, clock=clock)
        self.nodes = RedisNodes(
            self.client, self.log.layout, id=self.node, name=self.name, url=config.scaling.instance_url, version=__version__, metrics=metrics,
            clock=clock,
        )  # fmt: skip
        self.manager = ScalingManager(nodes=self.nodes, clock=clock)
        layout = self.log.layout
        self.bus = RedisBus(self.client, layout, nodes=self.nodes, metrics=metrics, clock=clock)
        self.group: str | None = None
        """The name of all nodes that meet here: in this Redis, whatever its address, under this prefix."""
        self._store: str | None = None
        self._directory = RedisDirectory(self.client, layout, node=self.node, nodes=self.nodes, metrics=metrics, clock=clock)
        self._metrics = metrics
        self._weight = config.scaling.weight
        self._clock = clock

    def join(self, *, rooms: RoomManager, auth: WebSocketAuth, broker: SharedBroker) -> None:
        """Have a server's rooms and tokens be those of all nodes."""
        rooms.join_nodes(directory=self._directory, bus=self.bus, follow=broker.position, metrics=self._metrics)
        broker.on_notice(rooms.hear_notice)
        kept = RedisRevocations(self.client, self.log.layout, memory=auth.revocation_memory, metrics=self._metrics, clock=self._clock)
        auth.join(self.bus, kept)
        self.nodes.on_gone(self._directory.clean_up)
        self.nodes.on_forgotten(self._tell_again)
        self.nodes.on_forgotten(self._directory.tell_again)
        self.nodes.on_forgotten(auth.keep_revocations)

    def describe(self, *, pool: ConnectionPool, rooms: RoomManager, handshake: Handshake) -> None:
        """Have the others told how busy this node is, and whether it takes connections."""

        def state() -> NodeState:
            return "up" if handshake.is_open else "draining"

        most = pool.options.max_connections
        self.nodes.describe(OwnReport(pool=pool, max_connections=most, rooms=rooms, weight=self._weight, state=state, clock=self._clock))

    def lease(self, name: str) -> RedisLease:
        """The right to do something that one of the nodes does at a time."""
        return RedisLease(self.client, self.log.layout, name, self.node)

    async def start(self) -> None:
        """Connect. Raises `ConfigurationError`, `BrokerUnavailable`."""
        try:
            await self.client.open()
        except (BrokerUnavailable, ConfigurationError) as error:
            raise placed(error, self._redis_path, self._redis) from error.__cause__
        await self._find_group()  # before this node is registered: where Redis loses the one it loses the other, and is told both again
        await self.nodes.start()
        await self.bus.start()

    async def _find_group(self) -> None:
        key = self.log.layout.of_nodes("group")
        await self.client.command("SET", key, secrets.token_hex(8), "NX")
        found = (await self.client.command("GET", key) or b"").decode(errors="replace")
        self.group = found if re.fullmatch("[0-9a-f]{16}", found) else None

    async def _tell_again(self) -> None:
        """Redis has lost what the nodes have agreed on."""
        if self.group is not None:
            await self.client.command("SET", self.log.layout.of_nodes("group"), self.group)
        if self._store is not None:
            await self.client.command("SET", self.log.layout.of_nodes("store"), self._store)

    async def agree(self, store: str) -> None:
        """See that all nodes keep their events in one place. Raises `ConfigurationError` where the others that live have another one."""
        await self._agree(store)
        self._store = store

    async def _agree(self, store: str) -> None:
        key = self.log.layout.of_nodes("store")
        await self.client.command("SET", key, store, "NX")
        if await self.client.command("GET", key) == store.encode():
            return
        others = [record.name for record in await self.nodes.list() if record.role == "server" and record.id != self.node]
        if others:
            raise ConfigurationError(
                f"persistence.database.url: other nodes ({', '.join(others[:3])}) keep their events elsewhere; allowed is the same database for all"
                " nodes that share a Redis and a prefix"
            )
        await self.client.command("SET", key, store)

    async def tell(self) -> None:
        """Have the others know at once that this node takes connections, or takes none any more; as far as Redis answers within a second."""
        await asyncio.wait([asyncio.ensure_future(self.nodes.beat())], timeout=1.0)

    async def stop(self) -> None:
        """End every part, whatever happens to one of them; what others learn of this node goes last."""
        async with AsyncExitStack() as parts:  # the last one ends first
            parts.push_async_callback(self.client.close)
            parts.push_async_callback(self.nodes.stop)
            parts.push_async_callback(self.manager.stop)
            parts.push_async_callback(self.bus.stop)
