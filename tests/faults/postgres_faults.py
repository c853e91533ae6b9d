"""PostgreSQL as the store is killed, stopped, cut off and cut short under load: nothing is lost, nothing doubled, and publishers hear of it in time.

python -m tests.faults.postgres_faults --seconds 10 --rounds 3 --seed 1
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults.checker import Verdict, check
from tests.faults.clients import EVENT, pause
from tests.faults.command import Arguments, run_command
from tests.faults.load import Load
from tests.faults.processes import Server, Zygote
from tests.faults.proxy import Blackhole, CutBeforeReply, Pass, Proxy
from tests.faults.rows import read_rows
from tests.servers.postgres import PostgresServer, running_postgres

GRACE = 2.0
"""Seconds beyond the statement time-out within which a publisher has heard that the store does not answer."""

STARTER = ThreadPoolExecutor(1, thread_name_prefix="postgres")
"""PostgreSQL ends with the *thread* that started it, so this one has to outlive a test."""


class Bench:
    """What a fault may touch: PostgreSQL, and the line between it and the server."""

    def __init__(self, postgres: PostgresServer, proxy: Proxy, seconds: float, chance: random.Random) -> None:
        self.postgres = postgres
        self.proxy = proxy
        self.seconds = seconds
        self.chance = chance

    async def start(self) -> None:
        """Start it; after a kill it refuses while its last process is still on the way out."""
        async with asyncio.timeout(20):
            while True:
                try:
                    return await asyncio.get_running_loop().run_in_executor(STARTER, self.postgres.start)
                except RuntimeError as error:
                    if "still in use" not in str(error):
                        raise
                await pause(0.05)

    async def stop(self, how: signal.Signals) -> None:
        await asyncio.get_running_loop().run_in_executor(STARTER, self.postgres.stop, how)


async def kill(bench: Bench) -> None:
    """SIGKILL for every process of PostgreSQL, and a start at once: it recovers from its write-ahead log."""
    await bench.stop(signal.SIGKILL)
    await bench.start()


async def stop(bench: Bench) -> None:
    """Stopped in an orderly way, and away for a while."""
    await bench.stop(signal.SIGINT)
    await pause(bench.seconds)
    await bench.start()


async def blackhole(bench: Bench) -> None:
    """Nothing gets through; nobody is told."""
    bench.proxy.mode = Blackhole()
    await pause(bench.seconds)
    bench.proxy.mode = Pass()


async def half_open(bench: Bench) -> None:
    """Statements get there and are carried out; answers do not come back."""
    bench.proxy.mode = Blackhole("down")
    await pause(bench.seconds)
    bench.proxy.mode = Pass()


async def cut_commits(bench: Bench) -> None:
    """The answer to a batch never comes: its statement is its own transaction, so it is committed, and the server cannot know."""
    before = bench.proxy.cuts
    bench.proxy.mode = CutBeforeReply(to=b"\0\0\0\x04" + EVENT.encode(), times=3)  # its name as a value of an array
    await bench.proxy.until_cut(before + 3)
    bench.proxy.mode = Pass()


async def cut_replies(bench: Bench) -> None:
    """Some answer on each of three connections never comes."""
    for _ in range(3):
        before = bench.proxy.cuts
        bench.proxy.mode = CutBeforeReply(bench.chance.randrange(1, 20))
        await bench.proxy.until_cut(before + 1)
    bench.proxy.mode = Pass()


async def reset(bench: Bench) -> None:
    """Every connection to PostgreSQL ends by RST, again and again."""
    for _ in range(5):
        bench.proxy.reset()
        await pause(bench.chance.uniform(0, 0.3))


FAULTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "kill": kill,
    "stop": stop,
    "blackhole": blackhole,
    "half-open": half_open,
    "cut commits": cut_commits,
    "cut replies": cut_replies,
    "reset": reset,
}
"""What goes wrong, by name."""


def socket_of(postgres: PostgresServer) -> str:
    """The path of its socket."""
    return f"{postgres.folder}/.s.PGSQL.5432"


def through(proxy: Proxy, url: str) -> str:
    """The URL of the same database, by way of a proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(url).path}"


async def prove(
    zygote: Zygote, folder: Path, postgres: PostgresServer, *, faults: list[str], seconds: float, statement_timeout: float, seed: int,
    progress: Callable[[str], None] = print,
) -> Verdict:  # fmt: skip
    """These faults one after the other, the load going on all the time. Counted as `slowest refusal`: milliseconds until a publisher heard."""
    chance = random.Random(seed)
    with postgres.database() as url:
        async with Proxy(socket_of(postgres)) as proxy:
            database = through(proxy, url)
            options = {"statement_timeout": statement_timeout}
            async with Server(zygote, database, database_options=options) as server, Load(folder, server.url, seed=seed) as load:
                bench = Bench(postgres, proxy, seconds, chance)
                for number, name in enumerate(faults, 1):
                    await load.until_flowing(2)
                    async with asyncio.timeout(seconds + 60):
                        await FAULTS[name](bench)
                    await load.until_flowing()
                    progress(f"fault {number} of {len(faults)}, {name}: acknowledged {load.acknowledged}, refused {load.errors['unavailable']}")
                await load.settle()
                log = await load.read_log()
                await server.stop()
        store = await read_rows(url)
    verdict = check(load.history(log, store))
    verdict.counts["refused"] = load.errors["unavailable"]
    verdict.counts["slowest refusal (ms)"] = round(1000 * max((wait for one in load.publishers for wait in one.waits), default=0.0))
    return verdict


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("--seconds", type=float, default=10.0, help="for which PostgreSQL is away or cut off")
    arguments.add("--rounds", type=int, default=3, help="how often each fault comes, in an order that chance decides")
    arguments.add("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="which")

    async def proof(zygote: Zygote, folder: Path, database: str, given: Any) -> Verdict:
        faults = given.faults * given.rounds
        random.Random(given.seed).shuffle(faults)
        running, loop = running_postgres(), asyncio.get_running_loop()
        postgres = await loop.run_in_executor(STARTER, running.__enter__)
        try:
            return await prove(zygote, folder, postgres, faults=faults, seconds=given.seconds, statement_timeout=5.0, seed=given.seed)
        finally:
            await loop.run_in_executor(STARTER, running.__exit__, None, None, None)

    run_command(arguments, proof)


if __name__ == "__main__":
    main()
