"""Directories of rooms of several nodes, in this process, over one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

from aibos_realtime.backends.directory import Entered, PresentUser, RoomDraft, RoomRecord
from aibos_realtime.backends.nodes import NodeRecord
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.directory import RedisDirectory
from aibos_realtime.backends.redis.layout import CLUSTER_SHARDS, Layout
from aibos_realtime.backends.redis.subscriber import Subscriber
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.metrics import Metrics
from aibos_realtime.testing.clock import settle

PATIENCE = 10.0
_numbers = count(1)


class Heard:
    """See `backends.directory.Listener`: it writes down what it is told."""

    def __init__(self, room_timeout: float | None = None, window: float = 300.0) -> None:
        self.room_timeout = room_timeout
        self.window = window
        self.all: list[tuple[str, ...]] = []
        self.births: dict[tuple[str, str], str] = {}
        """Of the life of the room that each of those who were told anew is in."""
        self.ended: set[str] = set()
        self.changed = asyncio.Event()

    def reach(self, room_id: str) -> float:
        return self.window

    def room_created(self, room: RoomRecord) -> None:
        self._note("created", room.id)

    def room_destroyed(self, room_id: str) -> None:
        self._note("destroyed", room_id)

    def user_joined(self, room_id: str, user_id: str) -> None:
        self._note("joined", room_id, user_id)

    def user_left(self, room_id: str, user_id: str) -> None:
        self._note("left", room_id, user_id)

    def user_is_in(self, room_id: str, user_id: str, birth: str) -> bool:
        self.births[room_id, user_id] = birth
        return birth not in self.ended

    def _note(self, *what: str) -> None:
        self.all.append(what)
        self.changed.set()

    async def until(self, *what: str) -> None:
        """Wait until something was told."""
        async with asyncio.timeout(PATIENCE):
            while what not in self.all:
                self.changed.clear()
                await self.changed.wait()


class Known:
    """A register of nodes as far as a directory asks it: who lives."""

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)

    async def list(self) -> list[NodeRecord]:
        return [NodeRecord(id, id, None, "up", "", 0.0, 0.0) for id in sorted(self.ids)]


class Node:
    """One node's directory."""

    def __init__(self, id: str, directory: RedisDirectory, heard: Heard, client: Client, layout: Layout, metrics: Metrics) -> None:
        self.id = id
        self.directory = directory
        self.heard = heard
        self.client = client
        self.layout = layout
        self.metrics = metrics

    async def enter(self, room: str, user: str, *, role: str = "user", max_rooms: int | None = 1000, create: bool = True, **settings: Any) -> Entered:
        """Have a user in a room."""
        return await self.directory.enter(draft(room, **settings), PresentUser(user, role), create=create, max_rooms=max_rooms)

    async def create(self, room: str, *, max_rooms: int | None = 1000, **settings: Any) -> RoomRecord:
        return await self.directory.create(draft(room, **settings), max_rooms=max_rooms)

    async def leave(self, room: str, user: str) -> None:
        """Have a user leave, and wait until that is known everywhere."""
        self.directory.leave(room, user)
        await self.directory.told(room)

    async def users(self, room: str) -> list[str]:
        return [member.user_id for member in await self.directory.members(room)]

    async def reachable(self, room: str, within: float = 300.0) -> list[str]:
        return sorted(user.id for user in await self.directory.reachable(room, within))


def draft(room: str, *, max_users: int | None = 100, allow_guests: bool = False, name: str | None = None, type: str = "room") -> RoomDraft:
    return RoomDraft(room, name or room, type, max_users, allow_guests)


class Directories:
    """Makes nodes, and ends them."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._stack = AsyncExitStack()

    async def node(self, *, room_timeout: float | None = None, window: float = 300.0, **options: Any) -> Node:
        client = Client(read_url(self.url))
        await client.open()
        self._stack.push_async_callback(client.close)
        layout = Layout(self.prefix, CLUSTER_SHARDS if client.is_cluster else 1)
        id, heard, metrics = f"node-{next(_numbers)}", Heard(room_timeout, window), Metrics()
        directory = RedisDirectory(client, layout, node=id, metrics=metrics, **options)
        directory.attach(heard)
        await directory.start()
        self._stack.push_async_callback(directory.stop)
        return Node(id, directory, heard, client, layout, metrics)

    async def nodes(self, number: int, **options: Any) -> list[Node]:
        return [await self.node(**options) for _ in range(number)]

    @asynccontextmanager
    async def hearing(self, node: Node, room: str) -> AsyncIterator[asyncio.Queue[bytes]]:
        """Everything that is said on a room's channel."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        subscriber = Subscriber(node.client, on_message=lambda channel, payload: heard.put_nowait(payload), on_subscribed=lambda channels: None)
        await subscriber.start()
        try:
            await subscriber.subscribe(node.layout.of_room(room, "room"))
            yield heard
        finally:
            await subscriber.stop()

    async def close(self) -> None:
        await self._stack.aclose()


async def until_true(check: Any) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(PATIENCE):
        while not await check():
            await settle(1)
