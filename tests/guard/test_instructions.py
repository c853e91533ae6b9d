"""No guarded path has become dearer: instructions under valgrind, and the memory of an idle client, beside what is kept in `kept.json`.

Where a path is dearer on purpose, or cheaper: `make guard ARGS=--keep`, and the commit says why.
"""

from __future__ import annotations

import pytest

from . import kept
from .measure import IDLE_CLIENT, PATHS, has_valgrind, measure


def check(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    compared = kept.compare(measure(paths), kept.read(), kept.build())
    with capsys.disabled():
        for path in compared:
            if path.is_cheaper:
                print(f"\nguard: cheaper, well done: {path}. Keep it so: make guard ARGS=--keep")
    if dearer := [str(path) for path in compared if path.is_dearer]:
        text = "\n  ".join(dearer)
        pytest.fail(f"dearer than what is kept (if that is meant: make guard ARGS=--keep):\n  {text}", pytrace=False)


# Not "needs valgrind", which would fail under CI: it comes from no wheel, and a machine without it still has the exact counts of test_counts.py.
@pytest.mark.skipif(not has_valgrind(), reason="instructions are counted where valgrind is installed (apt install valgrind)")
@pytest.mark.timeout(900)
def test_no_path_needs_more_instructions(capsys: pytest.CaptureFixture[str]) -> None:
    check([path for path in PATHS if path != IDLE_CLIENT], capsys)


@pytest.mark.timeout(120)
def test_an_idle_client_needs_no_more_memory(capsys: pytest.CaptureFixture[str]) -> None:
    check([IDLE_CLIENT], capsys)
