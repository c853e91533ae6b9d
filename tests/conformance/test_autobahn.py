"""The Autobahn testsuite, both ways, in the cases that take seconds; and that the docs say what the last run of all of them found.

Where there is no Python 2.7, or no registry to install the suite from, its tests are skipped, and the end of the run says so: no fault of a machine.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.autobahn import BEGIN, END, EXCEPTIONS, KEPT, NO_PYTHON, PAGE, PEERS, attack, main, summarize, tables
from tests.conformance.suite import QUICK, CannotRun, Run, default_cache, find_python27, install

SIZES = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}


@pytest.fixture(scope="module")
def interpreter() -> Path:
    python = find_python27()
    if python is None:
        pytest.skip(f"not on this machine: {NO_PYTHON}")
    try:
        return install(python, default_cache())
    except CannotRun as error:
        pytest.skip(f"not on this machine: the Autobahn testsuite could not be installed ({str(error).splitlines()[0]})")


@pytest.fixture(scope="module")
def summaries(interpreter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both at once: each waits a good part of its time."""

    def run(peer: str) -> dict[str, Any]:
        report = tmp_path_factory.mktemp(peer)
        return summarize(attack(Run(interpreter, QUICK, report, timeout=150), peer), EXCEPTIONS[peer])

    with ThreadPoolExecutor() as threads:
        return dict(zip(PEERS, threads.map(run, PEERS), strict=True))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("peer", PEERS)
def test_the_cases_of_seconds(peer: str, summaries: dict[str, Any]) -> None:
    summary = summaries[peer]
    assert summary["failed"] == {}
    assert summary["exceptions"].keys() == EXCEPTIONS[peer].keys(), "an exception that is passed now is none"
    assert {section: sum(counts.values()) for section, counts in summary["sections"].items()} == {
        section: size for section, size in SIZES.items() if section not in ("12", "13")
    }


def test_the_kept_results_are_whole_and_good() -> None:
    kept = json.loads(KEPT.read_text())
    for peer, exceptions in EXCEPTIONS.items():
        summary = kept[peer]
        assert summary["cases"] == 517 and summary["failed"] == {}
        assert summary["passed"] + len(exceptions) == 517 and summary["exceptions"] == exceptions
        assert {section: sum(counts.values()) for section, counts in summary["sections"].items()} == SIZES


def test_the_page_says_what_is_kept() -> None:
    page = PAGE.read_text()
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == tables(json.loads(KEPT.read_text())).strip()
    assert f"{517 - len(EXCEPTIONS['client'])} of 517" in page


def test_a_verdict_that_is_none_of_the_good_ones_fails_the_run() -> None:
    good = {"behavior": "OK", "behaviorClose": "OK"}
    for bad in ({**good, "behavior": "FAILED"}, {**good, "behaviorClose": "WRONG CODE"}, {**good, "behavior": "UNIMPLEMENTED"}):
        summary = summarize({"1.1.1": good, "1.1.2": bad, "7.1.5": bad}, {"7.1.5": "known"})
        assert list(summary["failed"]) == ["1.1.2"] and list(summary["exceptions"]) == ["7.1.5"] and summary["passed"] == 1


def test_without_python_2_7_the_command_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--python", str(tmp_path / "python2.7")]) == 77
    assert "SKIPPED" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--keep"], ["--keep", "--all", "--cases", "1.*"], ["--url", "ws://127.0.0.1:1", "--peer", "client"]])
def test_arguments_that_do_not_go_together(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def test_cases_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="none of the sections"):
        Run(tmp_path, ("8.*",), tmp_path)
