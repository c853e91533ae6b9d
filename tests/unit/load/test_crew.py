"""The load processes: real ones, told and listened to; what happens when one dies; and that none outlives its parent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest

from aibos_realtime.load import crew as module
from aibos_realtime.load.crew import Crew, Look, ProcessEnded
from aibos_realtime.load.judge import Verdict
from aibos_realtime.load.plan import Plan
from tests.network.processes import DEADLINE

from .faulty_server import FaultyServer
from .test_fleet import plan_for


def shared_out(plan: Plan, processes: int) -> list[Plan]:
    return [msgspec.structs.replace(plan, clients=plan.clients[first::processes], first=first, every=processes) for first in range(processes)]


async def test_two_processes_do_the_work_of_one() -> None:
    looks: list[Look] = []
    async with FaultyServer() as server:
        plan = plan_for(server.place, clients=6, rooms=2, senders=3, duration=1.0)
        async with asyncio.timeout(DEADLINE):
            result = await Crew(shared_out(plan, 2), looks.append).run()
    verdict = Verdict()
    for room in (0, 1):
        verdict.judge(report.rooms[room] for report in result.reports)
    assert result.problem is None and not result.is_interrupted and result.sent_from is not None and result.began <= result.sent_from
    assert [report.opened for report in result.reports] == [3, 3] and sum(report.answered for report in result.reports) == 200
    assert verdict.is_clean and verdict.count == verdict.expected == 600
    assert all(report.cpu > 0 and report.memory > 1_000_000 for report in result.reports)
    assert looks and sum(one.delivered for one in looks[-1].progress) == 600


async def test_stopped_they_report_what_there_is() -> None:
    async with FaultyServer() as server:
        crew = Crew([plan_for(server.place, duration=600.0)], lambda look: crew.stop() if look.progress[0].delivered else None)
        async with asyncio.timeout(DEADLINE):
            result = await crew.run()
    assert result.is_interrupted and result.problem is None and 0 < result.reports[0].answered < 5000


async def test_a_problem_of_one_ends_all() -> None:
    async with FaultyServer(refuse=lambda attempt: (401, {}, "The token is not valid.") if attempt == 3 else None) as server:
        async with asyncio.timeout(DEADLINE):
            result = await Crew(shared_out(plan_for(server.place), 2), lambda _: None).run()
    assert result.problem is not None and result.problem.kind == "401" and result.sent_from is None
    assert sum(report.sent for report in result.reports) == 0


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """The processes that were begun."""
    found: list[asyncio.subprocess.Process] = []
    begin = module._begin

    async def begin_one() -> asyncio.subprocess.Process:
        found.append(await begin())
        return found[-1]

    monkeypatch.setattr(module, "_begin", begin_one)
    return found


async def test_one_that_dies_is_an_error_and_leaves_none_behind(begun: list[asyncio.subprocess.Process]) -> None:
    def kill_one(look: Look) -> None:
        if look.progress[0].delivered and begun[0].returncode is None:
            begun[0].kill()

    async with FaultyServer() as server:
        with pytest.raises(ProcessEnded, match="ended by itself"):
            async with asyncio.timeout(DEADLINE):
                await Crew(shared_out(plan_for(server.place, duration=600.0), 2), kill_one).run()
    assert [process.returncode is not None for process in begun] == [True, True]


async def test_cancelled_it_leaves_none_behind(begun: list[asyncio.subprocess.Process]) -> None:
    seen = asyncio.Event()
    async with FaultyServer() as server:
        crew = asyncio.create_task(Crew([plan_for(server.place, duration=600.0)], lambda _: seen.set()).run())
        await asyncio.wait_for(seen.wait(), DEADLINE)
        crew.cancel()
        with pytest.raises(asyncio.CancelledError):
            await crew
    assert [process.returncode for process in begun] == [-9]


class TestAProcess:
    def begin(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "aibos_realtime.load.process"]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_without_a_plan_it_ends(self) -> None:
        out, err = self.begin().communicate(timeout=DEADLINE)
        assert (out, err) == (b"", b"")

    async def test_it_ends_with_its_parent(self) -> None:
        async with FaultyServer() as server:
            process = self.begin()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(msgspec.json.encode(plan_for(server.place, duration=600.0)) + b"\n")
            process.stdin.flush()
            line: Any = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), DEADLINE)
            assert line
            process.stdin.close()
            begun = time.monotonic()
            code = await asyncio.wait_for(asyncio.to_thread(process.wait), DEADLINE)
            assert code == 0 and time.monotonic() - begun < DEADLINE
            process.stdout.close()
            assert process.stderr is not None and process.stderr.read() == b""
            process.stderr.close()
