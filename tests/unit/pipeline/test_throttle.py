"""Buckets and strikes, and each limit in the place where it bites."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.pipeline.throttle import SWEEP_EVERY, Bucket, Buckets, LimitOptions, Pace, Strikes, bucket

STEPS = st.lists(st.floats(0, 3), max_size=120)


@given(st.floats(0.1, 200), st.floats(1, 400), STEPS)
def test_a_bucket_never_gives_more_than_burst_and_rate_allow(rate: float, burst: float, steps: list[float]) -> None:
    found, now, given_at = Bucket(rate, burst, 0.0), 0.0, list[float]()
    for step in steps:
        now += step
        wait = found.spend(now)
        assert wait >= 0.0
        if wait == 0.0:
            given_at.append(now)
    for first in range(len(given_at)):
        for last in range(first, len(given_at)):
            assert last - first + 1 <= burst + (given_at[last] - given_at[first]) * rate + 1e-6


@given(st.floats(0.1, 200), st.integers(1, 100))
def test_a_bucket_gives_its_burst_and_then_says_how_long_to_wait(rate: float, burst: int) -> None:
    found = Bucket(rate, burst, 5.0)
    assert [found.spend(5.0) for _ in range(burst)] == [0.0] * burst
    wait = found.spend(5.0)
    assert 0 < wait <= 1 / rate + 1e-9
    assert found.spend(5.0 + wait * 0.5) > 0
    assert found.spend(5.0 + wait + 1e-6) == 0.0


def test_time_that_goes_back_gives_nothing() -> None:
    found = Bucket(1.0, 1.0, 10.0)
    assert found.spend(10.0) == 0.0 and found.spend(5.0) > 0 and found.spend(10.5) > 0 and found.spend(11.0) == 0.0


@given(STEPS)
def test_being_refused_costs_nothing(steps: list[float]) -> None:
    """Who asks all the time gets as much as who asks exactly when there is one."""
    eager, patient, now = Bucket(1.0, 1.0, 0.0), Bucket(1.0, 1.0, 0.0), 0.0
    eager.spend(now)
    patient.spend(now)
    for step in steps:
        now += min(step, 0.2)
        if eager.spend(now) == 0.0:
            assert patient.spend(now) == 0.0


def test_off_and_defaults() -> None:
    assert bucket(None, 5, 0.0) is None
    for rate, burst, factor, expected in ((50, None, 2.0, 100), (10, None, 5.0, 50), (0.1, None, 2.0, 1), (10, 3, 2.0, 3)):
        found = bucket(rate, burst, 0.0, factor)
        assert found is not None and found.burst == expected


def test_strikes_are_counted_within_a_window() -> None:
    strikes = Strikes(3, 10.0)
    assert [strikes.is_out(now) for now in (0.0, 5.0, 10.1, 12.0)] == [False, False, False, True]
    assert not strikes.is_out(1000.0)


def test_the_pace_of_a_connection() -> None:
    pace = Pace(LimitOptions(), 0.0)
    for found, rate, burst in ((pace.messages, 50, 100), (pace.publishes, 10, 20), (pace.control, 10, 20)):
        assert found is not None and (found.rate, found.burst) == (rate, burst)
    assert [pace.bad.is_out(0.0) for _ in range(20)] == [False] * 19 + [True]
    assert [pace.refused.is_out(0.0) for _ in range(50)] == [False] * 49 + [True]
    off = Pace(LimitOptions(messages_per_second=None, publishes_per_second=None, control_frames_per_second=None), 0.0)
    assert off.messages is off.publishes is off.control is None


def test_what_few_connections_need_is_made_when_it_is_needed() -> None:
    pace = Pace(LimitOptions(), 5.0)
    assert [pace._control, pace._bad, pace._refused] == [None, None, None]
    assert pace.bad is pace.bad and pace.refused is pace.refused and pace.bad is not pace.refused
    control = pace.control
    assert control is not None and control is pace.control
    assert [control.spend(5.0) for _ in range(21)] == [0.0] * 20 + [0.1], "the burst, and no more for its having come late"


def test_a_bucket_for_each_address_forgotten_when_it_is_full_again() -> None:
    buckets = Buckets(1.0, 2.0)
    assert [buckets.spend("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0] and buckets.spend("b", 0.0) == 0.0
    buckets.forget(1.0)
    assert len(buckets) == 1
    buckets.forget(2.0)
    assert len(buckets) == 0
    assert Buckets(None, 5).spend("a", 0.0) == 0.0


def test_there_are_never_more_buckets_than_the_capacity() -> None:
    buckets = Buckets(1.0, 1.0, capacity=10)
    for number in range(100):
        assert buckets.spend(str(number), 0.0) == 0.0
        assert len(buckets) <= 10
    assert buckets.spend("99", 0.0) > 0, "the latest are remembered"


def test_buckets_of_those_who_went_are_swept_out() -> None:
    """Hours of churn left a bucket for each address that had ever failed, up to 10,000 of them."""
    buckets = Buckets(1.0, 2.0)
    for number in range(100):
        buckets.spend(f"address {number}", 100.0)
    buckets.spend("another", 100.0 + SWEEP_EVERY)
    assert len(buckets) == 1


def _forget(buckets: Buckets, now: float, sweeps: list[float]) -> None:
    sweeps.append(now)
    Buckets.forget(buckets, now)


def test_a_flood_of_keys_does_not_pay_for_a_sweep_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many addresses as are kept, none of them at rest, every new one looked through all the others."""
    buckets = Buckets(0.01, 1.0, capacity=100)
    sweeps: list[float] = []
    monkeypatch.setattr(buckets, "forget", lambda now: _forget(buckets, now, sweeps))
    for number in range(1000):
        buckets.spend(f"address {number}", 100.0 + number / 100)
    assert len(buckets) == 100 and len(sweeps) == 1


def test_a_rate_below_one_a_minute_still_allows_one() -> None:
    buckets = Buckets(0.5 / 60, 0.5)
    assert buckets.spend("a", 0.0) == 0.0 and buckets.spend("a", 1.0) > 0
