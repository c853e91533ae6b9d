"""The source document, "Testing" and "Contributing": the commands, which are targets of the Makefile."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "pnpm test": ("test", "pytest"),
    "pnpm test:coverage": ("coverage", "--cov"),
    "pnpm test:integration": ("integration", "tests/network"),
    "pnpm quality:check": ("check", "mypy"),
}


@pytest.mark.parametrize(("target", "runs"), COMMANDS.values(), ids=COMMANDS.keys())
def test_testing(target: str, runs: str) -> None:
    """The target exists and would run what it is named after. Nothing is run here."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    planned = subprocess.run(["make", "--dry-run", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True, timeout=10)
    assert planned.returncode == 0, planned.stderr
    assert runs in planned.stdout
