"""How often which duration was seen: a histogram with logarithmic buckets. It is of one size however much is recorded, and two can be added up.

A bucket is at most 1/64 as wide as what it holds, so a quantile is right within 1.6 %. Microseconds in, seconds out.
"""

from __future__ import annotations

import math
from typing import Self

from msgspec import Struct

LONGEST = 2**32 - 1
"""Microseconds: 71 minutes. What is longer counts as this."""
_LINEAR = 128
"""Up to here each value has its own bucket; above, each octave has 64."""


def bucket_of(value: int) -> int:
    """The number of the bucket for a value of 0 … `LONGEST`."""
    if value < _LINEAR:
        return value
    shift = value.bit_length() - 7
    return shift * 64 + (value >> shift)


def end_of(bucket: int) -> int:
    """The largest value that falls into a bucket."""
    if bucket < _LINEAR:
        return bucket
    shift = bucket // 64 - 1
    return ((bucket - shift * 64 + 1) << shift) - 1


BUCKETS = bucket_of(LONGEST) + 1


class HistogramRecord(Struct, frozen=True):
    """A histogram to be sent: only the buckets that hold something, as (number, count). `total` and `most`: microseconds."""

    buckets: list[tuple[int, int]] = []
    total: int = 0
    most: int = 0


class Histogram:
    """Durations in microseconds."""

    __slots__ = ("_counts", "_most", "_total")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._total = 0
        self._most = 0

    def record(self, value: int) -> None:
        """Count one. What is below zero, as clocks may have it, counts as zero."""
        if value < 0:
            value = 0
        elif value > LONGEST:
            value = LONGEST
        self._counts[value if value < _LINEAR else bucket_of(value)] += 1
        self._total += value
        if value > self._most:
            self._most = value

    def add(self, record: HistogramRecord) -> Self:
        """Count all of another one as well."""
        for bucket, count in record.buckets:
            self._counts[bucket] += count
        self._total += record.total
        self._most = max(self._most, record.most)
        return self

    def to_record(self) -> HistogramRecord:
        return HistogramRecord([(bucket, count) for bucket, count in enumerate(self._counts) if count], self._total, self._most)

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def mean(self) -> float | None:
        """Seconds; None where nothing was recorded."""
        return self._total / count / 1e6 if (count := self.count) else None

    @property
    def longest(self) -> float | None:
        """Seconds; None where nothing was recorded."""
        return self._most / 1e6 if self.count else None

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of all lies: not less than the true value, and at most 1.6 % more. None where nothing was recorded."""
        count = self.count
        if not count:
            return None
        wanted = max(1, math.ceil(share * count))
        seen = 0
        for bucket, found in enumerate(self._counts):
            seen += found
            if seen >= wanted:
                return min(end_of(bucket), self._most) / 1e6
        raise AssertionError("the counts are fewer than their sum")

    def bars(self) -> list[tuple[float, int]]:
        """(up to so many seconds, how many) in the steps 1, 2, 5, 10 …, from the first that holds something to the last."""
        bars: list[tuple[int, int]] = []
        step, power, sum_of_step = 0, 1, 0
        for bucket, count in enumerate(self._counts):
            while end_of(bucket) > (end := _STEPS[step] * power):
                bars.append((end, sum_of_step))
                sum_of_step = 0
                step += 1
                if step == len(_STEPS):
                    step, power = 0, power * 10
            sum_of_step += count
        bars.append((_STEPS[step] * power, sum_of_step))
        held = [number for number, (_, count) in enumerate(bars) if count]
        return [(end / 1e6, count) for end, count in bars[held[0] : held[-1] + 1]] if held else []

    def to_wire(self) -> dict[str, object]:
        """For JSON: all in seconds."""
        shown: dict[str, object] = {"count": self.count, "mean": self.mean}
        shown |= {name: self.quantile(share) for name, share in QUANTILES.items()}
        return shown | {"max": self.longest, "buckets": [[end, count] for end, count in self.bars()]}


_STEPS = (1, 2, 5)

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
