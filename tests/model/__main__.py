"""The model of rooms, presence, positions and recovery against whole servers in memory, for as long as one likes:

    python -m tests.model --runs 200 --steps 2000 --seed 1

The same seed is the same run. A run that fails prints its steps, as few as still fail, for a test.
"""

from __future__ import annotations

import argparse
import os
import pprint
import sys
import time
from functools import partial

from tests.arguments import count
from tests.model.acts import Step
from tests.model.walk import KINDS, failure_of, shrink, walk


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=count, default=20)
    parser.add_argument("--steps", type=count, default=200, help="of each run")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next one has the next")
    parser.add_argument("--kind", choices=sorted(KINDS), help="what may happen; all of them in turn unless given")
    parser.add_argument("--seconds", type=float, default=None, help="after which no further run begins")
    given = parser.parse_args()
    began, done, failed = time.monotonic(), 0, 0
    for seed in range(given.seed, given.seed + given.runs):
        if given.seconds is not None and time.monotonic() - began > given.seconds:
            break
        kind = given.kind or sorted(KINDS)[seed % len(KINDS)]
        has_store = seed // len(KINDS) % 2 == 1
        steps = walk(seed, given.steps, kind)
        failure = failure_of(steps, seed, has_store=has_store)
        done += 1
        if failure is not None:
            failed += 1
            steps = shrink(steps, partial(_fails, seed, has_store, type(failure)))
            print(f"seed {seed} ({kind}, has_store={has_store}): {failure_of(steps, seed, has_store=has_store)!r}")
            pprint.pprint(steps, width=150)
            sys.stdout.flush()
    print(f"{done} runs of {given.steps} steps in {time.monotonic() - began:.0f} s: {failed} failed")
    return 1 if failed else 0


def _fails(seed: int, has_store: bool, kind: type[Exception], steps: list[Step]) -> bool:
    return isinstance(failure_of(steps, seed, has_store=has_store), kind)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is a part of the run
        os.execve(sys.executable, [sys.executable, "-m", "tests.model", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
