"""Several servers in this process over one Redis, as `scaling` puts them together; their sockets are in memory, and they have no database."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from aibos_realtime import RealtimeServer, RoomManager
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server

SECRET = "a secret of these tests alone, of 32 bytes or more"
OPEN: dict[str, Any] = {"permissions": {"*": ["read", "write"]}}
MEMORY: dict[str, Any] = {"database": {"url": "memory://"}}


class RoomNode:
    """One of them, and what it told of rooms and users."""

    def __init__(self, server: RealtimeServer) -> None:
        parts = server._parts.scaling
        assert parts is not None
        self.id = parts.node
        self.server = server
        self.client = parts.client
        self.layout = parts.log.layout
        self.nodes = parts.nodes
        self.directory = parts._directory
        self.bus = parts.bus
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

    async def node(self, name: str, *, rooms: RoomManager | dict[str, Any] | None = None, **options: Any) -> RoomNode:
        defaults: dict[str, Any] = {
            "authentication": {"jwt_secret": SECRET},
            "authorization": OPEN,
            "connections": {"max_connections": 2000},
            "persistence": MEMORY,
            "rooms": rooms or {},
            "scaling": {"enabled": True, "redis": {"url": self.url, "prefix": self.prefix}, "instance_id": name},
        }
        server = RealtimeServer(**defaults | options)
        await self._stack.enter_async_context(memory_server(server))
        return RoomNode(server)

    async def close(self) -> None:
        await self._stack.aclose()
