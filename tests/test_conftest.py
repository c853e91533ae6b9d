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


def run_suite(folder: Path, text: str, *, ci: str = "") -> tuple[int, str]:
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CI": ci}, timeout=25)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("false", 0), ("true", 1)])
def test_a_missing_need_is_told_and_fails_only_under_ci(tmp_path: Path, ci: str, status: int) -> None:
    code, output = run_suite(tmp_path, NEEDY, ci=ci)
    assert "1 test(s): needs a Redis server" in output
    assert code == status


def test_another_reason_to_skip_is_no_failure(tmp_path: Path) -> None:
    assert run_suite(tmp_path, NEEDY.replace("needs", "not on this system:"), ci="true")[0] == 0


def test_a_task_left_behind_fails_its_test_only(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path, LEAKY)
    assert code == 1
    assert "2 passed, 1 error" in output and "forgotten" in output and "ERROR" in output.split("test_leaky")[-2]
