"""`python -m tests.churn`: see `churn`."""

from __future__ import annotations

import asyncio
import sys
import time
import tracemalloc
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from tests.arguments import amount, count
from tests.churn import churn


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.churn", description=churn.__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=amount, default=8.0)
    parser.add_argument("--per-minute", type=count, default=20, help="sessions that begin in each")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    given = parser.parse_args()
    tracemalloc.start()
    began = time.monotonic()
    remains = asyncio.run(churn.prove(minutes=round(60 * given.hours), per_minute=given.per_minute, seed=given.seed))
    print(f"seed {given.seed}, {time.monotonic() - began:.0f} s\n{remains}")
    sys.exit(0 if remains.is_nothing else 1)


if __name__ == "__main__":
    main()
