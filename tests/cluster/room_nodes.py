"""Several servers in this process over one Redis, put together by hand; their sockets are in memory, and they have no database."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from aibos_realtime import ConnectionPool, RealtimeServer, RoomManager
from aibos_realtime.backends.redis.bus import RedisBus
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.directory import RedisDirectory
from aibos_realtime.backends.redis.layout import CLUSTER_SHARDS, Layout
from aibos_realtime.backends.redis.log import RedisLog
from aibos_realtime.backends.redis.nodes import RedisNodes
from aibos_realtime.backends.redis.revocations import RedisRevocations
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.metrics import Metrics
from aibos_realtime.storage.shared_broker import SharedBroker
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server

SECRET = "a secret of these tests alone, of 32 bytes or more"
OPEN: dict[str, Any] = {"permissions": {"*": ["read", "write"]}}
MEMORY: dict[str, Any] = {"database": {"url": "memory://"}}


class RoomNode:
    """A server that takes part, and what it told of rooms and users."""

    def __init__(self, server: RealtimeServer, client: Client, layout: Layout, nodes: RedisNodes, bus: RedisBus, directory: RedisDirectory) -> None:
        self.id = nodes.id
        self.server = server
        self.client = client
        self.layout = layout
        self.nodes = nodes
        self.directory = directory
        self.bus = bus
        self.rooms = server.rooms
        self.net = MemoryServer(server)
        self.told: list[tuple[str, ...]] = []
        self.changed = asyncio.Event()
        for event in ("room.created", "room.destroyed", "user.joined", "user.left"):
            self.rooms.on(event, self._note(event))

    def _note(self, event: str) -> Any:
        def note(*what: Any) -> None:
            self.told.append((event.partition(".")[2], *(getattr(one, "id", one) for one in what)))
            self.changed.set()

        return note

    async def connect(self, user: str, **options: Any) -> MemoryClient:
        return await self.net.connect(user, **options)

    async def join(self, user: str, room: str, **options: Any) -> MemoryClient:
        """A client of a user who is in a room."""
        client = await self.net.connect(user, **options)
        await client.request("join-room", room)
        return client

    async def users(self, room: str) -> list[str]:
        return sorted(member.user_id for member in await self.rooms.get_room_users(room))

    async def until(self, *what: str) -> None:
        """Wait until it was told."""
        async with asyncio.timeout(10):
            while what not in self.told:
                self.changed.clear()
                await self.changed.wait()


class RoomNodes:
    """Makes such servers, and ends them."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._stack = AsyncExitStack()

    async def node(self, name: str, *, rooms: RoomManager | dict[str, Any] | None = None, tend: float = 5.0, **options: Any) -> RoomNode:
        enter = self._stack.push_async_callback
        client = Client(read_url(self.url))
        enter(client.close)
        await client.open()
        metrics, layout = Metrics(), Layout(self.prefix, CLUSTER_SHARDS if client.is_cluster else 1)
        nodes = RedisNodes(client, layout, name=name, metrics=metrics)
        bus = RedisBus(client, layout, nodes=nodes, metrics=metrics)
        directory = RedisDirectory(client, layout, node=nodes.id, nodes=nodes, tend=tend, metrics=metrics)
        broker = SharedBroker(RedisLog(client, prefix=self.prefix, node=nodes.id, has_store=False, metrics=metrics), metrics=metrics)
        defaults: dict[str, Any] = {"authentication": {"jwt_secret": SECRET}, "authorization": OPEN, "persistence": MEMORY}
        pool = ConnectionPool(metrics=metrics, max_connections=2000)
        server = RealtimeServer(**defaults | {"broker": broker, "rooms": rooms or {}, "connections": pool} | options)
        server.rooms.join_nodes(directory=directory, bus=bus, follow=broker.position, metrics=metrics)
        broker.on_notice(server.rooms.hear_notice)
        server.auth.join(bus, RedisRevocations(client, layout, memory=server.auth.revocation_memory, metrics=metrics))
        server._people.join(bus)
        nodes.on_gone(directory.clean_up)
        nodes.on_forgotten(directory.tell_again)
        for part in (nodes, bus):
            enter(part.stop)
            await part.start()
        await server.auth.load_revocations()
        await self._stack.enter_async_context(memory_server(server))
        await server.rooms.start()
        return RoomNode(server, client, layout, nodes, bus, directory)

    async def close(self) -> None:
        await self._stack.aclose()
