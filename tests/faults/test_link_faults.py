"""Each fault of the line once, for a short time. Longer and in any order: `python -m tests.faults.link_faults --seconds 5 --rounds 4`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.link_faults import FAULTS, prove
from tests.faults.processes import Zygote

SECONDS = {"pause": 3.0, "blackhole": 1.0, "half-open up": 1.0, "half-open down": 1.0}
SHORT = [name for name in FAULTS if name not in SECONDS]


@pytest.mark.parametrize(("faults", "seconds"), [*(([name], seconds) for name, seconds in SECONDS.items()), (SHORT, 0.3)])
async def test_nothing_is_lost_on_a_bad_line(zygote: Zygote, tmp_path: Path, faults: list[str], seconds: float) -> None:
    verdict = await prove(zygote, tmp_path, f"sqlite:///{tmp_path}/realtime.db", faults=faults, seconds=seconds, seed=20)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["told of a gap"] == 0, str(verdict)
