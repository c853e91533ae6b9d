"""The processes of `serve --workers`: begun, begun again, replaced and ended. The processes are real, and play a server each."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aibos_realtime.cli import workers as module
from aibos_realtime.cli.serve import Given
from aibos_realtime.cli.workers import Workers
from aibos_realtime.testing.clock import ManualClock

from .conftest import SECRET, Command

PATIENCE = 10.0

PLAYER = """
import os, signal, socket, sys
part, line = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
if part == "fail":
    sys.exit(3)
if part in ("deaf", "stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if part != "deaf":
    line.send(b"r")
line.recv(1)
sys.exit(7)
"""
"""`serve`: until SIGTERM. `fail`: not at all. `deaf`: never says that it serves, and minds no signal. `stubborn`: minds no signal."""


class Play:
    """Which part the next process of each number plays, and what was begun and has ended."""

    def __init__(self) -> None:
        self.parts: dict[int, str] = {}
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.processes: dict[int, list[asyncio.subprocess.Process]] = {}
        self.on_spawn: Callable[[int], None] = lambda number: None

    async def spawn(self, number: int, link: int) -> asyncio.subprocess.Process:
        self.on_spawn(number)
        words = [sys.executable, "-S", "-c", PLAYER, self.parts.get(number, "serve"), str(link)]
        process = await asyncio.create_subprocess_exec(*words, pass_fds=(link,), process_group=0)
        self.processes.setdefault(number, []).append(process)
        self.begun.put_nowait(number)
        return process

    async def next(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.begun.get()

    def pids(self) -> dict[int, int]:
        return {number: several[-1].pid for number, several in self.processes.items()}


class Run:
    """Workers that run."""

    def __init__(self, play: Play, workers: Workers, clock: ManualClock) -> None:
        self.play = play
        self.workers = workers
        self.clock = clock
        self.started = asyncio.Event()
        self.task = asyncio.create_task(workers.run(self.started.set))

    async def until_started(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.started.wait()

    async def end(self) -> int:
        self.workers.stop()
        return await self.code()

    async def code(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.task


@asynccontextmanager
async def running(count: int, play: Play, *, start_patience: float = PATIENCE, stop_patience: float = PATIENCE) -> AsyncIterator[Run]:
    clock = ManualClock()
    run = Run(play, Workers(play.spawn, count, start_patience=start_patience, stop_patience=stop_patience, clock=clock), clock)
    try:
        yield run
    finally:
        run.workers.stop()
        for process in [one for several in play.processes.values() for one in several if one.returncode is None]:
            process.kill()
        await asyncio.gather(run.task, return_exceptions=True)


class _Listener(logging.Handler):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.heard = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.heard.set()


@asynccontextmanager
async def saying(text: str) -> AsyncIterator[None]:
    """Do something, and wait until this is logged."""
    logger = logging.getLogger("aibos_realtime")
    listener, level = _Listener(text), logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield
        async with asyncio.timeout(PATIENCE):
            await listener.heard.wait()
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


async def test_all_serve_before_it_is_said_and_all_end_when_asked() -> None:
    play = Play()
    async with running(3, play) as run:
        await run.until_started()
        assert sorted(play.processes) == [1, 2, 3]
        assert await run.end() == 0
        assert {several[0].returncode for several in play.processes.values()} == {0}


async def test_the_first_that_cannot_begin_is_the_last(caplog: pytest.LogCaptureFixture) -> None:
    play = Play()
    play.parts = {1: "fail", 2: "fail"}
    async with running(2, play) as run:
        assert await run.code() == 3
        assert list(play.processes) == [1] and not run.started.is_set()


async def test_a_later_one_that_cannot_begin_ends_them_all() -> None:
    play = Play()
    play.parts = {3: "fail"}
    async with running(3, play) as run:
        assert await run.code() == 3
        assert not run.started.is_set() and play.processes[1][0].returncode == 0


async def test_one_that_never_serves_is_as_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILED_PATIENCE", 0.1)
    play = Play()
    play.parts = {1: "deaf"}
    async with running(2, play, start_patience=0.2) as run:
        assert await run.code() == 1
        assert play.processes[1][0].returncode in (-signal.SIGKILL, -signal.SIGTERM)  # by the latter, where it had not begun to mind no signal


async def test_another_takes_the_place_of_one_that_died(caplog: pytest.LogCaptureFixture) -> None:
    play = Play()
    async with running(2, play) as run:
        await run.until_started()
        while not play.begun.empty():
            play.begun.get_nowait()
        await run.clock.advance(module.STABLE)
        os.kill(play.pids()[2], signal.SIGKILL)
        assert await play.next() == 2, "at once: it had lasted"
        assert "worker 2" in caplog.text and "ended by itself: SIGKILL" in caplog.text
        assert await run.end() == 0
        assert play.processes[1][0].returncode == 0 and len(play.processes[1]) == 1


async def test_those_that_do_not_last_come_later_and_later() -> None:
    play = Play()
    async with running(1, play) as run:
        await run.until_started()
        await play.next()
        play.parts[1] = "fail"
        os.kill(play.pids()[1], signal.SIGKILL)
        for delay in (0.5, 1.0, 2.0):
            await run.clock.until_planned(delay)
            assert play.begun.empty()
            await run.clock.advance(delay)
            assert await play.next() == 1
        await run.clock.until_planned(4.0)
        play.parts[1] = "serve"
        await run.clock.advance(4.0)
        await play.next()
        assert await run.end() == 0


async def test_they_are_replaced_one_after_the_other_and_each_new_one_serves_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    play = Play()
    states: list[tuple[int, list[bool]]] = []

    def note(number: int) -> None:
        states.append((number, [one.returncode is None for several in play.processes.values() for one in several]))

    async with running(3, play) as run:
        await run.until_started()
        before = play.pids()
        play.on_spawn = note
        async with saying("all workers were replaced"):
            run.workers.roll()
        assert states == [(1, [True] * 3), (2, [False, True, True, True]), (3, [False, True, False, True, True])]
        assert not set(before.values()) & set(play.pids().values())
        assert "ended by itself" not in caplog.text
        assert await run.end() == 0


async def test_a_new_one_that_does_not_serve_costs_no_old_one() -> None:
    play = Play()
    async with running(2, play) as run:
        await run.until_started()
        play.parts = {1: "fail"}
        async with saying("does not serve: the others stay"):
            run.workers.roll()
        assert [several[0].returncode for several in play.processes.values()] == [None, None] and len(play.processes[2]) == 1
        play.parts = {}
        async with saying("all workers were replaced"):
            run.workers.roll()
        assert [several[0].returncode for several in play.processes.values()] == [0, 0]
        assert await run.end() == 0


async def test_one_that_dies_while_it_is_replaced_in_vain_is_still_looked_after() -> None:
    play = Play()
    async with running(2, play) as run:
        await run.until_started()
        play.parts = {1: "fail"}
        play.on_spawn = lambda number: play.processes[1][0].kill()
        async with saying("does not serve: the others stay"):
            run.workers.roll()
        await run.clock.until_planned(0.5)
        play.parts, play.on_spawn = {}, lambda number: None
        await run.clock.advance(0.5)
        while await play.next() != 1 or len(play.processes[1]) < 3:
            pass
        assert await run.end() == 0


async def test_one_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    play = Play()
    play.parts = {2: "stubborn"}
    async with running(2, play, stop_patience=0.2) as run:
        await run.until_started()
        assert await run.end() == 1
        assert play.processes[2][0].returncode == -signal.SIGKILL and "has not ended within 0.2 s: it is killed" in caplog.text


async def test_stopping_while_they_begin() -> None:
    play = Play()
    play.parts = {1: "deaf"}
    async with running(2, play, stop_patience=0.1) as run:
        await play.next()
        await run.end()
        assert not run.started.is_set() and list(play.processes) == [1]


# — the command —


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workers", "2"], "--workers 2: several processes meet in Redis. Set ENABLE_SCALING=true and REDIS_URL"),
        (["--workers", "2", "--demo"], "--demo runs in one process: leave --workers away."),
        (["--workers", "0"], "'--workers'"),
        (["--workers", "2", "ours:server", "--redis-url", "redis://:hunter2@h"], "configured where it is made: leave --redis-url away"),
        (["--demo", "--database-url", "sqlite:///a"], "leave --database-url away"),
    ],
)
def test_what_does_not_fit_is_a_sentence(command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    ended = command("serve", *words)
    assert ended.code == 2 and says in ended.err and "Traceback" not in ended.err and "hunter2" not in ended.err


def test_scaling_without_redis_says_what_to_set(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("ENABLE_SCALING", "true")
    ended = command("serve", "--workers", "2")
    assert ended.code == 2 and "REDIS_URL" in ended.err


def test_urls_of_the_command_line_go_by_the_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("REDIS_DB", "3")
    given = Given(redis_url="redis://:hunter2@h", database_url="postgresql://ann:hunter3@h/d")
    variables = module._environment(given, "web-2")
    assert (variables["REDIS_URL"], variables["DATABASE_URL"]) == (given.redis_url, given.database_url)
    assert variables["INSTANCE_ID"] == "web-2" and "REDIS_DB" not in variables
