"""`Cluster`: the nodes as seen from a process without sockets, a worker or a shell, which publishes to them and has them do things.

It takes part as a node does, but nobody connects to it, and no balancer knows it. It stores nothing: that is the servers'.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self

from pydantic import Field

from ..audit import Audit, on_request
from ..auth.authentication import MAX_LIFETIME, Revoke
from ..auth.tokens import is_name
from ..backends.base import Broker
from ..backends.nodes import NodeRecord
from ..backends.redis.options import RedisOptions
from ..backends.revocations import Revoked
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError, ValidationError
from ..hub.requests import Disconnect, SetRole
from ..hub.rooms import RoomManager, RoomOptions
from ..metrics import Metrics
from ..options import Options, Seconds
from ..protocol.close_codes import CloseCode
from ..storage.shared_broker import SharedBroker

if TYPE_CHECKING:
    from ..backends.redis.client import Client
    from ..backends.redis.layout import Layout


class ClusterOptions(Options):
    """See `Cluster`."""

    redis: RedisOptions
    rooms: RoomOptions = Field(default_factory=RoomOptions)
    name: str | None = None
    has_store: bool = True
    token_lifetime: Seconds = MAX_LIFETIME


class Cluster:
    """The servers that meet in a Redis. `redis`: `{"url": …, "prefix": …}`, the same as of the servers (`scaling.redis`).

    `broker` and `rooms` are for an `EventBroadcaster(broker=cluster.broker, rooms=cluster.rooms)`; `rooms` also lists, creates and destroys rooms,
    kicks, and says who is present. It may be passed in, or its options, which should be those of the servers (`patterns`, limits).
    `name`: for people, in the list of nodes. `has_store`: whether the servers keep events in a database; False where theirs is `memory://`.
    `token_lifetime`: seconds, the servers' `authentication.max_lifetime`; for so long a revocation is kept.

    Everything works between `start` and `stop` (`async with`), and raises `BrokerUnavailable` where Redis cannot be reached. Nothing is opened at
    construction. Whom the process itself put into a room (`rooms.join_room`) is there while it runs.
    """

    def __init__(
        self,
        *,
        redis: RedisOptions | Mapping[str, Any],
        rooms: RoomManager | RoomOptions | Mapping[str, Any] | None = None,
        name: str | None = None,
        has_store: bool = True,
        token_lifetime: float = MAX_LIFETIME,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Never,
    ) -> None:
        manager, rooms = (rooms, None) if isinstance(rooms, RoomManager) else (None, rooms)
        given = {"redis": redis, "rooms": rooms or {}, "name": name, "has_store": has_store, "token_lifetime": token_lifetime}
        self.options = options = ClusterOptions.parse("cluster", given | unknown)
        self.metrics = Metrics()
        if manager is None:
            manager = RoomManager(**{name: getattr(options.rooms, name) for name in RoomOptions.model_fields}, clock=clock)
        self.rooms = manager
        self._clock = clock
        self._build()
        self._life: AsyncExitStack | None = None

    def _build(self) -> None:
        """The parts that take part, put together as a server's are (`server.assembly`)."""
        from ..backends.redis.bus import RedisBus
        from ..backends.redis.client import Client
        from ..backends.redis.directory import RedisDirectory
        from ..backends.redis.layout import CLUSTER_SHARDS, Layout
        from ..backends.redis.log import RedisLog
        from ..backends.redis.nodes import RedisNodes
        from ..backends.redis.revocations import RedisRevocations

        options, clock, metrics = self.options, self._clock, self.metrics
        self._client: Client = Client.from_options(options.redis, clock=clock)
        layout: Layout = Layout(options.redis.prefix, CLUSTER_SHARDS if self._client.is_cluster else 1)
        name = options.name or f"process-{secrets.token_hex(4)}"
        self._nodes = RedisNodes(self._client, layout, name=name, role="process", metrics=metrics, clock=clock)
        self._bus = RedisBus(self._client, layout, nodes=self._nodes, metrics=metrics, clock=clock)
        log = RedisLog(self._client, prefix=options.redis.prefix, node=self._nodes.id, has_store=options.has_store, metrics=metrics)
        self._broker = SharedBroker(log, metrics=metrics, clock=clock)
        directory = RedisDirectory(self._client, layout, node=self._nodes.id, nodes=self._nodes, metrics=metrics, clock=clock)
        self._revocations = RedisRevocations(self._client, layout, memory=options.token_lifetime, metrics=metrics, clock=clock)
        self._audit = self.rooms.audit = Audit(clock, node=name)
        self.rooms.join_nodes(directory=directory, bus=self._bus, metrics=metrics)
        self._nodes.on_forgotten(directory.tell_again)
        self._bus.on(Disconnect, lambda request: 0)
        self._bus.on(SetRole, lambda request: 0)
        self._bus.on(Revoke, lambda request: None)

    # — life —

    async def start(self) -> None:
        """Connect, and take part. Idempotent. Raises `ConfigurationError`, `BrokerUnavailable`."""
        if self._life is not None:
            return
        async with AsyncExitStack() as opened:  # the last one ends first
            opened.push_async_callback(self._client.close)
            await self._client.open()
            for part in (self._nodes, self._bus, self._broker, self.rooms):
                opened.push_async_callback(part.stop)
                await part.start()
            self._life = opened.pop_all()

    async def stop(self) -> None:
        """Take part no longer. Idempotent."""
        life, self._life = self._life, None
        if life is not None:
            await life.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    # — what it does —

    @property
    def broker(self) -> Broker:
        """The log that all nodes share, for an `EventBroadcaster`."""
        return self._broker

    async def nodes(self) -> list[NodeRecord]:
        """The nodes that live, by rising name: servers, draining ones too, and processes like this one."""
        return await self._nodes.list()

    async def disconnect(self, *, user_id: str | None = None, socket_id: str | None = None, code: int = CloseCode.DISCONNECTED) -> int:
        """Close every connection of a user, or one connection; returns how many. `code`: 4503 (the client stays away) unless given."""
        if (user_id is None) == (socket_id is None):
            raise ConfigurationError("disconnect: exactly one of user_id and socket_id is needed")
        count = _sum(await self._bus.ask(Disconnect(user_id, socket_id, code)))
        self._audit.note("disconnect", user_id=user_id, socket_id=socket_id, code=code, reason=on_request(count))
        return count

    async def set_role(self, user_id: str, role: str) -> int:
        """Change a user's role on his live connections, and have his memberships checked again; returns how many connections it reached."""
        count = _sum(await self._bus.ask(SetRole(user_id, role)))
        self._audit.note("role", user_id=user_id, reason=role)
        return count

    async def revoke(self, *, user_id: str | None = None, token_id: str | None = None) -> None:
        """Take back every token of a user that was issued up to now, or one token, and close what was let in with them.

        Raises `BrokerUnavailable` where that could not be told for sure.
        """
        if (user_id is None) == (token_id is None):
            raise ConfigurationError("revoke: exactly one of user_id and token_id is needed")
        if not is_name(token_id if user_id is None else user_id):
            raise ValidationError("revoke: an id of 1 to 128 printable characters is expected")
        self._audit.note("revoke", user_id=user_id, reason=f"token {token_id}" if token_id is not None else None)
        at = self._clock.now()
        await self._revocations.add([Revoked("user", user_id, at) if user_id is not None else Revoked("token", str(token_id), at)])
        await self._bus.ask(Revoke(user_id, token_id, at))


def _sum(answers: list[Any]) -> int:
    return sum(answer for answer in answers if type(answer) is int)
