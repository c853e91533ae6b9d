"""A disk that is full, twice. More often: `python -m tests.faults.disk_full --times 20`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.disk_full import prove
from tests.faults.processes import Zygote


async def test_a_full_disk_refuses_and_loses_nothing(zygote: Zygote, tmp_path: Path) -> None:
    verdict = await prove(zygote, tmp_path, f"sqlite:///{tmp_path}/realtime.db", times=2, seed=20)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["refused while full"] > 0
    assert verdict.counts["refused for good"] == verdict.counts["told of a gap"] == 0, str(verdict)
