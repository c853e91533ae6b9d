"""Whole servers in memory that share a log and a directory, all by one manual clock; each can be cut off, deafened, killed and begun anew."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

from aibos_realtime import ConnectionPool, RealtimeServer
from aibos_realtime.errors import AuthenticationError
from aibos_realtime.hub.requests import Disconnect, SetRole
from aibos_realtime.metrics import Metrics
from aibos_realtime.protocol.messages import SUBPROTOCOL, SUBPROTOCOL_MSGPACK
from aibos_realtime.server.availability import Availability
from aibos_realtime.server.handshake import Arrival
from aibos_realtime.storage.drain import Drainer
from aibos_realtime.storage.shared_broker import SharedBroker
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.store import MemoryStore
from aibos_realtime.transport.memory import MemoryEnd, MemoryTransport
from tests.model.ledger import JournaledLog, Ledger
from tests.model.meeting import Line, Meeting, MeetingBus, MeetingDirectory, MeetingRevocations, Registration

SECRET = "the secret of the model, of thirty-two bytes or more"
OUTBOX_SOFT, OUTBOX = 2048, 8192
GRACE = 25.0
ROOM_TIMEOUT = 20.0
TOGETHER = 1e-6
CAN = {"user": ["read", "write"], "reader": ["read"], "none": []}
"""What a role may do in the rooms of its own tenant; in others nobody may anything."""

SMALL_SIZE, SMALL_TTL = 4, 60.0
PATTERNS: dict[str, Any] = {
    "*:small": {"history_size": SMALL_SIZE, "history_ttl": SMALL_TTL, "max_users": 2},
    "*:brief": {"ephemeral": True},
    "*": {"history_size": 5000, "history_ttl": 86_400.0},
}


class ClusterClock(ManualClock):
    """A manual clock by which what is due at one moment, on whichever node, happens together."""

    async def advance(self, seconds: float) -> None:
        target = self._monotonic + seconds
        await settle()
        while self._timers and self._timers[0][0] <= target:
            self._monotonic = max(self._monotonic, self._timers[0][0])
            while self._timers and self._timers[0][0] <= self._monotonic + TOGETHER:
                timer = heapq.heappop(self._timers)[2]
                if not timer.is_cancelled:
                    timer.callback(*timer.args)
            await settle()
        self._monotonic = target
        await settle()


class FreeLease:
    """See `backends.intake.Lease`; always free."""

    ttl = 5.0

    async def hold(self) -> bool:
        return True

    async def release(self) -> None: ...


class Node:
    """One server, from its start to its end. `id` is of this life."""

    def __init__(self, cluster: Cluster, id: str) -> None:
        clock = cluster.clock
        self.id = id
        self.link = cluster.log.node(id)
        self.link.turns = cluster.turns
        metrics = Metrics()
        self.broker = SharedBroker(self.link, store=cluster.store, metrics=metrics, clock=clock)
        self.server = RealtimeServer(
            clock=clock,
            broker=self.broker,
            authentication={"jwt_secret": SECRET, "expiry_grace": GRACE},
            authorization={"roles": {role: {"tenant_{tenant_id}:*": rights} for role, rights in CAN.items() if rights}},
            connections=ConnectionPool(metrics=metrics, clock=clock),
            rooms={"max_rooms": 4, "room_timeout": ROOM_TIMEOUT, "patterns": PATTERNS},
            limits={
                "messages_per_second": None, "publishes_per_second": None, "outbox_soft_bytes": OUTBOX_SOFT, "outbox_bytes": OUTBOX,
                "connections_per_user": 4, "rooms_per_connection": 3,
            },
            persistence={"database": {"url": "memory://"}},
            sender="python",
        )  # fmt: skip
        line = Line(cluster.meeting, self.link)
        self.bus = MeetingBus(line, id)
        self.directory = MeetingDirectory(line, id)
        self.registration = Registration(line, id)
        self.availability = self._join(line, clock)
        self.is_alive = True

    def _join(self, line: Line, clock: ManualClock) -> Availability:
        """What `server.scaling` does, with the model's parts in the place of those of Redis."""
        server, broker = self.server, self.broker
        server.rooms.join_nodes(directory=self.directory, bus=self.bus, follow=broker.position, metrics=server.metrics)
        broker.on_notice(server.rooms.hear_notice)
        server.auth.join(self.bus, MeetingRevocations(line))
        people = server._people
        people._bus = self.bus
        self.bus.on(Disconnect, people._disconnect)
        self.bus.on(SetRole, people._set_role)
        self.registration.clean_up = self.directory.clean_up
        self.registration.forgotten += [self.directory.tell_again, server.auth.keep_revocations]
        return Availability(broker=broker, sockets=server.sockets, handshake=server._parts.handshake, clock=clock)

    async def start(self) -> None:
        await self.registration.start()
        await self.bus.start()
        await self.server.open()
        self.availability.start()

    async def stop(self, *, is_killed: bool) -> None:
        self.availability.stop()
        if is_killed:
            self.link.is_cut_off = True
            for socket in list(self.server.pool):
                socket.transport.abort()
        await self.server.stop(drain=0)
        await self.bus.stop()
        await self.registration.stop(is_killed=is_killed)

    def connect(self, token: str | None, *, is_binary: bool) -> tuple[MemoryEnd, Any] | None:
        """The two ends of a new connection; None where it is refused."""
        handshake = self.server._parts.handshake
        identity = None
        if token is not None:
            try:
                identity = self.server.auth.identify_now(token)
            except AuthenticationError:
                return None
        if not handshake.is_open or self.server.pool.is_full:
            return None
        transport = MemoryTransport(remote_address="192.0.2.1", soft_limit=OUTBOX_SOFT)
        arrival = Arrival("192.0.2.1", SUBPROTOCOL_MSGPACK if is_binary else SUBPROTOCOL, b"", identity=identity)
        return transport.far, self.server.sockets.welcome(arrival, transport)


class Cluster:
    """`turns`: how many turns of the loop each way of a call takes. `has_store`: events wait in the log until a database has them."""

    def __init__(self, count: int, *, turns: Callable[[], int], has_store: bool) -> None:
        self.clock = ClusterClock()
        self.log = JournaledLog(clock=self.clock, has_store=has_store)
        self.log.ledger = self.ledger = Ledger()
        self.store = MemoryStore() if has_store else None
        self.turns = turns
        self.meeting = Meeting(self.log, self.clock)
        self.drainer: Drainer | None = None
        self.nodes: list[Node] = []
        self._count = count
        self._lives = 0
        self._ending: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Cluster:
        for _ in range(self._count):
            self.nodes.append(self._new())
        if self.store is not None:
            self.drainer = Drainer(self.log.intake, self.store, FreeLease(), on_era=self._enter_era, clock=self.clock)
            await self.drainer.start()
        for node in self.nodes:
            await node.start()
        await settle()
        return self

    async def _enter_era(self, era: str) -> None:
        await self.log.answer()
        self.log.enter_era(era)

    async def __aexit__(self, *_: object) -> None:
        self.heal()
        for node in self.nodes:
            if node.is_alive:
                self.end(node, is_killed=False)
        if self.drainer is not None:
            self._ending.append(asyncio.ensure_future(self.drainer.stop()))
        await self.clock.advance(5.0)
        await asyncio.wait_for(asyncio.gather(*self._ending), 10.0)
        await settle()

    def _new(self) -> Node:
        self._lives += 1
        return Node(self, f"life{self._lives}")

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.is_alive]

    def heal(self) -> None:
        """No more faults."""
        self.log.is_down = self.log.is_hung = False
        for node in self.living:
            link = node.link
            link.is_cut_off = link.is_deaf = False
            link.deaf_rooms.clear()
            link.replies_lost, link.fate = 0, None

    def end(self, node: Node, *, is_killed: bool) -> None:
        """A server ends: as it should (its clients are told), or as by `kill -9`. What only it had seen, the log does not lose: nobody would know."""
        self.log.be_replicated()
        node.is_alive = False
        if is_killed:
            node.link.is_cut_off = True
        self._ending.append(asyncio.ensure_future(self._end(node, is_killed)))

    async def _end(self, node: Node, is_killed: bool) -> None:
        try:
            await node.stop(is_killed=is_killed)
        finally:
            self.log.be_replicated()
            self.log.nodes.remove(node.link)

    async def begin_anew(self, number: int) -> bool:
        """A server takes the place of one that ended. Whether it could start."""
        node = self._new()
        starting = asyncio.ensure_future(node.start())
        await settle()
        for _ in range(8):
            if starting.done():
                break
            await self.clock.advance(0.5)
        if not starting.done() or starting.exception() is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            self.end(node, is_killed=True)
            return False
        self.nodes[number] = node
        return True
