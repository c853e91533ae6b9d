"""What the proofs of several nodes have in common as commands: their arguments, and a table with a line for each fault."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from pathlib import Path

from tests.faults.node_proof import Fault, Outcome, Setting, prove
from tests.faults.processes import Zygote
from tests.servers.redis import PROGRAMS

COLUMNS = ("sent", "acknowledged", "delivered", "lost", "duplicate", "inversion", "silent gap", "announced", "gone", "told of a gap")
"""Counts and faults of a verdict, each by its name."""
HEAD = ("fault", *COLUMNS, "refused after", "acknowledging after", "delivering after", "verdict")


def run_faults(text: str | None, faults: Mapping[str, Fault]) -> None:
    """Run the faults that are asked for, and print a table; the exit status is 1 where anything promised was not kept."""
    parser = ArgumentParser(description=text, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=faults, default=list(faults), help="which")
    parser.add_argument("--seconds", type=float, help="how long each one lasts; default: what is said of it")
    parser.add_argument("--rounds", type=int, default=1, help="how often each one comes")
    parser.add_argument("--store", choices=("none", "sqlite", "postgresql"), default="none")
    parser.add_argument("--ack", choices=("queued", "committed"), default="queued")
    parser.add_argument("--rate", type=float, default=500.0, help="publishes a second")
    parser.add_argument("--redis", choices=PROGRAMS, help="the program; default: the first of these")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    parser.add_argument("--folder", type=Path, help="where journals and outputs go, and stay; default: a temporary one")
    given = parser.parse_args()
    logging.getLogger("aibos_realtime.client").setLevel(logging.CRITICAL)  # that connections are lost is no news here
    outcomes: list[Outcome] = []
    print_row(HEAD)
    with tempfile.TemporaryDirectory() as temporary:
        zygote = Zygote()
        try:
            for round in range(given.rounds):
                setting = Setting(given.store, given.ack, given.rate, seed=given.seed + round, program=PROGRAMS.get(given.redis))
                for name in given.only:
                    if not faults[name].suits(setting):
                        continue
                    folder = (given.folder or Path(temporary)) / f"{name} {round}".replace(" ", "-")
                    folder.mkdir(parents=True)
                    outcomes.append(asyncio.run(prove(zygote, folder, name, faults[name], setting, seconds=given.seconds)))
                    print_outcome(outcomes[-1])
        finally:
            zygote.close()
    sys.exit(0 if all(outcome.is_kept for outcome in outcomes) else 1)


def print_outcome(outcome: Outcome) -> None:
    """Its line of the table, and below it what was not kept."""
    verdict = outcome.verdict
    figures = [str(verdict.counts[name] + verdict.faults[name]) for name in COLUMNS]
    times = [f"{seconds:.2f} s" for seconds in (outcome.slowest_refusal, outcome.acknowledged_after, outcome.delivered_after)]
    print_row((outcome.name, *figures, *times, "kept" if outcome.is_kept else "NOT KEPT"))
    for complaint in outcome.complaints:
        print(f"    {outcome.name}: {complaint}", flush=True)


def print_row(cells: tuple[str, ...]) -> None:
    print("| " + " | ".join(cell.ljust(len(head)) for cell, head in zip(cells, HEAD, strict=True)) + " |", flush=True)
