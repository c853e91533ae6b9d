"""A server is killed under load, and started again on its file. The full figure: `python -m tests.faults.kill_server --kills 200`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kill_server import prove
from tests.faults.processes import Zygote

SEED = 20
KILLS = 8


async def test_nothing_is_lost_when_the_server_is_killed(zygote: Zygote, tmp_path: Path) -> None:
    verdict = await prove(zygote, tmp_path, f"sqlite:///{tmp_path}/realtime.db", kills=KILLS, seed=SEED)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["told of a gap"] == 0, str(verdict)
    assert verdict.counts["acknowledged"] >= KILLS


async def test_a_log_in_memory_is_lost_with_its_server_and_the_checker_says_so(zygote: Zygote, tmp_path: Path) -> None:
    """That the proof above can fail; and that what is lost is announced all the same."""
    verdict = await prove(zygote, tmp_path, "memory://", kills=2, seed=SEED)
    assert verdict.faults["unlogged"] > 0
    assert verdict.faults["silent gap"] == 0
    assert verdict.counts["told of a gap"] > 0
