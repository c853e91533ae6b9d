"""The connection to one server that a subscriber hears channels on, made again and again; and what is known of each channel.

Which channels are wanted, and which server has them, is the subscriber's business.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ...clock import Timer
from ...logs import get_logger
from ..supervision import keep_going
from .client import CONNECT_TIMEOUT, unavailable
from .connection import Connection, ConnectionLost, Endpoint, ReplyError
from .topology import Servers, slot_of

if TYPE_CHECKING:
    from .subscriber import Subscriber

logger = get_logger("aibos_realtime.redis")

FIRST_DELAY, LAST_DELAY = 0.05, 1.0
"""Seconds between attempts to connect: up to twice the first, then up to the double each time, and at last up to the last."""
BATCH = 500
"""Channels in one command, at most."""


class Channel:
    """One channel that is wanted. `is_heard`: the server of its link has confirmed it. `link`: None while no server is known that serves it."""

    __slots__ = ("is_heard", "key", "link", "name", "waiters")

    def __init__(self, name: str, key: bytes) -> None:
        self.name = name
        self.key = key
        self.link: Link | None = None
        self.is_heard = False
        self.waiters: list[asyncio.Future[None]] = []


class Link:
    """The connection to one server, and the channels that are heard there. It is made again until `end`, or until it is lost without a channel."""

    def __init__(self, owner: Subscriber, servers: Servers, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._owner = owner
        self._servers = servers
        self._clock = owner.clock
        self._connection: Connection | None = None
        self._channels: dict[bytes, Channel] = {}
        self._joining: list[Channel] = []
        self._parting: list[bytes] = []
        self._parted: Counter[bytes] = Counter()
        """Of which an answer to an unsubscribe is still to come."""
        self._is_planned = False
        self._has_confirmed = False
        self._watch: Timer | None = None
        self._task = asyncio.create_task(keep_going(self._run, "link to Redis", clock=self._clock, metrics=owner.metrics), name="redis-link")

    def add(self, channel: Channel) -> None:
        channel.link = self
        self._channels[channel.key] = channel
        if self._connection is not None:
            self._joining.append(channel)
            self._plan()

    def remove(self, channel: Channel) -> None:
        channel.link = None
        del self._channels[channel.key]
        if self._connection is not None:
            self._parting.append(channel.key)
            self._plan()

    def drop(self) -> None:
        """Lose the connection."""
        if self._connection is not None:
            self._connection.close()

    def end(self) -> asyncio.Task[None]:
        """Lose it for ever: the task that ends."""
        self._channels.clear()
        self.drop()
        return self._task

    async def _run(self) -> None:
        failures = 0
        while True:
            was_heard = await self._listen(is_first=not failures)
            if not self._channels:
                self._owner.forget(self)
                return
            failures = 0 if was_heard else failures + 1
            if failures:
                await self._clock.sleep(random.uniform(0, min(LAST_DELAY, FIRST_DELAY * 2 ** min(failures, 10))))
            with suppress(ConnectionLost, ReplyError):
                await self._servers.refresh(CONNECT_TIMEOUT)  # which takes the channels to another link, where they have another server now

    async def _listen(self, is_first: bool) -> bool:
        """Connect, and hear until the connection is lost. Whether a channel was confirmed on it. `is_first`: of the attempts that fail."""
        lost = asyncio.Event()
        try:
            connection = await self._servers.dial(self.endpoint, CONNECT_TIMEOUT, on_push=self._take, on_lost=lost.set)
        except (ConnectionLost, ReplyError) as error:
            if is_first:
                logger.warning("Channels are not heard from Redis at %s: %s", self.endpoint, unavailable(error))
            return False
        self._connection, self._has_confirmed = connection, False
        self._parting, self._joining = [], list(self._channels.values())
        self._parted.clear()
        self._plan()
        self._watch = self._clock.call_later(self._owner.ping_after, self._check_silence)
        try:
            await lost.wait()
        finally:
            self._watch.cancel()
            connection.close()
            self._connection = None
            self._owner.unhear(self._channels.values())
        self._owner.tell_lost()
        return self._has_confirmed

    def _plan(self) -> None:
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Ask for all that changed in this turn of the loop."""
        self._is_planned = False
        connection = self._connection
        if connection is None:
            return
        parting, self._parting = self._parting, []
        joining, self._joining = self._joining, []
        for keys in self._in_batches(parting):
            self._parted.update(keys)
            done = connection.call_pushed(("SUNSUBSCRIBE", *keys), self._owner.lost_after)
            done.add_done_callback(partial(self._has_parted, keys))
        wanted = {channel.key: channel for channel in joining if self._channels.get(channel.key) is channel}
        for keys in self._in_batches(wanted):
            done = connection.call_pushed(("SSUBSCRIBE", *keys), self._owner.lost_after)
            done.add_done_callback(partial(self._has_joined, connection, [wanted[key] for key in keys]))

    def _in_batches(self, keys: Iterable[bytes]) -> Iterator[list[bytes]]:
        """In a cluster one command may name channels of one slot only."""
        groups: dict[int, list[bytes]] = {}
        for key in keys:
            groups.setdefault(slot_of(key) if self._servers.is_cluster else 0, []).append(key)
        for group in groups.values():
            for start in range(0, len(group), BATCH):
                yield group[start : start + BATCH]

    def _has_joined(self, connection: Connection, channels: list[Channel], done: asyncio.Future[None]) -> None:
        error = done.exception()
        if isinstance(error, ReplyError):
            refused = [channel for channel in channels if self._channels.get(channel.key) is channel]
            for channel in refused:
                del self._channels[channel.key]
            self._owner.misplace(refused, self.endpoint, error)
        elif error is not None:
            connection.close()

    def _has_parted(self, keys: list[bytes], done: asyncio.Future[None]) -> None:
        if done.exception() is not None:
            self._parted -= Counter(keys)

    def _take(self, push: list[Any]) -> None:
        kind, key = push[0], push[1]
        if kind == b"smessage":
            channel = self._channels.get(key)
            if channel is not None:
                self._owner.receive(channel.name, push[2])
        elif kind == b"ssubscribe":
            self._has_confirmed = True
            channel = self._channels.get(key)
            if channel is not None and not self._parted[key]:  # else it is of an earlier time, and ends at once
                self._owner.hear(channel)
        elif kind == b"sunsubscribe":
            if self._parted[key]:
                self._parted[key] -= 1
            elif (channel := self._channels.pop(key, None)) is not None:  # its slot has moved to another server
                self._owner.misplace([channel], self.endpoint)

    def _check_silence(self) -> None:
        connection, owner = self._connection, self._owner
        if connection is None:
            return
        silence = self._clock.monotonic() - connection.heard_at
        if silence >= owner.ping_after:
            answer = connection.call(("PING",), owner.lost_after - owner.ping_after)
            answer.add_done_callback(partial(self._has_answered, connection))
            silence = 0.0
        self._watch = self._clock.call_later(owner.ping_after - silence, self._check_silence)

    def _has_answered(self, connection: Connection, answer: asyncio.Future[Any]) -> None:
        if isinstance(answer.exception(), ConnectionLost):
            connection.close()
