"""The costs that are kept in the repository (`kept.json`), and how a new measurement compares with them.

Costs are in runs of `reference`, so they hold on other interpreters too; not quite, though. So each build of CPython that was measured has
figures of its own, with little slack, and one that was not is compared with the most similar one, with more.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

KEPT = Path(__file__).with_name("kept.json")

SLACK = 0.08
"""Of a build whose figures are kept. The same code costs the same to 0.7 %, run after run; a new version of a library may be a few per cent more."""
SLACK_OF_BYTES = 0.04
"""Of an idle client, likewise: memory moves by 0.8 %, and 8 % would be an object more."""
SLACK_ELSEWHERE = 0.25
"""Of other builds: between those that were compared, 3.11.2 to 3.13.0, one path differed by 16 % and the rest by at most 13 %."""
SAME = 0.02
"""A figure that moved by less is kept as it was: renewing what is kept shows what changed, and nothing else."""

Costs = dict[str, float]
Builds = dict[str, Costs]


class Comparison(NamedTuple):
    """One path: `cost` now, `kept` (None: it is new), and how much dearer it may be."""

    name: str
    cost: float
    kept: float | None
    slack: float

    @property
    def change(self) -> float:
        return 0.0 if self.kept is None else self.cost / self.kept - 1.0

    @property
    def is_dearer(self) -> bool:
        return self.kept is None or self.change > self.slack

    @property
    def is_cheaper(self) -> bool:
        return self.change < -self.slack

    def __str__(self) -> str:
        if self.kept is None:
            return f"{self.name}: {self.cost:.4g}, and nothing is kept for it yet"
        return f"{self.name}: {self.cost:.4g}, {self.change:+.0%} against the {self.kept:.4g} that are kept ({self.slack:.0%} are allowed)"


def build() -> str:
    """What the counts depend on, of the interpreter that runs: `CPython 3.11.7, GCC 12.2.0 -O3, x86_64`."""
    flags = f"{sysconfig.get_config_var('PY_CFLAGS') or ''}"
    level = (re.findall(r"-O\w", flags) or [""])[-1]
    profiled = " profiled" if "--enable-optimizations" in f"{sysconfig.get_config_var('CONFIG_ARGS') or ''}" else ""
    compiler = platform.python_compiler()
    return f"{platform.python_implementation()} {platform.python_version()}, {compiler} {level}{profiled}, {platform.machine()}"


def read(path: Path | None = None) -> Builds:
    path = path or KEPT
    kept: Builds = json.loads(path.read_text()) if path.exists() else {}
    return kept


def compare(costs: Mapping[str, float], builds: Builds, here: str) -> list[Comparison]:
    """Each path with what is kept for it: by this build, else by the most similar one."""
    return [_compare(name, cost, builds, here) for name, cost in costs.items()]


def _compare(name: str, cost: float, builds: Builds, here: str) -> Comparison:
    if name in builds.get(here, {}):
        return Comparison(name, cost, builds[here][name], SLACK_OF_BYTES if name.startswith("bytes") else SLACK)
    others = [other for other in builds if name in builds[other]]
    if not others:
        return Comparison(name, cost, None, SLACK_ELSEWHERE)
    nearest = min(others, key=lambda other: (_distance(here, other), other))
    return Comparison(name, cost, builds[nearest][name], SLACK_ELSEWHERE)


def _distance(here: str, other: str) -> int:
    """Minor versions between two builds."""
    return abs(_minor(here) - _minor(other))


def _minor(build: str) -> int:
    found = re.match(r"\w+ 3\.(\d+)", build)
    return int(found[1]) if found else sys.version_info.minor


def renewed(costs: Mapping[str, float], builds: Builds, here: str) -> Builds:
    """What is to be kept from now on: these costs for this build, and for the others theirs, moved by the same factors."""
    own = builds.get(here, {})
    moved = {name: cost for name, cost in costs.items() if name not in own or abs(cost / own[name] - 1.0) > SAME}
    factors = {name: cost / own[name] for name, cost in moved.items() if name in own}
    after = {build: {name: cost * factors.get(name, 1.0) for name, cost in kept.items()} for build, kept in builds.items()}
    after[here] = own | moved
    return after


def write(builds: Builds, path: Path | None = None) -> None:
    rounded = {build: {name: float(f"{cost:.4g}") for name, cost in kept.items()} for build, kept in sorted(builds.items())}
    (path or KEPT).write_text(json.dumps(rounded, indent=2, ensure_ascii=False) + "\n")
