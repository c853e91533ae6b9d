"""Each fault of a node once, for a short time. In full: `python -m tests.faults.node_faults`, `node_storm` and `node_presence`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import node_presence, node_storm
from tests.faults.node_faults import FAULTS
from tests.faults.node_proof import Setting, prove
from tests.faults.processes import Zygote

SECONDS = {"killed": 0.5, "paused": 1.5, "failed with redis": 0.5}
LEFT_OUT = {"cut off", "cut off for long", "stopped without redis"}
"""The first is both of its halves, the others take too long."""
SLACK = 4.0
"""The machine may be busy: how long things take is shown by the commands."""

QUEUED = Setting("sqlite", "queued", rate=150, calm=0.2, wanderers=1, seed=20)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in LEFT_OUT])
async def test_nothing_is_lost(zygote: Zygote, tmp_path: Path, name: str) -> None:
    outcome = await prove(zygote, tmp_path, name, FAULTS[name], QUEUED, seconds=SECONDS.get(name, 2.5), slack=SLACK)
    assert outcome.is_kept, "\n".join(outcome.complaints)
    assert outcome.verdict.counts["acknowledged"] > 100


async def test_the_clients_of_a_killed_node_come_back_at_the_others(zygote: Zygote, tmp_path: Path) -> None:
    storm = await node_storm.prove(zygote, tmp_path, clients=200, seed=20, haste=0.2)
    assert storm.verdict.is_clean and storm.verdict.counts["told of a gap"] == 0, str(storm.verdict)
    assert storm.reads == 0
    assert storm.back <= node_storm.LIMIT * SLACK


@pytest.mark.timeout(90)
async def test_who_was_at_a_killed_node_alone_is_gone_within_a_minute(zygote: Zygote, tmp_path: Path) -> None:
    farewell = await node_presence.prove(zygote, tmp_path, clients=20, seed=20)
    assert not farewell.complaints, "\n".join(farewell.complaints)
