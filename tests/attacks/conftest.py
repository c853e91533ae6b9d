"""The arena as a fixture, and the table of what every attack cost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.arena import MEGABYTE, Arena, Field, Toll, fought
from tests.attacks.figures import to_json
from tests.faults.processes import Zygote

TOLLS = pytest.StashKey[dict[str, list[Toll]]]()
"""By kind of attack, which is the test file's name."""
FIGURES = "ATTACKS_FIGURES"
"""The environment variable with the file to write the figures to, as JSON."""


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    found = Zygote()
    yield found
    found.close()


@pytest.fixture
def tolls(request: pytest.FixtureRequest) -> list[Toll]:
    """Where a test notes what its attacks cost."""
    kind = request.path.stem.removeprefix("test_").replace("_", " ")
    return request.config.stash.setdefault(TOLLS, {}).setdefault(kind, [])


@pytest.fixture
def arena(zygote: Zygote, tolls: list[Toll]) -> Arena:

    def begin(attack: str, **options: Any) -> AbstractAsyncContextManager[Field]:
        return fought(zygote, tolls, attack, **options)

    return begin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(TOLLS, {})
    tolls = [toll for kind in found.values() for toll in kind]
    if not tolls:
        return
    if FIGURES in os.environ:
        Path(os.environ[FIGURES]).write_text(json.dumps(to_json(found)))
    terminalreporter.section("attacks: what each cost")
    terminalreporter.write_line(f"{'':58} {'attackers':>9} {'MB each':>8} {'loop ms':>8}  canary ms: {'p50':>5} {'p99':>6} {'worst':>6}")
    for toll in tolls:
        times = " ".join(f"{1000 * value:{width}.1f}" for value, width in ((toll.p50, 17), (toll.p99, 6), (toll.slowest, 6)))
        further = "  ".join(f"{name}: {value}" for name, value in toll.figures.items())
        terminalreporter.write_line(
            f"{toll.attack:58.58} {toll.attackers:9,} {toll.memory_each / MEGABYTE:8.2f} {1000 * toll.worst_lag:8.1f} {times}  {further}".rstrip()
        )
