"""Contestants take turns, a failure is told and does not end the run, and what is paced is paced by what the fastest reaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.__main__ import choose, parse
from benchmarks.contestants import Contestant
from benchmarks.driver import Driver, describe, run_program, take_turns
from benchmarks.parts import ALL, CURVES, PARTS, WORKS, Load, Part, Point, Program

FIGURES = {"cpu_us": 6.0, "p99_ms": 9.0, "behind": 0.0, "load_busy": 0.5, "server_busy": 0.9, "per_s": 200_000.0}


class Scripted:
    """A driver that measures nothing. `failing`: contestants that do."""

    def __init__(self, *failing: str, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        self.measured: list[tuple[str, Load]] = []
        self._failing = failing

    def measure(self, contestant: Contestant, point: Point) -> dict[str, float]:
        self.measured.append((contestant.name, point.load))
        if contestant.name in self._failing:
            raise RuntimeError("did not start")
        return FIGURES


def run(driver: Scripted, part: Part, names: str = "uws,ours,ws", rounds: int = 1) -> tuple[Any, list[str]]:
    told: list[str] = []
    known = {name: Contestant(name, "raw", []) for name in names.split(",")}
    return take_turns(cast(Driver, driver), part, known, list(known), rounds, told.append), told


def test_contestants_take_turns_at_every_point() -> None:
    driver, loads = Scripted(), [Load(clients=10), Load(clients=20)]
    part = Part("two points", {str(load.clients): Point(load) for load in loads}, ("floor", "ours", "uws"))
    found, told = run(driver, part, rounds=2)
    turn = [(name, load) for load in loads for name in ("ours", "uws")]  # the floor is not there
    assert driver.measured == turn * 2
    assert found.results == {name: {"10": [FIGURES] * 2, "20": [FIGURES] * 2} for name in ("ours", "uws")}
    assert found.loads == {"10": loads[0], "20": loads[1]}
    assert told[0] == "round 1 of 2: ours at 10: 6.00 µs CPU, p99 9.00 ms"


def test_a_failure_is_told_and_the_others_go_on() -> None:
    found, told = run(Scripted("uws"), Part("one", {"1": Point(Load())}, ("uws", "ours")))
    assert found.failures == {"uws": "did not start"} and list(found.results) == ["ours"]
    assert told[0] == "round 1 of 1: uws: failed: did not start"


def test_a_point_may_have_contestants_of_its_own() -> None:
    driver = Scripted()
    run(driver, Part("own", {"a": Point(Load(), only=("ws",)), "b": Point(Load())}, ("uws",)))
    assert [name for name, _ in driver.measured] == ["ws", "uws"]


def test_half_load_is_half_of_what_the_first_pacer_that_is_there_reaches() -> None:
    part = Part("half", {"1000": Point(Load())}, ("ours",), pacers=("uws", "ours"))
    driver = Scripted()
    found, told = run(driver, part)
    assert [(name, load.rate) for name, load in driver.measured] == [("uws", 0), ("ours", 100)]
    assert found.loads["1000"].rate == 100 and "half" in told[0]
    driver = Scripted()
    run(driver, part, "ours")
    assert [(name, load.rate) for name, load in driver.measured] == [("ours", 0), ("ours", 100)]


def test_a_quick_run_is_small() -> None:
    driver = Scripted(is_quick=True)
    run(driver, CURVES["members"])
    assert max(load.clients for _, load in driver.measured) == 500 and max(load.seconds for _, load in driver.measured) < 1


@pytest.mark.parametrize("is_quick", [False, True])
def test_every_room_has_as_many_members_as_any_other(is_quick: bool) -> None:
    """The load refuses anything else."""
    for part in PARTS.values():
        for point in part.points.values():
            load = point.load.shrink() if is_quick else point.load
            assert load.clients * load.joins % load.rooms == 0 and load.joins <= load.rooms


def test_the_load_is_told_all_of_it() -> None:
    words = replace(Load(), rooms=7, payload=64).words()
    assert {"work=fanout", "rooms=7", "payload=64", "clients=1000", "seconds=1.0"} <= set(words)


def test_a_line_tells_what_to_make_of_it() -> None:
    assert describe(FIGURES | {"behind": 3}).endswith("could not keep up")
    assert describe(FIGURES | {"load_busy": 0.95}).endswith("(the load was the bottleneck)")
    assert describe(FIGURES | {"load_busy": 0.95, "server_busy": 0.99}) == describe(FIGURES)
    assert describe({"kb_per_client": 3.51, "open_cpu_us": 199.7}) == "3.5 KB, 200 µs CPU to open"


@pytest.mark.parametrize("words", [["nothing"], ["fanout", "nothing"], ["fanout", "--rounds", "0"], ["--rounds", "x"], []])
def test_a_wrong_command_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(words)
    assert refused.value.code == 2
    told = capsys.readouterr()
    assert "nothing" not in words or "there is no nothing; there are plot, fanout," in told.err


def test_contestants_are_chosen_by_name() -> None:
    known = {"ours": Contestant("ours", "aibos", []), "ws": Contestant("ws", "raw", [])}
    assert choose(None, known) == ["ours", "ws"] and choose("ws", known) == ["ws"]
    with pytest.raises(SystemExit, match="there is no uws; there are ours, ws"):
        choose("ws,uws", known)


def test_every_name_is_there_once() -> None:
    assert len(ALL) == len(set(ALL)) and set(WORKS).isdisjoint(CURVES)
    assert parse(["--all", "--quick", "--results", "elsewhere"]).results == Path("elsewhere")


def test_a_program_gives_what_it_prints(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("import json, sys; sys.exit(3) if 'bad' in sys.argv else print(json.dumps(sys.argv[1:]))")
    program = Program("a title", {"good": [str(script), "a"], "other": [str(script), "bad"]}, quick=["--small"], needs_peers=True, option="--rounds")
    told: list[str] = []
    found = run_program(program, 2, True, tmp_path, told.append)
    assert found.results == {"good": ["a", "--small", "--rounds", "2", "--peers", str(tmp_path)]}
    assert found.failures == {"other": "ended with 3"} and told[0].endswith(f"a --small --rounds 2 --peers {tmp_path}")
    plain = Program("a title", {"": [str(script)]}, quick=["--small"], needs_peers=True)
    assert run_program(plain, 2, False, tmp_path / "nowhere", told.append).results == {"": []}
