"""What the guarded paths cost, beside what is kept: `make guard`, or `python -m tests.guard`.

make guard                        compares all of them; ends with 1 if one has become dearer than it may
make guard ARGS="fan-out ping"    only those whose names contain one of these words
make guard ARGS=--keep            keeps the figures of this run from now on
make guard ARGS='--where ping'    which Python functions the instructions of the first such path go to (CPython ≥ 3.12)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import kept
from .measure import IDLE_CLIENT, PATHS, measure, profile

SHOWN = 40
"""Functions of a profile."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only the paths whose names contain one of these")
    parser.add_argument("--keep", action="store_true", help="keep the figures of this run")
    parser.add_argument("--where", action="store_true", help="show where instructions go, instead")
    given = parser.parse_args(arguments)
    names = [name for name in PATHS if not given.words or any(word in name for word in given.words)]
    if not names:
        parser.error("no path has such a name; there are:\n  " + "\n  ".join(PATHS))
    try:
        if given.where:
            return show(names[0])
        costs = measure(names)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    here, builds = kept.build(), kept.read()
    found = kept.compare(costs, builds, here)
    print(f"{here}\n{'now':>10} {'kept':>10} {'change':>8}")
    for path in found:
        print(f"{path.cost:10.4g} {'' if path.kept is None else format(path.kept, '10.4g'):>10} {path.change:+8.1%}  {path.name}")
    if given.keep:
        kept.write(kept.renewed(costs, builds, here))
        print("kept in tests/guard/kept.json")
        return 0
    return report(found)


def show(name: str) -> int:
    """Print where the instructions of a path go."""
    if name == IDLE_CLIENT:
        raise RuntimeError(f"{name}: instructions are those of the other paths")
    called = [share for share in profile(name) if share.calls]
    print(f"one step of: {name}\n{'inclusive':>12} {'calls':>6}")
    for share in called[:SHOWN]:
        print(f"{share.instructions:12,} {share.calls:6,}  {share.function}")
    return 0


def report(found: Sequence[kept.Comparison]) -> int:
    """Say what follows from a comparison; 1 where something has become dearer."""
    for cheaper in (path for path in found if path.is_cheaper):
        print(f"cheaper, well done: {cheaper}. Keep it so: make guard ARGS=--keep")
    dearer = [path for path in found if path.is_dearer]
    for path in dearer:
        print(f"DEARER: {path}", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
