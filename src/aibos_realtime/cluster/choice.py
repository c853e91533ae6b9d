"""Which of several instances is next: the algorithms, as plain decisions. No network, no clock; chance is given in.

Every choice is made among those that are up, in their configured order. What an algorithm remembers is by URL: instances may come and go.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from math import ceil
from typing import Literal, Protocol

from .instances import Instance, Standing

Algorithm = Literal["round-robin", "least-connections", "random", "consistent-hash", "weighted-round-robin"]

REPLICAS = 100
"""Points on the ring for each unit of weight: the shares are then even within some 10 %."""
MAX_POINTS = 20_000
"""Of a whole ring, whatever the weights are; every instance has one at least."""
BOUND = 1.25
"""How far above its fair share of the connections an instance may be before its keys go on to the next on the ring."""


class Choice(Protocol):
    """One algorithm, with its memory."""

    def choose(self, standings: Sequence[Standing], key: str | None) -> Instance:
        """One of these, of which there is at least one."""


class Turns:
    """In turn: the one whose turn was longest ago. Who comes is next."""

    def __init__(self) -> None:
        self._turn = 0
        self._last: dict[Instance, int] = {}

    def choose(self, standings: Sequence[Standing], key: str | None) -> Instance:
        chosen = min((standing.instance for standing in standings), key=lambda instance: self._last.get(instance, 0))
        self._turn += 1
        self._last[chosen] = self._turn
        if len(self._last) > 2 * len(standings) + 100:
            self._last = dict(sorted(self._last.items(), key=lambda item: item[1])[-len(standings) :])
        return chosen


class WeightedTurns:
    """In turn by weight, and smoothly: 5:1:1 gives a a b a c a a and not five of `a` in a row (the algorithm of nginx)."""

    def __init__(self) -> None:
        self._credit: dict[Instance, int] = {}

    def choose(self, standings: Sequence[Standing], key: str | None) -> Instance:
        weights = {standing.instance: standing.instance.weight for standing in standings}
        credit = self._credit
        if credit.keys() != weights.keys():
            credit = self._credit = dict.fromkeys(weights, 0)
        for instance, weight in weights.items():
            credit[instance] += weight
        chosen = max(weights, key=credit.__getitem__)
        credit[chosen] -= sum(weights.values())
        return chosen


class LeastConnections:
    """The one with the fewest connections for its weight; among equals, in turn."""

    def __init__(self) -> None:
        self._turns = Turns()

    def choose(self, standings: Sequence[Standing], key: str | None) -> Instance:
        least = min(standing.connections / standing.instance.weight for standing in standings)
        return self._turns.choose([s for s in standings if s.connections / s.instance.weight == least], key)


class Chance:
    """Any, by weight."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def choose(self, standings: Sequence[Standing], key: str | None) -> Instance:
        return self._source.choices(standings, [standing.instance.weight for standing in standings])[0].instance


class Ring:
    """Consistent hashing: the same key goes to the same instance, in every process, and only the keys of one that went or came move.

    Where the connections of all are reported, none takes keys beyond `BOUND` times its share: they go on to the next on the ring.
    Without a key: in turn.
    """

    def __init__(self) -> None:
        self._turns = WeightedTurns()
        self._members: tuple[Instance, ...] = ()
        self._points: list[tuple[int, Instance]] = []

    def choose(self, standings: Sequence[Standing], key: str | None) -> Instance:
        if key is None:
            return self._turns.choose(standings, key)
        members = tuple(standing.instance for standing in standings)
        if members != self._members or any(new is not old for new, old in zip(members, self._members, strict=True)):
            self._members, self._points = members, _points(members)
        full = _full(standings)
        start = bisect_right(self._points, _hash(key), key=lambda point: point[0])
        for step in range(len(self._points)):
            instance = self._points[(start + step) % len(self._points)][1]
            if instance not in full:
                return instance
        return self._points[start % len(self._points)][1]


def _points(members: Sequence[Instance]) -> list[tuple[int, Instance]]:
    per_weight = min(REPLICAS, MAX_POINTS / sum(instance.weight for instance in members))
    points = [(_hash(f"{instance}#{n}"), instance) for instance in members for n in range(max(1, int(instance.weight * per_weight)))]
    return sorted(points)


def _full(standings: Sequence[Standing]) -> set[Instance]:
    """Those that have as many connections as their bounded share allows; none where not all have told."""
    if not all(standing.is_reported for standing in standings):
        return set()
    weights = sum(standing.instance.weight for standing in standings)
    load = BOUND * (1 + sum(standing.connections for standing in standings)) / weights
    return {standing.instance for standing in standings if standing.connections >= ceil(load * standing.instance.weight)}


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def make_choice(algorithm: Algorithm, source: random.Random | None = None) -> Choice:
    """The algorithm of a name. `source`: of chance, for `random`."""
    if algorithm == "least-connections":
        return LeastConnections()
    if algorithm == "random":
        return Chance(source or random.Random())
    if algorithm == "consistent-hash":
        return Ring()
    return WeightedTurns() if algorithm == "weighted-round-robin" else Turns()
