"""The histogram: what its quantiles may be wrong by, that two are one when they are added, and how it is shown."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.load.histogram import BUCKETS, LONGEST, QUANTILES, Histogram, HistogramRecord, bucket_of, end_of

VALUES = st.lists(st.integers(0, LONGEST), min_size=1, max_size=300)


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


class TestBuckets:
    @given(st.integers(0, LONGEST))
    def test_a_value_is_in_a_bucket_that_is_at_most_a_64th_as_wide(self, value: int) -> None:
        bucket = bucket_of(value)
        first = end_of(bucket - 1) + 1 if bucket else 0
        assert first <= value <= end_of(bucket)
        assert end_of(bucket) - first <= value / 64

    def test_they_follow_one_another(self) -> None:
        ends = [end_of(bucket) for bucket in range(BUCKETS)]
        assert ends == sorted(set(ends)) and ends[-1] == LONGEST
        assert all(bucket_of(end) == bucket and bucket_of(end + 1) == bucket + 1 for bucket, end in enumerate(ends[:-1]))


class TestQuantiles:
    @given(VALUES, st.floats(0.0, 1.0))
    def test_they_are_never_too_small_and_hardly_too_large(self, values: list[int], share: float) -> None:
        true = sorted(values)[max(1, math.ceil(share * len(values))) - 1] / 1e6
        found = of(values).quantile(share)
        assert found is not None and true <= found <= true * (1 + 1 / 64) + 1e-12

    def test_of_nothing_there_is_none(self) -> None:
        empty = Histogram()
        assert (empty.count, empty.mean, empty.longest, empty.quantile(0.5), empty.bars()) == (0, None, None, None, [])

    def test_what_lies_outside_counts_as_the_end(self) -> None:
        histogram = of([-5, LONGEST + 1])
        assert (histogram.count, histogram.longest, histogram.quantile(0.0)) == (2, LONGEST / 1e6, 0.0)

    @given(VALUES)
    def test_mean_and_longest_are_exact(self, values: list[int]) -> None:
        histogram = of(values)
        assert histogram.longest == max(values) / 1e6
        assert histogram.mean is not None and math.isclose(histogram.mean, sum(values) / len(values) / 1e6)


class TestAdding:
    @given(VALUES, VALUES)
    def test_two_are_as_one(self, some: list[int], others: list[int]) -> None:
        sent = msgspec.json.decode(msgspec.json.encode(of(others).to_record()), type=HistogramRecord)
        assert of(some).add(sent).to_record() == of(some + others).to_record()

    def test_its_size_is_that_of_its_buckets(self) -> None:
        many = of(list(range(0, 10_000_000, 7)))
        assert len(many.to_record().buckets) < 1300


class TestShowing:
    @given(VALUES)
    def test_the_bars_hold_everything_once(self, values: list[int]) -> None:
        bars = of(values).bars()
        assert sum(count for _, count in bars) == len(values)
        assert bars[0][1] and bars[-1][1], "no empty ends"
        ends = [end for end, _ in bars]
        assert ends == sorted(set(ends)) and all(f"{end:.0e}"[0] in "125" for end in ends)

    def test_a_bar_holds_what_is_up_to_its_end(self) -> None:
        assert of([1, 2, 3, 5, 100, 100]).bars() == [(1e-6, 1), (2e-6, 1), (5e-6, 2), (1e-5, 0), (2e-5, 0), (5e-5, 0), (1e-4, 2)]

    def test_json(self) -> None:
        shown = of([1000] * 99 + [50_000]).to_wire()
        assert set(shown) == {"count", "mean", *QUANTILES, "max", "buckets"}
        assert (shown["count"], shown["max"]) == (100, 0.05) and shown["p999"] == 0.05
