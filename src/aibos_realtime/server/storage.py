"""What a server keeps, as one part with one life: the database, the log, stored messages, the outbox's relay and the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from ..backends.base import Broker, Draft, Receipt
from ..backends.memory.broker import MemoryBroker
from ..backends.redis.options import placed
from ..backends.sql.database import Database
from ..clock import Clock
from ..config import RealtimeConfig
from ..errors import BrokerUnavailable, ConfigurationError
from ..hub.rooms import RoomManager
from ..metrics import Metrics
from ..pipeline.filters import Filters
from ..protocol.limits import is_own_stream
from ..storage.broker import StoredBroker
from ..storage.drain import Drainer
from ..storage.persistence import MessagePersistence
from ..storage.queue import MessageQueue
from ..storage.relay import Relay
from ..storage.shared_broker import SharedBroker
from ..storage.split_broker import SplitBroker
from .scaling import Scaling

if TYPE_CHECKING:
    from ..backends.queue import QueueStore


DRAIN_LAST = 2.0
"""Seconds that a node which stops, and drains, goes on draining what waits for the database."""


class Storage:
    """`broker`, `persistence`, `queue`: parts that were passed in, instead of those that the options describe.

    With a store in memory (`memory://`), or with a broker that was passed in, there is neither `persistence` nor an outbox of its own.
    """

    def __init__(
        self,
        config: RealtimeConfig,
        *,
        rooms: RoomManager,
        filters: Filters,
        metrics: Metrics,
        clock: Clock,
        broker: Broker | None = None,
        scaling: Scaling | None = None,
        persistence: MessagePersistence | None = None,
        queue: MessageQueue | None = None,
    ) -> None:
        options = config.persistence
        is_in_memory = is_store_in_memory(config, persistence)
        self.persistence = persistence
        self.broker = broker if broker is not None else MemoryBroker(clock=clock)
        self._database: Database | None = None
        self.relay: Relay | None = None
        """What publishes from the outbox; None without a database."""
        self._scaling: Scaling | None = None
        self.drainer: Drainer | None = None
        """What takes events to the database, where several nodes share a log."""
        if broker is None and not is_in_memory:
            if persistence is None:
                self._database = Database.from_options(options.database)
                self.persistence = persistence = MessagePersistence(database=self._database, retention=options.retention, clock=clock)
        if broker is None and scaling is not None:
            self._share(config, scaling, partial(_publish, rooms=rooms, filters=filters), metrics, clock)
        elif broker is None and persistence is not None:
            durable = _durable(config, persistence.database, metrics, clock)
            persistence.attach(durable)
            self.broker = SplitBroker(durable=durable, ephemeral=self.broker, is_ephemeral=lambda room: _is_ephemeral(rooms, room))
            self.relay = Relay(persistence.database, partial(_publish, self.broker, rooms=rooms, filters=filters), clock=clock)
        self.queue = queue if queue is not None else _queue(config, persistence, clock)
        self._life = AsyncExitStack()
        self._drain = 0.0

    def _share(
        self, config: RealtimeConfig, scaling: Scaling, publish: Callable[[Broker, Draft], asyncio.Future[Receipt]], metrics: Metrics, clock: Clock
    ) -> None:
        """Be one of several nodes: their log, and below it the database, if there is one."""
        self._scaling = scaling
        persistence, store = self.persistence, None
        if persistence is not None:
            from ..backends.sql.events import SqlEventStore

            store = SqlEventStore(persistence.database, group=lambda: scaling.group)
            persistence.attach(scaling.erasure)
            self.drainer = Drainer(
                scaling.intake, store, scaling.lease("store"), on_era=partial(self._enter_era, scaling), metrics=metrics, clock=clock
            )  # fmt: skip
        self.broker = broker = SharedBroker(scaling.log, store=store, ack=config.persistence.ack or "queued", metrics=metrics, clock=clock)
        if persistence is not None and self.drainer is not None:
            drainer = self.drainer
            self.relay = Relay(persistence.database, partial(publish, broker), clock=clock, is_ours=lambda: drainer.is_holder)

    async def _enter_era(self, scaling: Scaling, era: str) -> None:
        """What the database's era is, all nodes have to take up, and so it has to be everybody's database."""
        from ..backends.sql.meta import identity

        assert self.persistence is not None
        await scaling.agree(await self.persistence.database.write(identity))
        await scaling.log.enter_era(era)

    @property
    def waiting(self) -> int | None:
        """Events that wait for the database, as the node that takes them there knows; None on the others, and where there is but one node."""
        return self.drainer.waiting if self.drainer is not None else None

    async def start(self) -> None:
        """Open everything. Raises `ConfigurationError`, `BackendError`; then all is closed again."""
        try:
            await self._start()
        except ConfigurationError as error:
            if str(error).startswith("database."):  # by its own parts' name for it; the server has it one level deeper
                raise ConfigurationError(f"persistence.{error}") from error.__cause__
            raise

    async def _start(self) -> None:
        async with AsyncExitStack() as opened:  # the last one ends first
            if self._database is not None:
                opened.push_async_callback(self._database.close)
                await self._database.open()
            if self.persistence is not None:
                opened.push_async_callback(self.persistence.stop)
                await self.persistence.start()
            if self.drainer is not None:
                opened.push_async_callback(self._stop_drainer)
                await self.drainer.start()
            elif self._scaling is not None:
                await self._scaling.agree("memory")
            opened.push_async_callback(self.broker.stop)
            await self.broker.start()
            if self.relay is not None:
                opened.push_async_callback(self.relay.stop)
                await self.relay.start()
            opened.push_async_callback(self._stop_queue)
            await self._start_queue()
            self._life = opened.pop_all()

    async def _start_queue(self) -> None:
        try:
            await self.queue.start()
        except (BrokerUnavailable, ConfigurationError) as error:
            if self.queue.options.redis is None:
                raise
            raise placed(error, "queue.redis", self.queue.options.redis) from error.__cause__

    async def stop(self, drain: float) -> None:
        """Close everything, whatever happens to one of them; what is on its way is stored first. Idempotent.

        `drain`: seconds for handlers of the queue that are running.
        """
        self._drain = drain
        await self._life.aclose()

    async def _stop_drainer(self) -> None:
        if self.drainer is not None:
            await self.drainer.stop(DRAIN_LAST)

    async def _stop_queue(self) -> None:
        await self.queue.stop(drain=self._drain)


def is_store_in_memory(config: RealtimeConfig, persistence: MessagePersistence | None) -> bool:
    """Whether nothing keeps events beyond the log."""
    return persistence is None and config.persistence.database.url.startswith("memory:")


def _durable(config: RealtimeConfig, database: Database, metrics: Metrics, clock: Clock) -> StoredBroker:
    from ..backends.sql.events import SqlEventStore  # SQLAlchemy comes with it, which a server in memory can do without

    options = config.persistence
    return StoredBroker(
        SqlEventStore(database),
        waiting=options.events_waiting,
        waiting_bytes=options.bytes_waiting,
        memory_bytes=options.memory_bytes,
        metrics=metrics,
        clock=clock,
    )


def _publish(broker: Broker, draft: Draft, *, rooms: RoomManager, filters: Filters) -> asyncio.Future[Receipt]:
    """Publish what the outbox had, which knows nothing of patterns of rooms and of registered filters."""
    if draft.audience is not None and draft.audience.filter is not None and draft.audience.filter not in filters:
        raise ConfigurationError(f"filter: there is no filter {draft.audience.filter!r}; registered are: {', '.join(filters.names()) or 'none'}")
    if not is_own_stream(draft.room):
        pattern = rooms.pattern(draft.room)
        draft = structs.replace(
            draft, ephemeral=pattern.ephemeral, ack=pattern.ack, history_size=pattern.history_size, history_ttl=pattern.history_ttl
        )
    return broker.publish(draft)


def _is_ephemeral(rooms: RoomManager, room: str) -> bool:
    return not is_own_stream(room) and rooms.pattern(room).ephemeral


def _queue(config: RealtimeConfig, persistence: MessagePersistence | None, clock: Clock) -> MessageQueue:
    """The queue that the options describe; where they name no place, it is in the server's own database."""
    options = config.queue
    url, store = options.url, None
    if options.redis is None and url is None:
        store = _queue_store(persistence, clock) if persistence is not None else None
        url = "memory://" if store is None else None
    return MessageQueue(
        redis=options.redis,
        url=url,
        queues=options.queues,
        max_message_bytes=options.max_message_bytes,
        idempotency_window=options.idempotency_window,
        store=store,
        clock=clock,
    )


def _queue_store(persistence: MessagePersistence, clock: Clock) -> QueueStore:
    from ..backends.sql.queue import SqlQueue

    return SqlQueue(persistence.database, clock=clock)
