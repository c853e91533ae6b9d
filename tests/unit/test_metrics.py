from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.metrics import BOUNDS, Histogram, Metrics


def test_everything_begins_at_nothing() -> None:
    metrics = Metrics()
    for name in Metrics.__slots__:
        if name not in ("sample_rate",):
            assert not getattr(metrics, name)
    assert metrics.latency(0.5) is None


def test_quantiles_are_of_the_latest_thousand() -> None:
    metrics = Metrics()
    for number in range(3000):
        metrics.note_fanout(float(number), 0.0)
    assert len(metrics.latencies) == 1000
    assert (metrics.latency(0), metrics.latency(0.5), metrics.latency(0.99), metrics.latency(1)) == (2000, 2500, 2990, 2999)


@given(st.floats(0.01, 1.0))
def test_the_sample_rate_is_the_share_that_is_kept(rate: float) -> None:
    metrics = Metrics()
    metrics.sample_rate = rate
    for _ in range(500):
        metrics.note_fanout(1.0, 1.0)
    assert len(metrics.latencies) == pytest.approx(500 * rate, abs=1.01)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_one_of_the_samples(samples: list[float], quantile: float) -> None:
    metrics = Metrics()
    for sample in samples:
        metrics.note_fanout(sample, sample)
    assert metrics.latency(quantile) in samples


def test_nothing_else_can_be_counted_by_a_slip_of_the_pen() -> None:
    with pytest.raises(AttributeError):
        Metrics().mesages_in = 1  # type: ignore[attr-defined]


def test_quantiles_of_the_latest_few() -> None:
    metrics = Metrics()
    for number in range(10):
        metrics.note_fanout(float(number), 0.0)
    assert metrics.quantiles((0, 0.5, 1), 4) == [6, 8, 9] and metrics.quantiles((0.5,), 0) == [None] and metrics.quantiles((0,), 99) == [0]
    assert metrics.latencies_kept == 10


def test_a_histogram_counts_up_to_its_bounds_and_beyond() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] + 1):
        histogram.note(seconds)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-2], histogram.counts[-1]) == (2, 1, 1, 1)
    assert len(histogram) == 5 and histogram.total == pytest.approx(21.0002, abs=1e-3)


@given(st.lists(st.floats(0, 20), max_size=30))
def test_every_value_of_a_histogram_is_in_the_bucket_that_reaches_it(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.note(value)
    for number, bound in enumerate(BOUNDS):
        assert sum(histogram.counts[: number + 1]) == sum(value <= bound for value in values)


def test_fan_outs_are_counted_whatever_the_sample_rate() -> None:
    metrics = Metrics()
    metrics.sample_rate = 0.1
    for _ in range(100):
        metrics.note_fanout(0.001, 0.01)
    assert len(metrics.fanout_times) == len(metrics.delivery_times) == 100 and 9 <= metrics.latencies_kept <= 11
