"""The verdict of the soak: the checker, room by room so that a long run fits into memory; how long each fault was felt; and what nobody may say.

It reads what is written down, and touches nothing that runs.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.faults.checker import Entry, History, Verdict, check
from tests.faults.journal import Acknowledged, Attempt, Delivered, Unknown, read_journals
from tests.faults.load import BOUND_PUBLISHER, BOUND_SUBSCRIBER
from tests.faults.nemesis import Fault
from tests.faults.processes import MAX_LINES, TRACEBACK
from tests.faults.server_program import SECRET
from tests.faults.soak_site import PASSWORD

SECRETS = re.compile("|".join((re.escape(SECRET), re.escape(PASSWORD), r"eyJ[\w-]{8,}\.[\w-]{8,}")))
"""The key, the password of every URL, and any token."""
NEVER = math.inf


def check_rooms(folder: Path, rooms: Sequence[str], log: list[Entry], store: list[Entry] | None, *, may_announce: bool = False) -> Verdict:
    """The checker's verdict of all rooms."""
    whole = Verdict()
    for room in rooms:
        entries = [entry for entry in log if entry.room == room]
        rows = None if store is None else [entry for entry in store if entry.room == room]
        part = check(History(list(read_journals(folder, room)), entries, rows, may_be_late=True, may_announce=may_announce))
        whole.faults += part.faults
        whole.counts.update(part.counts)
        for kind, examples in part.examples.items():
            whole.examples[kind] = (whole.examples[kind] + examples)[:5]
    return whole


@dataclass
class Felt:
    """What clients felt of a fault, in seconds. `refused`: from its beginning until a publisher heard of it, None: none did while it lasted;
    `acknowledged`, `delivered`: from its end until every node did so again. `is_alone`: no other fault was there before all was well again."""

    fault: Fault
    refused: float | None
    acknowledged: float
    delivered: float
    is_alone: bool = False

    @property
    def is_over(self) -> float:
        """The moment."""
        return self.fault.healed + max(self.acknowledged, self.delivered)


@dataclass
class Moments:
    """When things happened, each in order: refusals, acknowledgements at each node, and deliveries at each, with when these were sent."""

    refusals: array[float] = field(default_factory=lambda: array("d"))
    acknowledgements: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    deliveries: dict[str, tuple[array[float], array[float]]] = field(default_factory=lambda: defaultdict(lambda: (array("d"), array("d"))))


def read_moments(folder: Path, rooms: Sequence[str]) -> Moments:
    """Of what was written down. Those who give up soon are not asked when they were refused."""
    refusals: list[float] = []
    acknowledged: dict[str, list[float]] = defaultdict(list)
    delivered: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for room in rooms:
        sent: dict[str, float] = {}
        for record in read_journals(folder, room):  # publishers' journals come first: their names do
            if isinstance(record, Attempt):
                sent.setdefault(record.id, record.at)
            elif isinstance(record, Unknown) and not record.client.startswith("careless"):
                refusals.append(record.at)
            elif isinstance(record, Acknowledged) and record.client.startswith(BOUND_PUBLISHER):
                acknowledged[record.client].append(record.at)
            elif isinstance(record, Delivered) and record.client.startswith(BOUND_SUBSCRIBER):
                delivered[record.client].append((record.at, sent.get(record.id, 0.0)))
    found = Moments(array("d", sorted(refusals)))
    for client, times in acknowledged.items():
        found.acknowledgements[client] = array("d", sorted(times))
    for client, pairs in delivered.items():
        pairs.sort()
        found.deliveries[client] = array("d", (at for at, _ in pairs)), array("d", (sent_at for _, sent_at in pairs))
    return found


def measure(faults: Sequence[Fault], moments: Moments, nodes: int) -> list[Felt]:
    """What clients felt of each fault, in the order of their beginnings."""
    felt = []
    for fault in sorted(faults, key=lambda fault: fault.began):
        first = bisect_left(moments.refusals, fault.began)
        refused = None
        if first < len(moments.refusals) and moments.refusals[first] <= fault.healed:
            refused = moments.refusals[first] - fault.began
        acknowledged = [_first_after(moments.acknowledgements[f"{BOUND_PUBLISHER}{node}"], fault.healed) for node in range(nodes)]
        delivered = [_first_sent_after(*moments.deliveries[f"{BOUND_SUBSCRIBER}{node}"], fault.healed) for node in range(nodes)]
        felt.append(Felt(fault, refused, max(acknowledged), max(delivered)))
    for one in felt:
        one.is_alone = all(other.is_over < one.fault.began or other.fault.began > one.is_over for other in felt if other is not one)
    return felt


def _first_after(times: array[float], end: float) -> float:
    place = bisect_left(times, end)
    return times[place] - end if place < len(times) else NEVER


def _first_sent_after(times: array[float], sent: array[float], end: float) -> float:
    return next((times[place] - end for place in range(bisect_left(times, end), len(times)) if sent[place] >= end), NEVER)


def rows_of(felt: Sequence[Felt]) -> dict[str, dict[str, float | None]]:
    """The table: by kind how often, and what was felt: of those that were alone the median, of all the slowest."""
    by_kind: dict[str, list[Felt]] = defaultdict(list)
    for one in felt:
        by_kind[one.fault.plan.kind].append(one)
    table: dict[str, dict[str, float | None]] = {}
    for kind, ones in sorted(by_kind.items()):
        alone = [one for one in ones if one.is_alone]
        table[kind] = {
            "times": len(ones),
            "refused": sum(one.refused is not None for one in ones),
            "alone": len(alone),
            "refused after": _median(one.refused for one in alone),
            "acknowledging after": _median(one.acknowledged for one in alone),
            "slowest": max((one.acknowledged for one in alone), default=None),
            "delivering after": _median(one.delivered for one in alone),
            "slowest delivery": max((one.delivered for one in alone), default=None),
            "slowest of all": max(max(one.acknowledged, one.delivered) for one in ones),
        }
    return table


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def judge_felt(felt: Sequence[Felt], within: float) -> list[str]:
    """What was not as promised. `within`: seconds from the end of a fault that was alone until every node acknowledges and delivers."""
    found = [f"{one.fault.plan.kind}: {one.fault.complaint}" for one in felt if one.fault.complaint]
    for one in felt:
        took = max(one.acknowledged, one.delivered)
        if took == NEVER or (one.is_alone and took > within):
            found.append(f"{one.fault.plan.kind}, of {one.fault.plan.number}: not every node was back within {within:g} s, but after {took:.1f} s")
    return found


def judge_words(lines: Mapping[str, Sequence[str]]) -> list[str]:
    """What was said that may not be: by name of who said it."""
    found = []
    for name, said in lines.items():
        if tracebacks := sum(TRACEBACK in line for line in said):
            first = next(number for number, line in enumerate(said) if TRACEBACK in line)
            found.append(f"{name} wrote {tracebacks} tracebacks, the first:\n" + "\n".join(said[max(0, first - 3) : first + 60]))
        if leaks := [number for number, line in enumerate(said, 1) if SECRETS.search(line)]:
            found.append(f"{name} told a secret, in {len(leaks)} lines, the first is line {leaks[0]} of its log")
        if len(said) >= MAX_LINES:
            found.append(f"{name} said more than is kept: {len(said)} lines")
    return found
