"""What the worst inputs cost: none more than 5 ms of a processor's time for 64 KiB, and twice the size never much more than twice the time.

Three times as long is let pass where the machine is busy, and more on a slower one.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from aibos_realtime.protocol.codec import decode_json

from .worst import BUSY, Case, Cost, cases

CASES = cases()


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    """Of every case, by name; in a process of its own."""
    said = subprocess.run([sys.executable, "-m", "tests.fuzz.worst", "--json"], capture_output=True, text=True, timeout=25, check=True)
    return {name: Cost(**found) for name, found in json.loads(said.stdout).items()}


def complaint(case: Case, cost: Cost) -> str:
    most = BUSY * case.most * cost.slowness
    if cost.whole >= most:
        return f"{cost.whole * 1000:.2f} ms, and at most {most * 1000:.2f}"
    if cost.half is not None and cost.whole >= max(4 * cost.half, most / 2):
        return f"{cost.whole * 1000:.2f} ms, and {cost.half * 1000:.2f} ms for the half: it grows with the square"
    return ""


@pytest.mark.parametrize("name", CASES)
def test_the_worst_inputs(name: str, costs: dict[str, Cost]) -> None:
    assert complaint(CASES[name], costs[name]) == ""


def test_an_input_that_takes_too_long_is_complained_about() -> None:
    case = CASES["json, handle: digits"]
    assert complaint(case, Cost(0.016, 0.008, 1.0)) == "16.00 ms, and at most 15.00"
    assert complaint(case, Cost(0.014, 0.003, 1.0)) == "14.00 ms, and 3.00 ms for the half: it grows with the square"
    assert complaint(case, Cost(0.014, 0.003, 2.0)) == ""


def test_the_largest_floats_are_read_right() -> None:
    assert decode_json(b"[1e308,1]") == [1e308, 1]
