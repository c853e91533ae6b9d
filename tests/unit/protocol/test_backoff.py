from __future__ import annotations

import random
from collections import Counter

from aibos_realtime.protocol.backoff import Backoff


def test_delays_double_up_to_the_limit() -> None:
    backoff = Backoff(random=lambda: 1.0, first=5.0)
    assert [backoff.next_delay() for _ in range(5)] == [5.0, 10.0, 20.0, 20.0, 20.0]


def test_a_first_delay_above_the_limit_is_the_limit() -> None:
    backoff = Backoff(random=lambda: 1.0, first=60.0)
    assert [backoff.next_delay(), backoff.next_delay()] == [60.0, 60.0]


def test_ten_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(random=lambda: 1.0)
    assert {backoff.next_delay() for _ in range(10_000)} == {5.0, 10.0, 20.0}


def test_jitter_is_full_and_even() -> None:
    """Ten thousand clients that were cut off together: the fullest bucket of 100 ms holds at most three times the mean, in every wave."""
    source = random.Random(292)
    clients = [Backoff(random=source.random) for _ in range(10_000)]
    for wave, ceiling in enumerate((5.0, 10.0, 20.0, 20.0)):
        delays = sorted(client.next_delay() for client in clients)
        assert 0 <= delays[0] and delays[-1] <= ceiling
        buckets = Counter(int(delay * 10) for delay in delays)
        assert max(buckets.values()) <= 3 * len(delays) / (ceiling * 10), wave
        # Kolmogorov-Smirnov against the even distribution; 1.63 / sqrt(n) is the bound for p = 0.01.
        distance = max(abs(delay / ceiling - rank / len(delays)) for rank, delay in enumerate(delays))
        assert distance < 1.63 / len(delays) ** 0.5, wave


def test_two_waves_are_not_in_step() -> None:
    source = random.Random(7)
    clients = [Backoff(random=source.random) for _ in range(5_000)]
    waves = [[client.next_delay() for client in clients] for _ in range(2)]
    means = [sum(wave) / len(wave) for wave in waves]
    covariance = sum((a - means[0]) * (b - means[1]) for a, b in zip(*waves, strict=True)) / len(clients)
    deviations = [(sum((value - mean) ** 2 for value in wave) / len(wave)) ** 0.5 for wave, mean in zip(waves, means, strict=True)]
    assert abs(covariance / (deviations[0] * deviations[1])) < 0.05


def test_only_a_stable_connection_starts_the_row_anew() -> None:
    backoff = Backoff(random=lambda: 1.0)
    assert [backoff.next_delay(), backoff.next_delay()] == [5.0, 10.0]
    for now in (100.0, 101.0):
        backoff.connected(now)
        assert not backoff.lost(now + 0.5)
    assert backoff.attempts == 2
    assert backoff.next_delay() == 20.0
    backoff.connected(200.0)
    assert backoff.lost(205.0)
    assert backoff.attempts == 0
    assert backoff.next_delay() == 5.0


def test_losing_what_never_was_changes_nothing() -> None:
    backoff = Backoff(random=lambda: 1.0)
    backoff.next_delay()
    assert not backoff.lost(1e9)
    assert backoff.attempts == 1


def test_what_the_server_asked_for_is_the_least() -> None:
    backoff = Backoff(random=lambda: 0.5, first=4.0)
    assert backoff.next_delay(at_least=30.0) == 32.0


def test_a_planned_delay_lies_within_the_announced_bounds_and_counts() -> None:
    backoff = Backoff(random=lambda: 0.25)
    assert backoff.planned_delay(2.0, 6.0) == 3.0
    assert backoff.attempts == 1


def test_a_server_that_says_to_come_back_at_once_each_time_is_not_hammered() -> None:
    """Clients asked without a pause: the server accepted each connection, announced a delay of 0 to 0 seconds and closed, for ever."""
    backoff = Backoff(random=lambda: 0.5)
    delays = []
    for _ in range(4):
        backoff.connected(0.0)
        backoff.lost(0.1)
        delays.append(backoff.planned_delay(0.0, 0.0))
    assert delays == [0.0, 5.0, 10.0, 10.0]
    assert backoff.planned_delay(3.0, 63.0) == 33.0


def test_a_server_that_closes_at_once_is_not_hammered() -> None:
    """A handshake every time and a close right after it: over ten minutes the mean wait stays near half the limit."""
    source = random.Random(1)
    backoff, now, attempts = Backoff(random=source.random), 0.0, 0
    while now < 600.0:
        backoff.connected(now)
        backoff.lost(now + 0.01)
        now += backoff.next_delay()
        attempts += 1
    assert attempts <= 80
