"""The disk is full for the server, and has room again: publishes are refused in a retryable way, nothing is lost, and it goes on by itself.

    python -m tests.faults.disk_full --times 20 --seed 1

No file may be written past some size that it has already (RLIMIT_FSIZE, which needs no rights); every second time nothing may be written at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.faults.checker import Verdict, check
from tests.faults.clients import pause
from tests.faults.command import Arguments, run_command
from tests.faults.load import Load
from tests.faults.processes import Server, Zygote
from tests.faults.rows import read_rows


async def prove(zygote: Zygote, folder: Path, database: str, *, times: int, seed: int, progress: Callable[[str], None] = print) -> Verdict:
    """Fill the disk so many times. `database`: an SQLite file."""
    chance = random.Random(seed)
    log_file = Path(f"{database.removeprefix('sqlite:///')}-wal")
    async with Server(zygote, database, pattern={"history_size": 200}) as server:
        async with Load(folder, server.url, seed=seed) as load:
            refusals = 0
            for number in range(1, times + 1):
                await load.until_flowing(3)
                size = 0 if number % 2 else chance.randrange(size_of(log_file) // 2)
                server.process.limit_files(size)
                await load.until_refused("unavailable")
                await pause(chance.uniform(0.0, 0.3))
                server.process.limit_files(None)
                await load.until_flowing()
                progress(f"full {number} of {times}, refused so far {load.errors['unavailable']}")
            await load.settle()
            refusals = load.errors["unavailable"]
            log = await load.read_log()
        await server.stop()
    verdict = check(load.history(log, await read_rows(database)))
    verdict.counts["refused while full"] = refusals
    return verdict


def size_of(log_file: Path) -> int:
    """SQLite begins its write-ahead log anew from time to time: into its present size it would fit for ever, into half of it for a while."""
    return log_file.stat().st_size


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("--times", type=int, default=20, help="how often")
    run_command(arguments, lambda zygote, folder, database, given: prove(zygote, folder, database, times=given.times, seed=given.seed))


if __name__ == "__main__":
    main()
