"""Memory and descriptors of the soak's nodes, and of the soak itself, once a second: in the beginning, at most, and at the end.

Read from /proc. A node that was killed or does not run is passed over.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.clients import pause
from tests.faults.soak_site import Node

MB = 1_000_000
PERIOD = 1.0
MOST_GROWTH = 32 * MB
"""Bytes by which a node may be larger at the end, when nothing is under way, than it was under load in the beginning."""
MOST_DESCRIPTORS = 40
"""Descriptors by which it may have more."""


@dataclass(frozen=True)
class Size:
    """Of one node at a moment: bytes that are resident, and open descriptors."""

    bytes: int
    descriptors: int


@dataclass
class Memory:
    """What was measured."""

    nodes: Sequence[Node]
    peak: int = 0
    peak_descriptors: int = 0
    beginning: list[Size] = field(default_factory=list)
    end: list[Size] = field(default_factory=list)

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            for size in self._look():
                self.peak = max(self.peak, size.bytes)
                self.peak_descriptors = max(self.peak_descriptors, size.descriptors)
            await pause(PERIOD)

    def note_beginning(self) -> None:
        self.beginning = self._look()

    def note_end(self) -> None:
        self.end = self._look()

    @property
    def complaints(self) -> list[str]:
        first, last = _most(self.beginning), _most(self.end)
        found = []
        if last.bytes - first.bytes > MOST_GROWTH:
            found.append(f"memory: a node had {first.bytes / MB:.0f} MB in the beginning, and {last.bytes / MB:.0f} MB at the end")
        if last.descriptors - first.descriptors > MOST_DESCRIPTORS:
            found.append(f"descriptors: a node had {first.descriptors} in the beginning, and {last.descriptors} at the end")
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "beginning": [size.bytes for size in self.beginning], "peak": self.peak, "end": [size.bytes for size in self.end],
            "descriptors": {
                "beginning": [size.descriptors for size in self.beginning], "peak": self.peak_descriptors,
                "end": [size.descriptors for size in self.end],
            },
            "peak of the soak itself": _own_peak(),
        }  # fmt: skip

    def __str__(self) -> str:
        first, last = (", ".join(f"{size.bytes / MB:.0f}" for size in sizes) for sizes in (self.beginning, self.end))
        counts = ", ".join(str(size.descriptors) for size in self.beginning), ", ".join(str(size.descriptors) for size in self.end)
        return (
            f"memory of the nodes in MB: {first} in the beginning, {self.peak / MB:.0f} at most, {last} at the end; of the soak itself "
            f"{_own_peak() / MB:.0f} at most\ndescriptors: {counts[0]} in the beginning, {self.peak_descriptors} at most, {counts[1]} at the end"
        )

    def _look(self) -> list[Size]:
        return [size for node in self.nodes if (size := _size_of(node.process.pid)) is not None]


def _size_of(pid: int) -> Size | None:
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return Size(pages * resource.getpagesize(), len(os.listdir(folder / "fd")))
    except OSError:
        return None


def _most(sizes: Sequence[Size]) -> Size:
    return Size(max((size.bytes for size in sizes), default=0), max((size.descriptors for size in sizes), default=0))


def _own_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
