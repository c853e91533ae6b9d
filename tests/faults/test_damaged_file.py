"""A damaged append-only file, a few times. More: `python -m tests.faults.damaged_file --times 100`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.damaged_file import prove


async def test_what_a_damaged_file_lacks_is_told_and_no_place_is_given_twice(tmp_path: Path) -> None:
    counts = await prove(tmp_path, times=8, seed=21)
    assert counts.total() == 8 and counts["shorter"] > 0 and counts["told"] > 0
