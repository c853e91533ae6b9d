"""The algorithms as plain decisions."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.cluster.choice import BOUND, Choice, Ring, make_choice
from aibos_realtime.cluster.instances import Instance, Standing

A, B, C = (Instance(f"ws://instance{n}:3001") for n in (1, 2, 3))


def standings(*instances: Instance, connections: dict[Instance, int] | None = None) -> list[Standing]:
    found = [Standing(instance, failures=2, successes=2) for instance in instances]
    for standing in found:
        if connections is not None:
            standing.connections, standing.is_reported = connections[standing.instance], True
    return found


def draw(choice: Choice, among: list[Standing], times: int, key: str | None = None) -> list[Instance]:
    return [choice.choose(among, key) for _ in range(times)]


def test_round_robin_goes_in_turn_and_ignores_weights() -> None:
    heavy = Instance("ws://instance1:3001", weight=9)
    assert draw(make_choice("round-robin"), standings(heavy, B, C), 6) == [A, B, C, A, B, C]


def test_round_robin_goes_on_when_one_goes_and_comes_back() -> None:
    choice = make_choice("round-robin")
    assert draw(choice, standings(A, B, C), 1) == [A]
    assert Counter(draw(choice, standings(A, C), 4)) == {A: 2, C: 2}
    assert Counter(draw(choice, standings(A, B, C), 6)) == {A: 2, B: 2, C: 2}


def test_weighted_round_robin_is_smooth() -> None:
    a, b, c = Instance(A, weight=5), Instance(B), Instance(C)
    assert draw(make_choice("weighted-round-robin"), standings(a, b, c), 7) == [A, A, B, A, C, A, A]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_weighted_round_robin_gives_everybody_exactly_his_share(weights: list[int]) -> None:
    among = standings(*(Instance(f"ws://n{n}:1", weight=weight) for n, weight in enumerate(weights)))
    found = Counter(draw(make_choice("weighted-round-robin"), among, 2 * sum(weights)))
    assert [found[standing.instance] for standing in among] == [2 * weight for weight in weights]


def test_least_connections_respects_weights_and_takes_turns_among_equals() -> None:
    choice = make_choice("least-connections")
    assert draw(choice, standings(A, B, C, connections={A: 3, B: 1, C: 2}), 2) == [B, B]
    assert Counter(draw(choice, standings(A, B, C, connections={A: 1, B: 1, C: 9}), 4)) == {A: 2, B: 2}
    twice = Instance(A, weight=2)
    assert draw(choice, standings(twice, B, connections={A: 3, B: 2}), 1) == [A]


def test_random_reaches_all_by_weight() -> None:
    choice = make_choice("random", random.Random(7))
    found = Counter(draw(choice, standings(Instance(A, weight=3), B), 4000))
    assert 2800 < found[A] < 3200


KEYS = [f"tenant_{n}" for n in range(3000)]


def test_a_key_stays_and_only_the_keys_of_one_that_went_move() -> None:
    ring = Ring()
    before = {key: ring.choose(standings(A, B, C), key) for key in KEYS}
    assert {key: ring.choose(standings(C, A, B), key) for key in KEYS} == before
    without = {key: ring.choose(standings(A, C), key) for key in KEYS}
    assert all(without[key] == before[key] for key in KEYS if before[key] != B)
    assert {ring.choose(standings(A, B, C), key) for key in KEYS} == {A, B, C}
    assert {key: Ring().choose(standings(A, B, C), key) for key in KEYS} == before


def test_shares_on_the_ring_are_fair_and_follow_the_weights() -> None:
    even = Counter(Ring().choose(standings(A, B, C), key) for key in KEYS)
    assert all(0.7 < count / 1000 < 1.35 for count in even.values())
    heavy = Counter(Ring().choose(standings(Instance(A, weight=3), B), key) for key in KEYS)
    assert 0.65 < heavy[A] / 3000 < 0.85


def test_every_process_sees_the_same_ring() -> None:
    program = (
        "from aibos_realtime.cluster.choice import Ring; from aibos_realtime.cluster.instances import Instance, Standing\n"
        "among = [Standing(Instance(f'ws://instance{n}:3001'), failures=2, successes=2) for n in (1, 2, 3)]\n"
        "print(*(Ring().choose(among, f'tenant_{n}') for n in range(20)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20).stdout.split()
    assert said == [Ring().choose(standings(A, B, C), key) for key in KEYS[:20]]


def test_the_ring_is_bounded_where_connections_are_reported() -> None:
    ring = Ring()
    key = next(key for key in KEYS if ring.choose(standings(A, B, C), key) == A)
    assert ring.choose(standings(A, B, C, connections={A: 10, B: 10, C: 10}), key) == A
    overloaded = standings(A, B, C, connections={A: 100, B: 10, C: 10})
    elsewhere = ring.choose(overloaded, key)
    assert elsewhere in (B, C)
    assert ring.choose(overloaded, key) == elsewhere
    overloaded[0].is_reported = False
    assert ring.choose(overloaded, key) == A, "what one instance did not tell bounds nothing"


@given(st.lists(st.integers(0, 200), min_size=1, max_size=6), st.text(max_size=20))
def test_the_bound_always_leaves_a_place(loads: list[int], key: str) -> None:
    instances = [Instance(f"ws://n{n}:1") for n in range(len(loads))]
    among = standings(*instances, connections=dict(zip(instances, loads, strict=True)))
    chosen = Ring().choose(among, key)
    assert loads[instances.index(chosen)] <= BOUND * (sum(loads) + 1) / len(loads) + 1


def test_without_a_key_the_ring_takes_turns() -> None:
    assert draw(Ring(), standings(A, B), 4) == [A, B, A, B]


def test_heavy_weights_do_not_make_a_huge_ring() -> None:
    ring = Ring()
    ring.choose(standings(Instance(A, weight=1_000_000), B), "x")
    assert len(ring._points) <= 20_001


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "random", "consistent-hash", "weighted-round-robin"])
def test_a_single_instance_is_always_it(algorithm: str) -> None:
    choice = make_choice(algorithm)  # type: ignore[arg-type]
    assert draw(choice, standings(B), 3, "key") == [B, B, B]
