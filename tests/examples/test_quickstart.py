"""The quick start: it runs, it is as short as promised, and the README shows it line by line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "quickstart.py"


def test_it_runs_and_prints_the_event(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(FILE)], capture_output=True, text=True, timeout=20, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("1 invoice.created {'invoiceId': 'inv_001', 'amount': 1000}\n", "")


def test_it_has_at_most_15_lines() -> None:
    assert sum(bool(line.strip()) for line in FILE.read_text().splitlines()) <= 15


def test_the_readme_shows_the_same_lines() -> None:
    assert FILE.read_text().strip() in (ROOT / "README.md").read_text()
