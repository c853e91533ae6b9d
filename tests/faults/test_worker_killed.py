"""Workers of a queue are killed at six points of their work. The full figure: `python -m tests.faults.kill_worker --kills 100`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_worker import POINTS, VISIBILITY, Verdict, place_of, run
from tests.faults.processes import Zygote

KILLS = 8


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgresql"])
@pytest.mark.timeout(120)
async def test_nothing_is_lost_when_workers_are_killed(kind: str, zygote: Zygote, tmp_path: Path) -> None:
    with place_of(kind, tmp_path) as url:
        verdict = await run(zygote, tmp_path, url, KILLS)
    assert verdict.is_clean, verdict
    assert verdict.kills == dict.fromkeys(POINTS, KILLS)
    assert len(verdict.acknowledged) >= 5 * KILLS
    assert verdict.again > 0 and len(verdict.takeovers) > KILLS, verdict


@pytest.mark.parametrize(
    ("verdict", "is_clean"),
    [
        (Verdict(acknowledged={"a"}, effects={"a"}, takeovers=[VISIBILITY + 4.9]), True),
        (Verdict(acknowledged={"a", "b"}, effects={"a"}), False),
        (Verdict(acknowledged={"a"}, effects={"a", "b"}), False),
        (Verdict(acknowledged={"a"}, effects={"a"}, left=1), False),
        (Verdict(acknowledged={"a"}, effects={"a"}, takeovers=[VISIBILITY + 5.1]), False),
    ],
)
def test_what_the_verdict_is(verdict: Verdict, is_clean: bool) -> None:
    assert verdict.is_clean is is_clean
