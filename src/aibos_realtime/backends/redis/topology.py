"""Where the primaries are: one server, the one that sentinels name, or those of a cluster, by slot. It keeps no connection open.

What is known may be old at any time: who finds a server gone, or is sent elsewhere, asks again (`refresh`).
"""

from __future__ import annotations

import asyncio
import random
from binascii import crc_hqx
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from ...clock import Clock
from .connection import Connection, ConnectionLost, Endpoint, Login, Push, ReplyError
from .urls import Address

T = TypeVar("T")
Rows = list[tuple[int, int, Endpoint]]
"""First slot, last slot, and who serves them."""

SLOTS = 16384
ASKED = 4
"""How many servers of a cluster are asked for its slots at the same time; the first answer counts."""
PAUSE = 1.0
"""Seconds, at least, between two looks at the slots that answers like MOVED cause."""


@lru_cache(8192)
def slot_of(key: str | bytes) -> int:
    """The slot of a key or channel, by its hash tag where it has one (Redis cluster specification, "Hash tags")."""
    name = key.encode() if isinstance(key, str) else key
    start = name.find(b"{")
    if start >= 0 and (end := name.find(b"}", start + 1)) > start + 1:
        name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


class ServiceUnknown(ConnectionLost):
    """The sentinels answer, and know no primary by this name."""


class Flights:
    """Work that several ask for at the same time is done once. Who is cancelled waits no more; the work goes on."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    def start(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task that does the work of this name."""
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(work())
            task.add_done_callback(lambda task: self._end(name, task))
        return task

    async def join(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work of this name. Raises `ConnectionLost` where `close` ends it."""
        task = self.start(name, work)
        await asyncio.wait([task])
        if task.cancelled():
            raise ConnectionLost("closed")
        return task.result()

    async def close(self) -> None:
        """Cancel what goes on, and wait for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, name: Hashable, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled():
            task.exception()  # those who wait have it; perhaps nobody does


class Dialer:
    """Makes connections, each with the same introduction. `timeout`: seconds for everything until it is ready."""

    def __init__(self, login: Login, clock: Clock) -> None:
        self.login = login
        self.clock = clock

    async def dial(self, endpoint: Endpoint, timeout: float, *, on_push: Push | None = None, on_lost: Callable[[], None] | None = None) -> Connection:
        """A connection that is ready. Raises `ConnectionLost` and `ReplyError`. Cancelling leaves nothing open."""
        connection = Connection(on_push=on_push, on_lost=on_lost, clock=self.clock)
        await connection.open(endpoint, self.login, timeout)
        return connection

    async def ask(self, endpoint: Endpoint, timeout: float, *words: Any) -> Any:
        """The reply to one command, on a connection of its own."""
        connection = await self.dial(endpoint, timeout)
        try:
            return await connection.call(words, timeout)
        finally:
            connection.close()


class Servers:
    """One server: nothing to find out. The base of the others."""

    is_cluster = False

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self.address = address
        self.dialer = dialer
        self.listeners: list[Callable[[], None]] = []
        """Called when another primary was found to serve a key than before."""
        self._flights = Flights()
        self._known: list[Endpoint] = [Endpoint(address.host, address.port, address.path)] if address.kind == "single" else []

    def find(self, key: str | bytes | None) -> Endpoint | None:
        """Who serves a key (None: any server will do), as far as is known."""
        return self._known[0] if self._known else None

    def primaries(self) -> list[Endpoint]:
        """All primaries that are known."""
        return list(self._known)

    async def dial(self, endpoint: Endpoint, timeout: float, *, on_push: Push | None = None, on_lost: Callable[[], None] | None = None) -> Connection:
        """A connection to a primary. Raises `ConnectionLost`, also where the server is none any more, and `ReplyError`."""
        return await self.dialer.dial(endpoint, timeout, on_push=on_push, on_lost=on_lost)

    async def refresh(self, timeout: float) -> None:
        """Find out where the primaries are. What was known stays known where nobody answers. Raises as `dial` does if nothing is known then."""
        try:
            await self._flights.join("refresh", lambda: self._look(timeout))
        except (ConnectionLost, ReplyError):
            if not self._known:
                raise

    async def _look(self, timeout: float) -> None:
        pass

    def move(self, error: ReplyError, asked: Endpoint, timeout: float) -> Endpoint | None:
        """Where an error that a server gave sends the call, which it has not begun: None for nowhere."""
        return None

    async def close(self) -> None:
        await self._flights.close()

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()


class Sentinels(Servers):
    """The primary of a service, which the sentinels name."""

    def __init__(self, address: Address, dialer: Dialer, password: str | None) -> None:
        super().__init__(address, dialer)
        self._sentinels = [Endpoint(host, port) for host, port in address.nodes]
        self._sentinel_dialer = Dialer(replace(dialer.login, username=None, password=password, db=0), dialer.clock)

    async def dial(self, endpoint: Endpoint, timeout: float, *, on_push: Push | None = None, on_lost: Callable[[], None] | None = None) -> Connection:
        connection = await super().dial(endpoint, timeout, on_push=on_push, on_lost=on_lost)
        if connection.greeting.get(b"role", b"master") != b"master":
            connection.close()
            raise ConnectionLost("the server is a replica")
        return connection

    async def _look(self, timeout: float) -> None:
        found = await _first(self._ask(sentinel, timeout) for sentinel in self._sentinels)
        before, self._known = self._known, [found]
        if before and before != self._known:
            self._tell()

    async def _ask(self, sentinel: Endpoint, timeout: float) -> Endpoint:
        answer = await self._sentinel_dialer.ask(sentinel, timeout, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service)
        if answer is None:
            raise ServiceUnknown(self.address.service)
        return Endpoint(answer[0].decode(), int(answer[1]))


class Cluster(Servers):
    """The primaries of a cluster, each with its slots."""

    is_cluster = True

    def __init__(self, address: Address, dialer: Dialer) -> None:
        super().__init__(address, dialer)
        self._seeds = [Endpoint(host, port) for host, port in address.nodes]
        self._slots: list[Endpoint | None] = [None] * SLOTS
        self._looked_at = -PAUSE
        self._has_moved = False

    def find(self, key: str | bytes | None) -> Endpoint | None:
        if key is None:
            return random.choice(self._known) if self._known else None
        return self._slots[slot_of(key)]

    def move(self, error: ReplyError, asked: Endpoint, timeout: float) -> Endpoint | None:
        if error.code not in ("MOVED", "ASK"):
            return None
        _, number, place = str(error).split(" ")[:3]
        host, _, port = place.rpartition(":")
        target = Endpoint(host.strip("[]") or asked.host, int(port))
        if error.code == "MOVED":
            self._slots[int(number)], self._has_moved = target, True
            self._flights.start("look soon", lambda: self._look_soon(timeout))
        return target

    async def _look_soon(self, timeout: float) -> None:
        """Others may have moved too; but a thousand such answers are no reason for a thousand questions."""
        while self._has_moved:
            await self.dialer.clock.sleep(self._looked_at + PAUSE - self.dialer.clock.monotonic())
            with suppress(ConnectionLost, ReplyError):
                await self._flights.join("refresh", lambda: self._look(timeout))

    async def _look(self, timeout: float) -> None:
        self._looked_at = self.dialer.clock.monotonic()
        has_moved, self._has_moved = self._has_moved, False
        everyone = list(dict.fromkeys([*self._known, *self._seeds]))
        asked = random.sample(everyone, min(ASKED, len(everyone)))
        others = [node for node in everyone if node not in asked]
        try:
            rows = await self._ask_any(asked, others, timeout)
        except BaseException:
            self._has_moved |= has_moved
            raise
        before, self._slots = self._slots, [None] * SLOTS
        for first, last, node in rows:
            self._slots[first : last + 1] = [node] * (last + 1 - first)
        self._known = list(dict.fromkeys(node for _, _, node in rows))
        if has_moved or self._slots != before:
            self._tell()

    async def _ask_any(self, some: list[Endpoint], others: list[Endpoint], timeout: float) -> Rows:
        try:
            return await _first(self._ask(node, timeout) for node in some)
        except (ConnectionLost, ReplyError):
            if not others:
                raise
            return await _first(self._ask(node, timeout) for node in others)

    async def _ask(self, node: Endpoint, timeout: float) -> Rows:
        found: Rows = []
        for first, last, (host, port, *_), *_ in await self.dialer.ask(node, timeout, "CLUSTER", "SLOTS"):
            name = (host or b"").decode()
            found.append((first, last, Endpoint(name if name not in ("", "?") else node.host, port)))
        if not found:
            raise ConnectionLost("the server knows no slots")
        return found


def make_servers(address: Address, dialer: Dialer, sentinel_password: str | None) -> Servers:
    """What finds the primaries of an address."""
    if address.kind == "sentinel":
        return Sentinels(address, dialer, sentinel_password)
    return Cluster(address, dialer) if address.kind == "cluster" else Servers(address, dialer)


async def _first(questions: Iterable[Coroutine[Any, Any, T]]) -> T:
    """The first answer to questions that are asked at the same time; where there is none, the error that says most."""
    tasks = [asyncio.create_task(question) for question in questions]
    errors: list[ConnectionLost | ReplyError] = []
    try:
        for done in asyncio.as_completed(tasks):
            try:
                return await done
            except (ConnectionLost, ReplyError) as error:
                errors.append(error)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise min(errors, key=lambda error: type(error) is ConnectionLost)
