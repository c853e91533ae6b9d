"""Hears sharded channels of Redis, on connections of its own: one, or one to each primary of a cluster that serves some of them.

What was published while a connection was away is lost; each confirmation tells from when on a channel is heard. What channels and messages mean
is for others to know.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import BrokerUnavailable
from ...logs import get_logger
from ...metrics import Metrics
from .client import CONNECT_TIMEOUT, Client
from .connection import ConnectionLost, Endpoint, ReplyError
from .link import Channel, Link
from .topology import Servers

logger = get_logger("aibos_realtime.redis")

PING_AFTER, LOST_AFTER = 2.0, 5.0
"""Seconds of silence after which a server is asked for a sign of life, and after which its connection is given up."""
SEEK_DELAY = 0.05, 0.5
"""Seconds, at least and at most, until channels that no server takes are offered again."""


class Subscriber:
    """See the module.

    `on_message(channel, payload)` is called while reading, in the order of arrival on each connection. `on_subscribed(channels)` is called for
    every confirmation, the first of a channel and each later one: after a reconnect, and when a channel was moved to another server. It comes
    before all that is heard from then on, and before the future of `subscribe` is done. `on_lost()` is called for each connection that is lost.
    An error of theirs is logged, and costs no more than that call.

    `ping_after`, `lost_after`: seconds of silence until a PING, and until the connection is given up.
    """

    def __init__(
        self,
        client: Client,
        *,
        on_message: Callable[[str, bytes], None],
        on_subscribed: Callable[[list[str]], None],
        on_lost: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
        ping_after: float = PING_AFTER,
        lost_after: float = LOST_AFTER,
    ) -> None:
        self.client = client
        self.clock = clock
        self.metrics = metrics
        self.ping_after, self.lost_after = ping_after, lost_after
        self._on_message, self._on_subscribed, self._on_lost = on_message, on_subscribed, on_lost
        self._confirmed: dict[Channel, None] = {}  # since `on_subscribed` was called last
        self._channels: dict[str, Channel] = {}
        self._unheard = 0
        self._links: dict[Endpoint, Link] = {}
        self._homeless: dict[str, Channel] = {}
        self._seeking: asyncio.Task[None] | None = None
        self._refusals: set[str] = set()  # that were logged since all was well
        self._servers: Servers | None = None

    @property
    def channels(self) -> Collection[str]:
        """What it is subscribed to, confirmed or not."""
        return self._channels.keys()

    @property
    def is_connected(self) -> bool:
        """Whether every channel is confirmed, and so all connections that are needed are up."""
        return self._servers is not None and self._unheard == 0

    async def start(self) -> None:
        """Begin; the client must be open. Connections are made when channels need them, and made again for ever: no server away raises here."""
        if self._servers is None:
            self._servers = self.client.servers
            self._servers.listeners.append(self._rearrange)

    async def stop(self) -> None:
        """Let go of all channels and connections. Idempotent. Nothing is called back any more."""
        servers, self._servers = self._servers, None
        if servers is None:
            return
        servers.listeners.remove(self._rearrange)
        channels, self._channels, self._unheard = self._channels, {}, 0
        self._homeless.clear()
        self._confirmed.clear()
        for channel in channels.values():
            for waiter in channel.waiters:
                _refuse(waiter)
        links, self._links = list(self._links.values()), {}
        tasks = [link.end() for link in links] + ([self._seeking] if self._seeking is not None else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes the sockets

    def subscribe(self, channel: str) -> asyncio.Future[None]:
        """Hear a channel. Done when it is confirmed; at once where it is already. Cancelled by `unsubscribe`, failed by `stop`.

        What is asked for in one turn of the loop is sent together. To cancel the future ends nothing but the waiting.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._servers is None:
            _refuse(waiter)
            return waiter
        known = self._channels.get(channel)
        if known is None:
            known = self._channels[channel] = Channel(channel, channel.encode())
            self._unheard += 1
            self._place(known)
        if known.is_heard:
            waiter.set_result(None)
        else:
            known.waiters.append(waiter)
        return waiter

    def unsubscribe(self, channel: str) -> None:
        """Hear it no more, from now on. One that is not subscribed is passed over."""
        known = self._channels.pop(channel, None)
        if known is None:
            return
        self._unheard -= not known.is_heard
        self._confirmed.pop(known, None)
        self._homeless.pop(channel, None)
        if known.link is not None:
            known.link.remove(known)
        for waiter in known.waiters:
            waiter.cancel()

    def reconnect(self) -> None:
        """Drop all connections and come again: for whoever has found it deaf."""
        for link in self._links.values():
            link.drop()

    def hear(self, channel: Channel) -> None:
        """A server has confirmed a channel."""
        if not self._confirmed:
            asyncio.get_running_loop().call_soon(self._tell_confirmed)
        self._confirmed[channel] = None

    def unhear(self, channels: Iterable[Channel]) -> None:
        """These are not heard at present."""
        for channel in channels:
            self._confirmed.pop(channel, None)
            if channel.is_heard:
                channel.is_heard = False
                self._unheard += 1

    def receive(self, channel: str, payload: bytes) -> None:
        """A message has come."""
        if self._confirmed:
            self._tell_confirmed()
        self._tell(self._on_message, channel, payload)

    def tell_lost(self) -> None:
        """A connection was lost."""
        self._tell(self._on_lost)

    def misplace(self, channels: list[Channel], endpoint: Endpoint, error: ReplyError | None = None) -> None:
        """A server has let go of these, or does not take them; its error says perhaps where they are, and so does the next one."""
        if self._servers is None:
            return
        self.unhear(channels)
        if error is None or self._servers.move(error, endpoint, CONNECT_TIMEOUT) is not None:
            place = self._place
        else:
            place = self._seek
            if error.code not in self._refusals:
                self._refusals.add(error.code)
                logger.warning("Redis at %s refuses to let channels be heard (%s); they are offered again", endpoint, error.code)
        for channel in channels:
            place(channel)

    def forget(self, link: Link) -> None:
        """A link that nobody needs has ended."""
        if self._links.get(link.endpoint) is link:
            del self._links[link.endpoint]

    def _tell_confirmed(self) -> None:
        confirmed, self._confirmed = self._confirmed, {}
        for channel in confirmed:
            self._unheard -= not channel.is_heard
            channel.is_heard = True
        if not self._unheard:
            self._refusals.clear()
        if confirmed:
            self._tell(self._on_subscribed, [channel.name for channel in confirmed])
        for channel in confirmed:
            waiters, channel.waiters = channel.waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            logger.exception("An error in the code that is told what Redis says")

    def _place(self, channel: Channel) -> None:
        assert self._servers is not None
        endpoint = self._servers.find(channel.key)
        if endpoint is None:
            self._seek(channel)
            return
        link = self._links.get(endpoint)
        if link is None:
            link = self._links[endpoint] = Link(self, self._servers, endpoint)
        link.add(channel)

    def _seek(self, channel: Channel) -> None:
        channel.link = None
        self._homeless[channel.name] = channel
        if self._seeking is None or self._seeking.done():
            self._seeking = asyncio.create_task(self._seek_all())

    async def _seek_all(self) -> None:
        while self._homeless and self._servers is not None:
            await self.clock.sleep(random.uniform(*SEEK_DELAY))
            with suppress(ConnectionLost, ReplyError):
                await self._servers.refresh(CONNECT_TIMEOUT)
            homeless, self._homeless = self._homeless, {}
            for channel in homeless.values():
                self._place(channel)

    def _rearrange(self) -> None:
        """Slots have other servers: each channel goes to where it is served now."""
        assert self._servers is not None
        for channel in self._channels.values():
            link = channel.link
            if link is not None and link.endpoint != self._servers.find(channel.key):
                link.remove(channel)
                self.unhear([channel])
                self._place(channel)


def _refuse(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(BrokerUnavailable("The connection to Redis is closed."))
        waiter.exception()  # perhaps nobody waits
