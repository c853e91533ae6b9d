"""The line between clients and server fails under load, or the server stands still: everybody comes back by himself, and misses nothing.

python -m tests.faults.link_faults --seconds 5 --rounds 4 --seed 1
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.checker import Verdict, check
from tests.faults.clients import pause
from tests.faults.command import Arguments, run_command
from tests.faults.load import Load
from tests.faults.processes import Server, Zygote
from tests.faults.proxy import Blackhole, CutAfter, Delay, Mode, Pass, Proxy, Rate, Reset
from tests.faults.rows import read_rows

SIGNS_OF_LIFE = {"interval": 0.2, "timeout": 0.4}
"""Of clients and server, in seconds: so that a line that is silent is noticed within one."""

CLIENTS: dict[str, Any] = {"heartbeat": SIGNS_OF_LIFE, "connect_timeout": 1.0}


async def stand_still(server: Server, proxy: Proxy, seconds: float, chance: random.Random) -> None:
    """SIGSTOP: the kernel goes on acknowledging packets."""
    server.process.pause()
    await pause(seconds)
    server.process.resume()


def with_mode(make: Callable[[random.Random], Mode]) -> Fault:
    """The proxy in this mode for the time."""

    async def fault(server: Server, proxy: Proxy, seconds: float, chance: random.Random) -> None:
        proxy.mode = make(chance)
        await pause(seconds)
        proxy.mode = Pass()

    return fault


async def reset_often(server: Server, proxy: Proxy, seconds: float, chance: random.Random) -> None:
    """Every connection ends by RST, again and again."""
    for _ in range(10):
        proxy.reset()
        await pause(chance.uniform(0, seconds / 5))


Fault = Callable[[Server, Proxy, float, random.Random], Awaitable[None]]

FAULTS: dict[str, Fault] = {
    "pause": stand_still,
    "reset": reset_often,
    "refuse": with_mode(lambda chance: Reset()),
    "blackhole": with_mode(lambda chance: Blackhole()),
    "half-open up": with_mode(lambda chance: Blackhole("up")),
    "half-open down": with_mode(lambda chance: Blackhole("down")),
    "cut": with_mode(lambda chance: CutAfter(chance.randrange(500, 5_000))),
    "delay": with_mode(lambda chance: Delay(0.1, jitter=0.05, seed=chance.randrange(1000))),
    "rate": with_mode(lambda chance: Rate(20_000)),
}
"""What goes wrong, by name."""


async def prove(
    zygote: Zygote, folder: Path, database: str, *, faults: list[str], seconds: float, seed: int, progress: Callable[[str], None] = print
) -> Verdict:
    """These faults one after the other, each for `seconds`, the load going on all the time."""
    chance = random.Random(seed)
    async with Server(zygote, database, heartbeat=SIGNS_OF_LIFE) as server, Proxy(("127.0.0.1", server.port)) as proxy:
        async with Load(folder, proxy.url, direct=server.url, seed=seed, **CLIENTS) as load:
            for number, name in enumerate(faults, 1):
                await load.until_flowing(2)
                await FAULTS[name](server, proxy, seconds, chance)
                await load.until_flowing()
                progress(f"fault {number} of {len(faults)}, {name}: acknowledged {load.acknowledged}")
            await load.settle()
            log = await load.read_log()
        await server.stop()
    return check(load.history(log, await read_rows(database)))


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("--seconds", type=float, default=5.0, help="of each fault")
    arguments.add("--rounds", type=int, default=4, help="how often each fault comes, in an order that chance decides")
    arguments.add("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="which")

    async def proof(zygote: Zygote, folder: Path, database: str, given: Any) -> Verdict:
        faults = given.faults * given.rounds
        random.Random(given.seed).shuffle(faults)
        return await prove(zygote, folder, database, faults=faults, seconds=given.seconds, seed=given.seed)

    run_command(arguments, proof)


if __name__ == "__main__":
    main()
