"""The rules of conftest.py, seen from outside: a small suite is run with it in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NEEDY = """
import pytest

def test_with_a_server():
    pytest.skip("needs a Redis server")

def test_without():
    pass
"""

LEAKY = """
import asyncio, pytest

@pytest.fixture
async def ended_by_its_fixture():
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()

async def test_tidy(ended_by_its_fixture):
    asyncio.create_task(asyncio.sleep(0))

async def test_leaky():
    asyncio.create_task(asyncio.Event().wait(), name="forgotten")
"""


OF_TWO_KINDS = """
import pytest

@pytest.mark.alone
def test_measure():
    assert False

def test_others():
    pass
"""

SPEAKING = """
import logging

def test_says_half_a_character(caplog):
    logging.getLogger("it").warning("half \\ud800")

def test_shows_it():
    logging.getLogger("it").warning("half \\ud800")
    raise RuntimeError("seen")
"""


def run_suite(folder: Path, text: str, *options: str, ci: str = "") -> tuple[int, str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nmarkers = alone\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CI": ci}, timeout=25)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("ci", "status", "options"), [("", 0, ()), ("false", 0, ()), ("true", 1, ()), ("true", 1, ("-n", "2"))])
def test_a_missing_need_is_told_and_fails_only_under_ci(tmp_path: Path, ci: str, status: int, options: tuple[str, ...]) -> None:
    code, output = run_suite(tmp_path, NEEDY, *options, ci=ci)
    assert "1 test(s): needs a Redis server" in output
    assert code == status


def test_another_reason_to_skip_is_no_failure(tmp_path: Path) -> None:
    assert run_suite(tmp_path, NEEDY.replace("needs", "not on this system:"), ci="true")[0] == 0


def test_a_task_left_behind_fails_its_test_only(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path, LEAKY)
    assert code == 1
    assert "2 passed, 1 error" in output and "forgotten" in output and "ERROR" in output.split("test_leaky")[-2]


def test_a_log_with_half_a_character_comes_from_another_process(tmp_path: Path) -> None:
    """The whole run of several processes ended with an internal error."""
    code, output = run_suite(tmp_path, SPEAKING, "-n", "2")
    assert code == 1 and "1 failed, 1 passed" in output and "half \\ud800" in output


def test_what_measures_is_run_alone(tmp_path: Path) -> None:
    folder = tmp_path / "attacks"
    folder.mkdir()
    (folder / "test_time.py").write_text("def test_time(): pass")
    assert "1 passed, 1 deselected" in run_suite(tmp_path, "def test_others(): pass", "-m", "alone")[1]
    assert "1 passed, 1 deselected" in run_suite(tmp_path, "def test_others(): pass", "-m", "not alone")[1]


@pytest.mark.parametrize(
    ("chosen", "status", "counts"),
    [("measure", 1, ["1 failed"]), ("others", 0, ["1 passed"]), ("neither", 5, []), ("e", 1, ["1 passed", "1 failed"])],
)
def test_both_parts_of_a_run_count(tmp_path: Path, chosen: str, status: int, counts: list[str]) -> None:
    """`scripts/test` runs pytest twice."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(Path(__file__).parent.parent / "scripts" / "test", tmp_path / "scripts")
    (tmp_path / "test_it.py").write_text(OF_TWO_KINDS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    command = [str(tmp_path / "scripts" / "test"), sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25)
    assert done.returncode == status, done.stdout + done.stderr
    assert all(count in done.stdout for count in counts)
