"""Erasing events from the shared log, as data protection asks: out of the rooms' newest events, once the store has what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ...clock import Clock
from ...errors import StoreUnavailable
from ...protocol.messages import Position
from ..base import LoggedEvent
from . import records
from .log import RedisLog

LOOK_EVERY = 0.05
PATIENCE = 5.0
PAGE = 100
ANYWHERE = Position("-", 2**53)
"""In place of where the room ends, which does not matter here."""


class RedisErasure:
    """See `storage.persistence.Log`. Of a room's log, what is erased leaves a hole: whoever recovers across it reads on in the store."""

    def __init__(self, log: RedisLog, *, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    async def forget(self, rooms: Sequence[str]) -> None:
        """Where rooms end is in Redis, and forgotten there after a time of its own."""

    async def settle(self) -> None:
        """Wait until the store has all that was published so far. Raises `StoreUnavailable` after 5 seconds, and `BrokerUnavailable`."""
        until = self._clock.monotonic() + PATIENCE
        command = self._log.client.command
        lines = [self._log.layout.of_shard(shard, "intake") for shard in range(self._log.shards)]
        newest = await asyncio.gather(*(command("XREVRANGE", line, "+", "-", "COUNT", 1) for line in lines))
        for line, entries in zip(lines, newest, strict=True):
            while entries and await command("XRANGE", line, "-", entries[0][0], "COUNT", 1):
                if self._clock.monotonic() > until:
                    raise StoreUnavailable("The database does not have yet what was published: try again later.")
                await self._clock.sleep(LOOK_EVERY)

    async def erase(self, is_meant: Callable[[LoggedEvent], bool]) -> None:
        """Take some events out of the logs of all rooms. Raises `BrokerUnavailable`; repeating is safe."""
        for shard in range(self._log.shards):
            prefix = self._log.layout.of_shard(shard, "log:")
            for key in await self._log.client.scan(f"{prefix}*"):
                await self._erase_room(key, key.decode(errors="replace").removeprefix(prefix), is_meant)
                await asyncio.sleep(0)

    async def _erase_room(self, key: bytes, room: str, is_meant: Callable[[LoggedEvent], bool]) -> None:
        start = "-"
        while page := await self._log.client.command("XRANGE", key, start, "+", "COUNT", PAGE):
            events = [(id, records.decode_entry(fields, room, ANYWHERE, id)) for id, fields in page]
            if gone := [id for id, event in events if event is not None and is_meant(event)]:
                await self._log.client.command("XDEL", key, *gone)
            start = f"({page[-1][0].decode()}"
