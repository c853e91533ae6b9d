"""Every figure of `docs/explanation/performance.md`, from one command.

    python -m benchmarks --install                 the peers, into a cache folder (once)
    python -m benchmarks --all                     everything: measured, drawn, written into the page
    python -m benchmarks fanout rooms --rounds 5   some of it; the results are kept, the page is left alone
    python -m benchmarks plot                      the plots and the page's tables, from the results that are kept
    python -m benchmarks burst --only ours,uws     these alone (not kept, but in a folder named by --results)
    python -m benchmarks --all --quick             does it run? (its figures mean nothing, and are not kept)

The server has a core to itself and the load another: what counts are the ratios of one run, and CPU rather than time where the machine is busy.
What is measured stands in `parts.py`, who takes part in `contestants.py`, the load in `load.c`. It needs a C compiler.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import page, plots, queues, results
from benchmarks.contestants import CACHE, Contestant, find_contestants, floor, install
from benchmarks.driver import Driver, Found, as_record, run_program, take_turns
from benchmarks.parts import ALL, FIELD, PARTS, PROGRAMS, Part


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"plot, or of {', '.join(ALL)}")
    parser.add_argument("--all", action="store_true", help="all of them, then plot")
    parser.add_argument("--list", action="store_true", help="what there is, and how long it took the last time")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: each part's own")
    parser.add_argument("--only", metavar="NAME,…", help="contestants; default: all that are installed")
    parser.add_argument("--peers", type=Path, default=CACHE, metavar="FOLDER", help="where the peers are installed (default: %(default)s)")
    parser.add_argument("--install", action="store_true", help="install them there first")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where results are kept (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything runs; the results are thrown away")
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in (*ALL, "plot")]:
        parser.error(f"there is no {', '.join(unknown)}; there are plot, {', '.join(ALL)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds: at least 1")
    if not (given.names or given.all or given.list or given.install):
        parser.print_help()
        raise SystemExit(2)
    return given


def choose(wanted: str | None, known: dict[str, Contestant]) -> list[str]:
    if wanted is None:
        return list(known)
    if unknown := [name for name in wanted.split(",") if name not in known]:
        raise SystemExit(f"--only: there is no {', '.join(unknown)}; there are {', '.join(known)}. Peers are installed by --install.")
    return wanted.split(",")


class Session:
    """One run of the command: measures parts, keeps what it found, tells how far it is."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._given = given
        self._folder = folder
        self._began = time.monotonic()
        self._driver = Driver(given.peers / "bin", given.quick)
        self._known = find_contestants(given.peers) | {"floor": floor(self._driver.floor)}
        self._chosen = choose(given.only, self._known)
        if absent := [name for name in FIELD if name not in self._known]:
            print(f"not installed, and left out: {', '.join(absent)} (--install)", file=sys.stderr)
        self.failures: list[str] = []

    def measure(self, name: str) -> None:
        began = time.monotonic()
        if name in PARTS:
            part = PARTS[name]
            rounds = 1 if self._given.quick else self._given.rounds or part.rounds
            self._tell(name, part.title)
            found = take_turns(self._driver, part, self._known, self._chosen, rounds, lambda line: self._tell(name, line))
            about: dict[str, Any] = {"rounds": rounds, "loads": as_record(found.loads), "versions": self._versions(part, found)}
        else:
            program = PROGRAMS[name]
            rounds = 1 if self._given.quick else self._given.rounds or program.rounds
            self._tell(name, program.title)
            found = run_program(program, rounds, self._given.quick, self._given.peers, lambda line: self._tell(name, line))
            about = {"rounds": rounds} if program.option else {}
        self.failures += [f"{name}: {where}: {reason}" for where, reason in found.failures.items()]
        taken = round(time.monotonic() - began)
        self._tell(name, f"done in {taken} s")
        kept = {"date": results.today(), "seconds": taken, "machine": results.describe_machine(), **about}
        if found.results:
            path = results.write(self._folder, name, kept | {"results": found.results, "failures": found.failures})
            if name in PARTS:
                print(page.summary(results.read(path.parent)[name]), flush=True)

    def _versions(self, part: Part, found: Found) -> dict[str, dict[str, str]]:
        return {name: self._known[name].versions for name in found.results if self._known[name].versions}

    def _tell(self, name: str, line: str) -> None:
        elapsed = int(time.monotonic() - self._began)
        print(f"{elapsed // 60:2}:{elapsed % 60:02} {name}: {line}", file=sys.stderr, flush=True)


def show_list(folder: Path) -> None:
    kept = results.read(folder)
    for name in ALL:
        title = PARTS[name].title if name in PARTS else PROGRAMS[name].title
        seconds = f"{kept[name].record['seconds']:4} s" if name in kept else "     –"
        print(f"{name:12} {seconds}  {title}")
    print(f"{'together':12} {sum(one.record['seconds'] for one in kept.values()):4} s")


def plot(folder: Path) -> None:
    """The plots, and the page's tables."""
    kept = results.read(folder)
    for path in [*plots.draw_all(kept), *page.fill_all(kept)]:
        print(path)


def run(given: argparse.Namespace) -> list[str]:
    """Measure what was asked for; what failed."""
    names = ALL if given.all else [name for name in given.names if name != "plot"]
    kept = given.results or results.FOLDER
    is_kept = not given.quick and (given.only is None or given.results is not None)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="aibos-bench-") as away:
        if names:
            session = Session(given, kept if is_kept else Path(away))
            for name in names:
                session.measure(name)
            failures = session.failures
    if names and not is_kept:
        print("--quick: these figures mean nothing, and are not kept" if given.quick else "--only: not kept (--results FOLDER)", file=sys.stderr)
    elif given.all or "plot" in given.names:
        plot(kept)
    return failures


def main() -> None:
    given = parse()
    if given.install:
        install(given.peers)
        queues.install(given.peers)
    if given.list:
        show_list(given.results or results.FOLDER)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the servers end too
    try:
        failures = run(given)
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
