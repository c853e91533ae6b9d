"""Clients under test, and a record of what their callbacks were told."""

from __future__ import annotations

import asyncio
from typing import Any

from aibos_realtime.client.client import RealtimeClient

NOTICES = ("connect", "disconnect", "reconnect", "error", "resync", "room-closed", "token-expiring")


def make_client(url: Any, **options: Any) -> RealtimeClient:
    """A client that does not wait between attempts, unless its `random` or `clock` says otherwise."""
    return RealtimeClient(url, **{"token": "token_of_user_123", "random": lambda: 0.0, **options})


class Record:
    """What the callbacks of a client were told, in order: `(name, first argument or None)`."""

    def __init__(self, client: RealtimeClient, *events: str) -> None:
        self.told: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()
        for name in (*NOTICES, *events):
            client.on(name, lambda *given, name=name: self._add(name, given[0] if given else None))

    def _add(self, name: str, data: Any) -> None:
        self.told.append((name, data))
        self._changed.set()

    def of(self, name: str) -> list[Any]:
        """What was told under one name."""
        return [data for told, data in self.told if told == name]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    async def until(self, name: str, count: int = 1) -> Any:
        """Wait until so many of this name were told; returned is the last of them."""
        async with asyncio.timeout(10):
            while len(self.of(name)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(name)[count - 1]
