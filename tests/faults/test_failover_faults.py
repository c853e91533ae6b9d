"""A replica takes over, once in each way that loses something, for a short time. In full: `python -m tests.faults.failover_faults`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.failover_faults import FAULTS
from tests.faults.node_proof import Setting, Store, prove
from tests.faults.processes import Zygote

SECONDS = {"taken over by one behind": 0.7, "taken over too early": 0.5}
SLACK = 4.0
"""The machine may be busy: how long things take is shown by the command."""

SHORT = Setting(rate=150, calm=0.2, wanderers=0, seed=20)
STORES: dict[str, Store] = {"taken over by one behind": "sqlite", "taken over too early": "none"}
"""What is in a store already tells the nodes of the second that there is more than the replica has."""


@pytest.mark.parametrize("name", SECONDS)
async def test_what_a_replica_lacks_is_told_and_nobody_goes_on_in_its_place_unseen(zygote: Zygote, tmp_path: Path, name: str) -> None:
    """Of two copies of the log that had both gone on, clients that changed from one to the other missed what was there, and were told nothing."""
    outcome = await prove(zygote, tmp_path, name, FAULTS[name], replace(SHORT, store=STORES[name]), seconds=SECONDS[name], slack=SLACK)
    assert outcome.is_kept, "\n".join(outcome.complaints)
    assert outcome.verdict.counts["acknowledged"] > 100 and outcome.verdict.counts["told of a gap"] > 0
