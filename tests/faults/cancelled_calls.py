"""Calls to Redis and to a database are given up at any moment, by the thousand: nobody ever gets the answer to another's call.

    python -m tests.faults.cancelled_calls --calls 1000000 --seed 1

Every call carries a number, and its answer must be that number. Half of a batch is cancelled after some turns of the loop, or some microseconds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, text

from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.script import Script
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.backends.sql.database import Database
from tests import arguments
from tests.servers.postgres import running_postgres
from tests.servers.redis import running_redis

AT_ONCE = 100
ECHO = Script("echo", "return ARGV[1]")
SELECT = text("SELECT CAST(:tag AS INTEGER)")

Call = Callable[[int], Awaitable[int]]
"""Asks for a number, and returns the number that the answer holds."""


@dataclass
class Count:
    """What became of the calls. `wrong`: answers to somebody else's; `failed`: neither answered nor cancelled."""

    answered: int = 0
    cancelled: int = 0
    wrong: int = 0
    failed: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.wrong or self.failed)


async def give_up(call: Call, calls: int, chance: random.Random) -> Count:
    """Make so many calls, 100 at a time, of which half are cancelled."""
    count = Count()
    for start in range(0, calls, AT_ONCE):
        tasks = {number: asyncio.ensure_future(call(number)) for number in range(start, start + min(AT_ONCE, calls - start))}
        victims = chance.sample(list(tasks.values()), len(tasks) // 2)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for victim in victims:
            if chance.random() < 0.01:
                await asyncio.sleep(0)
            victim.cancel()
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for number, result in zip(tasks, results, strict=True):
            if isinstance(result, asyncio.CancelledError):
                count.cancelled += 1
            elif isinstance(result, BaseException):
                count.failed += 1
            elif result == number:
                count.answered += 1
            else:
                count.wrong += 1
    return count


def by_redis(client: Client) -> Call:
    """Commands and scripts on the connection that all share."""

    async def call(number: int) -> int:
        if number % 2:
            return int(await client.command("ECHO", str(number), key="k"))
        return int(await client.run(ECHO, ["k"], [number]))

    return call


def by_database(database: Database) -> Call:
    """Reads on the connections of a pool, and every tenth time a transaction of the one that writes."""

    async def call(number: int) -> int:
        def select(connection: Connection) -> int:
            return int(connection.execute(SELECT, {"tag": number}).scalar_one())

        return await (database.read(select) if number % 10 else database.write(select))

    return call


async def prove(what: str, folder: Path, calls: int, seed: int) -> Count:
    """`what`: redis, sqlite or postgresql."""
    chance = random.Random(seed)
    with ExitStack() as servers:
        async with AsyncExitStack() as life:
            if what == "redis":
                client = Client(read_url(servers.enter_context(running_redis()).url))
                await client.open()
                life.push_async_callback(client.close)
                return await give_up(by_redis(client), calls, chance)
            url = f"sqlite:///{folder}/calls.db"
            if what == "postgresql":
                url = servers.enter_context(servers.enter_context(running_postgres()).database())
            return await give_up(by_database(await life.enter_async_context(Database(url))), calls, chance)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", choices=KINDS, default=KINDS, help="whose answers")
    parser.add_argument("--calls", type=arguments.count, default=100_000, help="of each")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    given = parser.parse_args()
    is_clean = True
    for what in given.of:
        began = time.monotonic()
        with TemporaryDirectory() as folder:
            count = asyncio.run(prove(what, Path(folder), given.calls, given.seed))
        print(f"{what}: {count} in {time.monotonic() - began:.1f} s", flush=True)
        is_clean = is_clean and count.is_clean
    sys.exit(0 if is_clean else 1)


KINDS = ["redis", "sqlite", "postgresql"]


if __name__ == "__main__":
    main()
