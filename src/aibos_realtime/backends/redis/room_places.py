"""The number of rooms of a Redis Cluster, whose rooms are on many servers: each has a place in one hash, taken before the room is made.

A place may be left over, where a node died in between: those are looked for when all seem to be taken. There are never fewer places than rooms.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ...clock import Clock
from ...errors import BrokerUnavailable, RoomLimitExceeded
from .client import Client
from .layout import Layout
from .room_acts import is_room
from .script import load_script

SEARCH_EVERY = 5.0
IN_USE = 10_000
"""Milliseconds for which a place may have been taken for a room that is not there yet."""
PAGE = 200

_RESERVE, _RELEASE, _DESCRIBE = (load_script(f"rooms_{name}") for name in ("reserve", "release", "describe"))


class RoomPlaces:
    """Raises `BrokerUnavailable` where Redis cannot be reached."""

    def __init__(self, client: Client, layout: Layout, *, clock: Clock) -> None:
        self._client = client
        self._layout = layout
        self._clock = clock
        self._key = layout.of_nodes("rooms")
        self._searched_at = -SEARCH_EVERY

    async def reserve(self, room_id: str, limit: int | None) -> str:
        """The mark of a place for a room. Raises `RoomLimitExceeded`."""
        mark = await self._take([room_id], limit)
        if not mark and self._clock.monotonic() - self._searched_at >= SEARCH_EVERY:
            self._searched_at = self._clock.monotonic()
            if await self._give_back_leftovers():
                mark = await self._take([room_id], limit)
        if not mark:
            raise RoomLimitExceeded(f"All {limit} rooms are taken.")
        return mark

    async def _take(self, rooms: Sequence[str], limit: int | None) -> str:
        mark: bytes = await self._client.run(_RESERVE, [self._key], ["" if limit is None else limit, secrets.token_urlsafe(6), *rooms])
        return mark.decode("latin-1")

    async def release(self, room_id: str, mark: str) -> None:
        """The room is gone. Where that cannot be told the place is left over."""
        try:
            await self._client.run(_RELEASE, [self._key], [room_id, mark])
        except BrokerUnavailable:
            pass

    async def take_again(self, rooms: Sequence[str]) -> None:
        """Rooms that are there have their places, even if those were lost."""
        try:
            for start in range(0, len(rooms), PAGE):
                await self._take(rooms[start : start + PAGE], None)
        except BrokerUnavailable:
            pass

    async def _give_back_leftovers(self) -> int:
        seconds, micros = await self._client.command("TIME", key=self._key)
        before = int(seconds) * 1000 + int(micros) // 1000 - IN_USE
        count, cursor = 0, b"0"
        while True:
            cursor, flat = await self._client.command("HSCAN", self._key, cursor, "COUNT", PAGE)
            if isinstance(flat, dict):
                flat = [part for pair in flat.items() for part in pair]
            old = [(name, mark) for name, mark in zip(flat[::2], flat[1::2], strict=True) if _taken_at(mark) < before]
            for name, mark in old:
                if not await self._is_there(name):
                    count += await self._client.run(_RELEASE, [self._key], [name, mark])
            if cursor == b"0":
                return count

    async def _is_there(self, name: bytes) -> bool:
        room_id = name.decode("latin-1")
        if not is_room(room_id):
            return False
        found = await self._client.run(_DESCRIBE, [self._layout.of_room(room_id, part) for part in ("meta", "users", "sockets")], [""])
        return bool(found[0])


def _taken_at(mark: bytes) -> int:
    ms = mark.partition(b" ")[0]
    return int(ms) if ms.isdigit() and len(ms) <= 16 else 0
