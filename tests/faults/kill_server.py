"""The server is killed with SIGKILL at chance moments under load and started again on the same store: is anything lost, doubled or out of order?

One kill in three comes at any time, one the moment a publisher hears of an acknowledgement, one the moment a subscriber hears of an event.

python -m tests.faults.kill_server --kills 200 --seed 1
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

from tests.faults.checker import Verdict, check
from tests.faults.clients import Moment, pause
from tests.faults.command import Arguments, run_command
from tests.faults.load import Load
from tests.faults.processes import Server, Zygote
from tests.faults.rows import read_rows

MOMENTS: list[Moment | None] = [None, "acknowledgement", "delivery"]


async def prove(zygote: Zygote, folder: Path, database: str, *, kills: int, seed: int, progress: Callable[[str], None] = print) -> Verdict:
    """Kill a server so many times. `database`: its store's URL."""
    chance = random.Random(seed)
    async with Server(zygote, database, pattern={"history_size": 200}) as server:
        async with Load(folder, server.url, seed=seed) as load:
            for number in range(1, kills + 1):
                await load.until_flowing()
                moment = chance.choice(MOMENTS)
                if moment is None:
                    await pause(chance.uniform(0.0, 0.2))
                else:
                    await load.at_next(moment, lambda: server.process.signal(signal.SIGKILL))
                await server.kill()
                await server.start()
                progress(f"kill {number} of {kills}, acknowledged {load.acknowledged}")
            await load.until_flowing()
            await load.settle()
            log = await load.read_log()
        await server.stop()
    return check(load.history(log, await read_rows(database)))


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("--kills", type=int, default=200, help="how often")
    run_command(arguments, lambda zygote, folder, database, given: prove(zygote, folder, database, kills=given.kills, seed=given.seed))


if __name__ == "__main__":
    main()
