from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.metrics import Metrics


def test_everything_begins_at_nothing() -> None:
    metrics = Metrics()
    for name in Metrics.__slots__:
        if name not in ("sample_rate",):
            assert not getattr(metrics, name)
    assert metrics.latency(0.5) is None


def test_quantiles_are_of_the_latest_thousand() -> None:
    metrics = Metrics()
    for number in range(3000):
        metrics.note_latency(float(number))
    assert len(metrics.latencies) == 1000
    assert (metrics.latency(0), metrics.latency(0.5), metrics.latency(0.99), metrics.latency(1)) == (2000, 2500, 2990, 2999)


@given(st.floats(0.01, 1.0))
def test_the_sample_rate_is_the_share_that_is_kept(rate: float) -> None:
    metrics = Metrics()
    metrics.sample_rate = rate
    for _ in range(500):
        metrics.note_latency(1.0)
    assert len(metrics.latencies) == pytest.approx(500 * rate, abs=1.01)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_one_of_the_samples(samples: list[float], quantile: float) -> None:
    metrics = Metrics()
    for sample in samples:
        metrics.note_latency(sample)
    assert metrics.latency(quantile) in samples


def test_nothing_else_can_be_counted_by_a_slip_of_the_pen() -> None:
    with pytest.raises(AttributeError):
        Metrics().mesages_in = 1  # type: ignore[attr-defined]
