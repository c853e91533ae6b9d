"""What was measured is kept whole, and read as medians and as ratios of one round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.results import Results, read, render, write


def make(**rounds: list[dict[str, float]]) -> Results:
    return Results("fanout", {"results": {name: {"1000": found} for name, found in rounds.items()}})


def test_a_median_is_that_of_the_rounds() -> None:
    results = make(ours=[{"cpu_us": 9.0}, {"cpu_us": 5.0}, {"cpu_us": 6.0}])
    assert results.median("ours", "1000", "cpu_us") == 6
    assert results.median("ours", "1000", "user_us") is None
    assert results.median("ours", "10", "cpu_us") is None
    assert results.median("ws", "1000", "cpu_us") is None
    assert (results.contestants, results.points("ours"), results.points("ws")) == (["ours"], ["1000"], [])


def test_a_ratio_is_that_of_each_round_and_not_of_the_medians() -> None:
    """The machine was three times as slow in the second round: that says nothing of either."""
    results = make(ours=[{"cpu_us": 6.0}, {"cpu_us": 18.0}, {"cpu_us": 6.0}], uws=[{"cpu_us": 5.0}, {"cpu_us": 15.0}, {"cpu_us": 20.0}])
    assert results.ratio("ours", "uws", "1000", "cpu_us") == pytest.approx(1.2)
    assert results.ratio("ours", "ws", "1000", "cpu_us") is None
    assert results.ratio("ours", "uws", "1000", "p99_ms") is None


def test_a_failed_round_is_left_out_of_a_ratio_and_a_zero_too() -> None:
    results = make(ours=[{"cpu_us": 6.0}], uws=[{"cpu_us": 5.0}, {"cpu_us": 15.0}])
    assert results.ratio("ours", "uws", "1000", "cpu_us") == pytest.approx(1.2)
    assert make(ours=[{"cpu_us": 6.0}], uws=[{"cpu_us": 0.0}]).ratio("ours", "uws", "1000", "cpu_us") is None


def test_two_points_are_compared_round_by_round() -> None:
    results = Results("durable", {"results": {"ours": {"ephemeral": [{"cpu_us": 5.0}]}, "ours-sqlite": {"sqlite": [{"cpu_us": 6.0}]}}})
    assert results.ratio("ours-sqlite", "ours", "sqlite", "cpu_us", "ephemeral") == pytest.approx(1.2)


def test_a_server_that_cannot_keep_up_has_no_times() -> None:
    late, good = {"cpu_us": 9.0, "p99_ms": 900.0, "behind": 40.0}, {"cpu_us": 9.0, "p99_ms": 9.0, "behind": 0.0}
    assert make(ours=[late]).median("ours", "1000", "p99_ms") is None
    assert make(ours=[late]).median("ours", "1000", "cpu_us") == 9
    assert make(ours=[late, good]).median("ours", "1000", "p99_ms") is None
    assert make(ours=[late, good, good]).median("ours", "1000", "p99_ms") == 9
    assert make(ours=[good, good], ws=[late, good]).ratio("ours", "ws", "1000", "p99_ms") == 1
    assert make(ours=[good], ws=[late]).ratio("ours", "ws", "1000", "p99_ms") is None


def test_what_is_kept_is_read_again_and_has_a_round_on_each_line(tmp_path: Path) -> None:
    record = {"date": "2026-01-02", "machine": {"cores": 2}, "results": {"ours": {"1": [{"cpu_us": 1.5}, {"cpu_us": 2.5}]}}, "failures": {}}
    path = write(tmp_path / "new", "fanout", record)
    assert path.read_text() == render(record)
    assert json.loads(render(record)) == record
    assert '{"cpu_us": 1.5}' in path.read_text() and '{"cpu_us": 2.5}' in path.read_text()
    (name, results), *more = read(tmp_path / "new").items()
    assert (name, results.part, results.record, more) == ("fanout", "fanout", record, [])
    assert read(tmp_path / "nowhere") == {}
