"""Calls that are given up, some thousand of each kind. More: `python -m tests.faults.cancelled_calls --calls 1000000`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cancelled_calls import KINDS, prove

CALLS = {"redis": 10_000, "sqlite": 2_000, "postgresql": 2_000}


@pytest.mark.parametrize("what", KINDS)
async def test_nobody_gets_the_answer_to_another_call(tmp_path: Path, what: str) -> None:
    count = await prove(what, tmp_path, CALLS[what], seed=20)
    assert count.is_clean, str(count)
    assert count.answered + count.cancelled == CALLS[what] and count.cancelled > CALLS[what] // 10
