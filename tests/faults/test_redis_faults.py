"""Each fault of Redis once, for a short time. In full: `python -m tests.faults.redis_faults`, with `--store` and `--ack` as one likes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.node_proof import Setting, prove
from tests.faults.processes import Zygote
from tests.faults.redis_faults import FAULTS

SECONDS = {"paused": 2.5, "full of what waits": 1.5}
RATES = {"full of what waits": 500.0}
OPEN = {"the last lost with all nodes"}
"""Nobody is left who knows of more than Redis does, unless it is in the store by then: offsets are given out again."""
SLACK = 4.0
"""The machine may be busy: how long things take is shown by the commands."""

SHORT: dict[str, Any] = {"rate": 150, "calm": 0.2, "wanderers": 0, "seed": 20}
NO_STORE = Setting("none", **SHORT)
QUEUED = Setting("sqlite", "queued", **SHORT)
COMMITTED = Setting("sqlite", "committed", **SHORT)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in OPEN])
async def test_nothing_is_lost_without_a_word(zygote: Zygote, tmp_path: Path, name: str) -> None:
    setting = replace(QUEUED, rate=RATES.get(name, QUEUED.rate))
    outcome = await prove(zygote, tmp_path, name, FAULTS[name], setting, seconds=SECONDS.get(name, 0.5), slack=SLACK)
    assert outcome.is_kept, "\n".join(outcome.complaints)
    assert outcome.verdict.counts["acknowledged"] > 100


async def test_what_is_committed_survives_the_loss_of_redis(zygote: Zygote, tmp_path: Path) -> None:
    outcome = await prove(zygote, tmp_path, "restarted empty", FAULTS["restarted empty"], COMMITTED, seconds=1.0, slack=SLACK)
    assert outcome.is_kept, "\n".join(outcome.complaints)
    assert outcome.verdict.counts["told of a gap"] > 0


async def test_without_a_store_everything_that_redis_loses_is_announced(zygote: Zygote, tmp_path: Path) -> None:
    outcome = await prove(zygote, tmp_path, "restarted empty", FAULTS["restarted empty"], NO_STORE, seconds=0.2, slack=SLACK)
    assert outcome.is_kept, "\n".join(outcome.complaints)
    assert outcome.verdict.counts["told of a gap"] > 0 and outcome.verdict.counts["gone"] > 0
