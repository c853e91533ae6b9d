"""What the proofs have in common as commands: their arguments, a folder, a zygote, and a verdict that is printed."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.checker import Verdict
from tests.faults.processes import Zygote

Proof = Callable[[Zygote, Path, str, Namespace], Awaitable[Verdict]]


class Arguments:
    """`--seed`, `--folder`, `--database`, and what a proof adds."""

    def __init__(self, text: str | None) -> None:
        self._parser = ArgumentParser(description=text, formatter_class=RawDescriptionHelpFormatter)
        self.add("--seed", type=int, default=1, help="of everything that chance decides")
        self.add("--folder", type=Path, help="where journals and store go, and stay; default: a temporary one")
        self.add("--database", help="the store's URL; default: an SQLite file in the folder")

    def add(self, name: str, **options: Any) -> None:
        self._parser.add_argument(name, **options)

    def read(self) -> Namespace:
        return self._parser.parse_args()


def run_command(arguments: Arguments, proof: Proof) -> None:
    """Run a proof and print its verdict; the exit status is 1 where it is not clean."""
    given = arguments.read()
    logging.getLogger("aibos_realtime.client").setLevel(logging.ERROR)  # that connections are lost is no news here
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        zygote = Zygote()
        try:
            verdict = asyncio.run(_run(proof, zygote, folder, given.database or f"sqlite:///{folder}/realtime.db", given))
        finally:
            zygote.close()
    print(f"seed {given.seed}, {time.monotonic() - began:.0f} s\n{verdict}")
    sys.exit(0 if verdict.is_clean else 1)


async def _run(proof: Proof, zygote: Zygote, folder: Path, database: str, given: Namespace) -> Verdict:
    return await proof(zygote, folder, database, given)
