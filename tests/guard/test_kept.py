"""What counts as dearer, with which figures a build is compared, and what `--keep` keeps."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from . import __main__ as command
from . import kept, measure
from .kept import SLACK, SLACK_ELSEWHERE, Builds, compare, renewed

HERE, OTHER = "CPython 3.11.7, GCC 12.2.0 -O3, x86_64", "CPython 3.12.1, GCC 12.2.0 -O3, x86_64"
BUILDS: Builds = {HERE: {"ping": 1.0, "join": 2.0}, OTHER: {"ping": 1.1, "join": 2.2}}


@pytest.mark.parametrize(("cost", "is_dearer", "is_cheaper"), [(1.0, False, False), (1.07, False, False), (1.09, True, False), (0.91, False, True)])
def test_a_path_of_a_build_that_is_kept(cost: float, is_dearer: bool, is_cheaper: bool) -> None:
    (path,) = compare({"ping": cost}, BUILDS, HERE)
    assert (path.is_dearer, path.is_cheaper, path.slack) == (is_dearer, is_cheaper, SLACK)


def test_memory_has_less_slack() -> None:
    (path,) = compare({measure.IDLE_CLIENT: 2100.0}, {HERE: {measure.IDLE_CLIENT: 2000.0}}, HERE)
    assert path.is_dearer


@pytest.mark.parametrize(("here", "nearest"), [("CPython 3.11.2, GCC 12.2.0 -O2, x86_64", 1.0), ("CPython 3.13.0, GCC 12.2.0 -O3, x86_64", 1.1)])
def test_another_build_is_compared_with_the_nearest_and_with_more_slack(here: str, nearest: float) -> None:
    (path,) = compare({"ping": 1.2}, BUILDS, here)
    assert (path.kept, path.slack, path.is_dearer) == (nearest, SLACK_ELSEWHERE, False)
    (path,) = compare({"ping": 1.5}, BUILDS, here)
    assert path.is_dearer


def test_a_path_that_nobody_has_kept_is_a_failure_that_says_so() -> None:
    (path,) = compare({"new": 1.0}, BUILDS, HERE)
    assert path.is_dearer and "nothing is kept" in str(path)


def test_what_is_said_of_a_dearer_path() -> None:
    (path,) = compare({"join": 2.5}, BUILDS, HERE)
    assert str(path) == "join: 2.5, +25% against the 2 that are kept (8% are allowed)"


def test_keeping_moves_the_other_builds_along() -> None:
    after = renewed({"ping": 2.0, "join": 2.01, "new": 5.0}, BUILDS, HERE)
    assert after[HERE] == {"ping": 2.0, "join": 2.0, "new": 5.0}, "what moved by less than 2 % stays"
    assert after[OTHER] == {"ping": pytest.approx(2.2), "join": 2.2}
    assert renewed({"ping": 1.3}, BUILDS, "CPython 3.13.0, x")[OTHER] == BUILDS[OTHER], "a build that is new says nothing of the others"


def test_what_is_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    assert kept.read(path) == {}
    kept.write({HERE: {"ping": 0.123456}}, path)
    assert kept.read(path) == {HERE: {"ping": 0.1235}}


def test_every_path_is_kept_for_every_build() -> None:
    assert kept.read(), "make guard ARGS=--keep"
    for build, costs in kept.read().items():
        assert sorted(costs) == sorted(measure.PATHS), build


def test_the_build_names_interpreter_and_compiler() -> None:
    assert re.fullmatch(r"\w+ 3\.\d+\.\d+\S*, .+, \w+", kept.build())


def test_the_command_compares_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kept.json"
    cost = 1.0
    monkeypatch.setattr(kept, "KEPT", path)
    monkeypatch.setattr(command, "measure", lambda names: {name: cost for name in names})
    assert command.main(["ping"]) == 1 and "DEARER: ping: 1, and nothing is kept for it yet" in capsys.readouterr().err
    assert command.main(["ping", "--keep"]) == 0
    assert json.loads(path.read_text()) == {kept.build(): {"ping": 1.0}}
    assert command.main(["ping"]) == 0
    cost = 1.5
    capsys.readouterr()
    assert command.main(["ping"]) == 1 and "DEARER: ping: 1.5, +50%" in capsys.readouterr().err
    cost = 0.5
    assert command.main(["ping"]) == 0 and "cheaper, well done: ping" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["pong"])
    assert "no path has such a name" in capsys.readouterr().err
    monkeypatch.setattr(os, "environ", os.environ | {"PATH": ""})
    assert command.main(["ping"]) == 2 and "apt install valgrind" in capsys.readouterr().err
