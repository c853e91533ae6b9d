"""All attacks, and what each kind of them cost: `python -m tests.attacks [--keep] [pytest's arguments]`.

`--keep` writes the figures into docs/explanation. `ATTACKS_LONG=1` makes the attacks as long as their names say, where that takes minutes. The
figures are worth something on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.attacks.conftest import FIGURES
from tests.attacks.figures import KEPT, to_table, write_page


def main(words: list[str]) -> int:
    keeps = "--keep" in words
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "attacks.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/attacks",
            "--ignore=tests/attacks/test_figures.py",
            "-q",
            *(word for word in words if word != "--keep"),
        ]
        code = subprocess.run(command, env=os.environ | {FIGURES: str(file)}, check=False).returncode
        if not file.exists():
            return code or 2
        found = json.loads(file.read_text())
    print(to_table(found))
    if keeps and code == 0:
        KEPT.write_text(json.dumps(found, indent=2) + "\n")
        write_page(found)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
