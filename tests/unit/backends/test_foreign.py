"""What none of our nodes wrote is counted each time, and told once a minute for each kind."""

from __future__ import annotations

import pytest

from aibos_realtime.backends.foreign import Foreign
from aibos_realtime.metrics import Metrics
from aibos_realtime.testing.clock import ManualClock


async def test_counted_each_time_and_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    metrics, clock = Metrics(), ManualClock()
    foreign = Foreign(metrics, clock)
    for _ in range(5):
        foreign.note("a message")
    foreign.note("an entry", 3)
    foreign.note("an entry", 0)
    assert metrics.foreign_records == 8
    assert [record.message for record in caplog.records] == [
        "a message is none of ours, and was passed over (1 such things so far)",
        "an entry is none of ours, and was passed over (8 such things so far)",
    ]
    await clock.advance(60)
    foreign.note("a message")
    assert len(caplog.records) == 3 and metrics.foreign_records == 9
