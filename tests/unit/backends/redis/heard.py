"""What a subscriber hears, for tests that wait for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.subscriber import Subscriber
from aibos_realtime.backends.redis.urls import read_url


class Heard:
    """`log`: everything in order, messages as `(channel, payload)` and confirmations as `channel`."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes] | str] = []
        self.confirmed: Counter[str] = Counter()
        self.lost = 0
        self.client: Client
        self.subscriber: Subscriber
        self._news = asyncio.Event()

    def on_message(self, channel: str, payload: bytes) -> None:
        self.log.append((channel, payload))
        self._news.set()

    def on_subscribed(self, channels: list[str]) -> None:
        assert len(set(channels)) == len(channels) > 0
        self.log.extend(channels)
        self.confirmed.update(channels)
        self._news.set()

    def on_lost(self) -> None:
        self.lost += 1
        self._news.set()

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        return [entry for entry in self.log if isinstance(entry, tuple)]

    async def until(self, is_so: Callable[[], bool], seconds: float = 40) -> None:
        """Wait until what was heard makes something true."""
        async with asyncio.timeout(seconds):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def publish(self, channel: str, payload: bytes | str) -> None:
        await self.client.command("SPUBLISH", channel, payload)

    async def hears(self, channel: str) -> None:
        """Publish until it arrives: a server may take over later than it says so."""
        count = len(self.messages)
        mark = f"mark{len(self.log)}".encode()
        async with asyncio.timeout(40):
            while (channel, mark) not in self.messages[count:]:
                await self.publish(channel, mark)
                await asyncio.sleep(0)


@asynccontextmanager
async def listening(url: str, tls_ca: Path | None = None, **options: Any) -> AsyncIterator[Heard]:
    """A client and a subscriber of a server. `options`: of the subscriber."""
    heard = Heard()
    heard.client = Client(read_url(url), tls_ca=tls_ca)
    await heard.client.open()
    callbacks = {"on_message": heard.on_message, "on_subscribed": heard.on_subscribed, "on_lost": heard.on_lost}
    heard.subscriber = Subscriber(heard.client, **(callbacks | options))
    await heard.subscriber.start()
    try:
        yield heard
    finally:
        await heard.subscriber.stop()
        await heard.client.close()
