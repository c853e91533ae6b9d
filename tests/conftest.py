"""What holds for every test: none leaves a task behind, and under CI none may be skipped for something that is missing.

A test that cannot run says so with a reason that begins with "needs ": `pytest.skip("needs a Redis server")`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from aibos_realtime.logs import FLOOD
from tests.servers.postgres import postgres as postgres
from tests.servers.postgres import postgres_url as postgres_url
from tests.servers.postgres import store_url as store_url
from tests.servers.redis import redis_prefix as redis_prefix
from tests.servers.redis import redis_server as redis_server
from tests.servers.redis import redis_servers as redis_servers
from tests.servers.redis_sets import redis_kind as redis_kind
from tests.servers.redis_sets import redis_url_any as redis_url_any
from tests.servers.redis_sets import redis_urls as redis_urls

ALONE = ("attacks", "unit/load", "fuzz/test_worst.py")
"""Folders and files of tests that measure time or memory: nothing else runs beside them."""

# No example fails for being slow: the machine may be busy. Under CI the examples are the same in each run; on a laptop they differ, and find more.
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    alone = [Path(__file__).parent / part for part in ALONE]
    for item in items:
        if any(item.path.is_relative_to(part) for part in alone):
            item.add_marker("alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged and printed goes from one process to another as UTF-8, which half a surrogate is not."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _watch_tasks(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(inspect.unwrap(getattr(request.node, "obj", None) or len)):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    """Set up before every other fixture, so torn down after them all. A task that is just ending has half a second to do so."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=0.5)
    assert not left, f"the test left {len(left)} task(s) running: " + ", ".join(sorted(repr(task) for task in left))


@pytest.fixture(autouse=True)
def _calm_log() -> None:
    """Of what a test logs nothing is left out for what the one before it logged."""
    FLOOD.forget()


@pytest.fixture(autouse=True)
def _no_store_left() -> Iterator[None]:
    """A server that a test runs keeps its events in memory, or in a directory of the test's own: not in the default place."""
    yield
    left = Path("realtime.db")
    if left.exists():
        for path in left.parent.glob(f"{left.name}*"):
            path.unlink()
        pytest.fail("the test ran a server on the default store: give it persistence={'database': {'url': 'memory://'}}")


def _unmet_needs(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    reasons = (report.longrepr[2].removeprefix("Skipped: ") for report in reports if isinstance(report.longrepr, tuple))
    return [reason for reason in reasons if reason.startswith("needs ")]


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _is_ci() and _unmet_needs(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    needs = _unmet_needs(config)
    if needs:
        verdict = "CI=true, so this run has failed" if _is_ci() else "what they cover is unproven on this machine"
        terminalreporter.section("not run", red=True)
        for need in sorted(set(needs)):
            terminalreporter.write_line(f"{needs.count(need)} test(s): {need}")
        terminalreporter.write_line(verdict)
