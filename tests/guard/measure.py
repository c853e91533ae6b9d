"""What the guarded paths cost: instructions in runs of `reference`, counted under valgrind, and the memory of an idle client.

All workloads run in one process: start-up is paid once, and is in no figure. Callgrind begins a new part of its output before each call of a function
of the C library that `drive` calls around each workload; the sum of a part is the cost. The same code gives the same count to less than
a hundredth, on a busy machine too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aibos_realtime.server.descriptors import raise_limit

from .where import Share, read
from .workloads import REFERENCE, WORKLOADS

ROOT = Path(__file__).parents[2]
MEMBERS = 4000
"""Connections of all workloads together, and more."""
PATIENCE = 900.0
"""Seconds for all workloads together: about half a minute where nothing else is going on."""

IDLE_CLIENT = "bytes of an idle client"
PATHS = [*(name for name in WORKLOADS if name != REFERENCE), IDLE_CLIENT]
"""Everything that is kept, by name."""


def has_valgrind() -> bool:
    return shutil.which("valgrind") is not None


def measure(paths: Sequence[str]) -> dict[str, float]:
    """The costs of these paths. Raises `RuntimeError` where valgrind is missing, or fails, or a workload does not work."""
    costs: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        if workloads := [path for path in paths if path in WORKLOADS]:
            counts = count([REFERENCE, *workloads], folder)
            costs |= {name: counts[name] / counts[REFERENCE] for name in workloads}
        if IDLE_CLIENT in paths:
            costs[IDLE_CLIENT] = float(_run([sys.executable, "-m", "tests.guard.weigh"], folder))
    return costs


def count(names: Sequence[str], folder: str) -> dict[str, float]:
    """Instructions of one step of each workload. `folder`: for what is written on the way. Raises as `measure`."""
    parts = _callgrind(names, folder)
    return {name: _sum_of(part) / WORKLOADS[name].steps for name, part in zip(names, parts, strict=True)}


def profile(name: str) -> list[Share]:
    """Instructions and calls of one step of a workload, by Python function. Raises as `measure`, and where the interpreter cannot tell them apart."""
    if not hasattr(sys, "activate_stack_trampoline"):
        raise RuntimeError("Only CPython 3.12 or newer tells its functions apart for this: make PYTHON=python3.12 guard ARGS=…")
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        (part,) = _callgrind([name], folder, "--named")
        process = _field_of(part, "pid")
        entrances = Path(f"/tmp/perf-{process}.map")  # where CPython writes it, and nowhere else
        try:
            found = read(part, entrances)
        finally:
            entrances.unlink(missing_ok=True)
    steps = WORKLOADS[name].steps
    return [Share(share.function, share.instructions // steps, share.calls // steps) for share in found]


def _callgrind(names: Sequence[str], folder: str, *options: str) -> list[Path]:
    """The part of callgrind's output of each workload. Raises as `measure`."""
    if not has_valgrind():
        raise RuntimeError("Instructions are counted with valgrind, which is not installed here (Debian, Ubuntu: apt install valgrind).")
    drive = [sys.executable, "-m", "tests.guard.drive"]
    _run([*drive, *names], folder)  # compiles what is imported, which takes half a minute under valgrind; and a workload that fails does so at once
    out = Path(folder, "out")
    valgrind = ["valgrind", "--tool=callgrind", "--dump-before=ctermid", "--dump-line=no", f"--callgrind-out-file={out}"]
    _run([*valgrind, *drive, *options, *names], folder)
    return [out.with_suffix(f".{2 * number}") for number in range(1, len(names) + 1)]


def _run(command: Sequence[str], folder: str) -> str:
    """Run with an environment that is always the same: hashes, and with them the order and the collisions in sets, depend on it."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": "src",
    }  # fmt: skip
    raise_limit(MEMBERS)  # here: what runs under valgrind cannot raise its own
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def _sum_of(part: Path) -> int:
    return _field_of(part, "summary")


def _field_of(part: Path, field: str) -> int:
    found = re.search(rf"^{field}: (\d+)", part.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{part.name}: not what callgrind writes")
    return int(found[1])
