"""Which Python functions the instructions of a workload go to: `make guard ARGS='--where "ping"'`.

CPython ≥ 3.12 can give each Python function a machine-code entrance of its own, for `perf` to tell them apart by; callgrind tells them apart as well.
Each call costs some 200 instructions more that way, so these figures are there to be compared with each other, and not with what is kept.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Share(NamedTuple):
    """A function: instructions of it and of all that it calls, and how often it is called."""

    function: str
    instructions: int
    calls: int


class Entrances:
    """The map that CPython writes for `perf`: which function an address belongs to."""

    def __init__(self, lines: Iterable[str]) -> None:
        found = sorted((int(at, 16), int(size, 16), name) for at, size, name in (line.split(" ", 2) for line in lines if line.strip()))
        self._starts = [at for at, _, _ in found]
        self._found = found

    def function_at(self, address: int) -> str | None:
        """`Inbound.receive (pipeline/inbound.py)`; None for an address of nobody's."""
        number = bisect_right(self._starts, address) - 1
        if number < 0:
            return None
        at, size, name = self._found[number]
        if address >= at + size:
            return None
        function, _, file = name.strip().removeprefix("py::").rpartition(":")
        return f"{function} ({re.sub('^.*/(src/aibos_realtime|site-packages|python3[.][0-9]+|tests)/', '', file)})"


_FUNCTION = re.compile(r"(c?fn)=\((\d+)\)(?: (.*))?")
_ADDRESS = re.compile(r"0x([0-9a-f]+)")


def shares(profile: Iterable[str], entrances: Entrances) -> list[Share]:
    """The functions in a part of callgrind's output, the dearest first. Its format is in valgrind's manual, "Callgrind Format Specification"."""
    names: dict[str, str] = {}
    instructions: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    current = ""
    called = 0
    for line in profile:
        if match := _FUNCTION.match(line):
            kind, number, name = match.groups()
            if name:
                names[number] = name
            if kind == "fn":
                current = names[number]
        elif line.startswith("calls="):
            called = int(line[6:].split()[0])
        elif line[:1].isdigit() or line[:1] in "+-*":
            cost = line.split()[1:2]
            instructions[current] += int(cost[0]) if cost else 0
            calls[current] += called
            called = 0
    found: dict[str, Share] = {}
    for name, total in instructions.items():
        address = _ADDRESS.match(name)
        function = entrances.function_at(int(address[1], 16)) if address else None
        if function is not None:
            before = found.get(function, Share(function, 0, 0))
            found[function] = Share(function, before.instructions + total, before.calls + calls[name])
    return sorted(found.values(), key=lambda share: -share.instructions)


def read(profile: Path, entrances: Path) -> list[Share]:
    with profile.open(errors="replace") as lines:
        return shares((line.rstrip("\n") for line in lines), Entrances(entrances.read_text().splitlines()))
