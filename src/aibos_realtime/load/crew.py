"""The load processes of one run, seen from the one that began them: told what to do, listened to, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from .plan import Go, Opened, Plan, Progress, Report, Stop

HEAD_START = 250_000
"""Microseconds from the word to the moment that it names: each process has heard it by then."""
PATIENCE = 30.0
"""Seconds for the processes to report once they were told to stop, or should have."""
_LONGEST_LINE = 2**28

_decode = msgspec.json.Decoder(Progress | Opened | Report).decode
_encode = msgspec.json.encode

Phase = Literal["opening", "running"]


class ProcessEnded(Exception):
    """A load process ended by itself; its own words stand on stderr."""


@dataclass(frozen=True)
class Look:
    """How far the run is. `at`: seconds since it began. `progress`: of each process, the latest."""

    phase: Phase
    at: float
    progress: Sequence[Progress]


@dataclass(frozen=True)
class Result:
    """What came of it. `problem`: why the clients could not all be opened. `began`, `sent_from`: Unix seconds; None where nothing was sent."""

    reports: list[Report]
    problem: Opened | None
    is_interrupted: bool
    began: float
    sent_from: float | None


@dataclass
class _Member:
    process: asyncio.subprocess.Process
    progress: Progress | None = None
    opened: asyncio.Future[Opened] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    reported: asyncio.Future[Report] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Crew:
    """`plans`: one for each process. `show`: called with each news."""

    def __init__(self, plans: Sequence[Plan], show: Callable[[Look], None]) -> None:
        self._plans = plans
        self._show = show
        self._phase: Phase = "opening"
        self._begun = time.monotonic()
        self._members: list[_Member] = []
        self.is_interrupted = False

    async def run(self) -> Result:
        """Raises `ProcessEnded`. Cancelling ends the processes."""
        self._begun, began = time.monotonic(), time.time()
        listeners: list[asyncio.Task[None]] = []
        try:
            for plan in self._plans:
                member = _Member(await _begin())
                self._members.append(member)
                listeners.append(asyncio.create_task(self._listen(member)))
                self._tell(member, plan)
            return await self._conduct(began)
        finally:
            for member in self._members:
                if member.process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.kill(member.process.pid, signal.SIGKILL)  # its own kill() may take the exit code from who waits for that
            await asyncio.gather(*listeners, *(member.process.wait() for member in self._members), return_exceptions=True)
            await asyncio.gather(*(one for member in self._members for one in (member.opened, member.reported)), return_exceptions=True)

    def stop(self) -> None:
        """End early: what there is by then is the result."""
        self.is_interrupted = True
        self._tell_all(Stop())

    async def _conduct(self, began: float) -> Result:
        opened = await asyncio.gather(*(member.opened for member in self._members))
        problem = next((one for one in opened if one.problem), None)
        sent_from = None
        if problem is not None:
            self._tell_all(Stop())
        else:
            self._phase = "running"
            sent_from = time.time() + HEAD_START / 1e6
            self._tell_all(Go((time.monotonic_ns() - self._plans[0].base) // 1000 + HEAD_START))
        reports = list(await asyncio.gather(*(member.reported for member in self._members)))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(member.process.wait() for member in self._members))
        return Result(reports, problem, self.is_interrupted, began, sent_from)

    async def _listen(self, member: _Member) -> None:
        assert member.process.stdout is not None
        try:
            while line := await member.process.stdout.readline():
                told = _decode(line)
                if isinstance(told, Progress):
                    member.progress = told
                    progress = [one.progress for one in self._members if one.progress is not None]
                    self._show(Look(self._phase, time.monotonic() - self._begun, progress))
                elif isinstance(told, Opened):
                    member.opened.set_result(told)
                else:
                    member.reported.set_result(told)
        finally:
            for waited in (member.opened, member.reported):
                if not waited.done():
                    waited.set_exception(ProcessEnded("A load process ended by itself: its own error stands above, or the system killed it."))

    def _tell_all(self, message: Go | Stop) -> None:
        for member in self._members:
            self._tell(member, message)

    def _tell(self, member: _Member, message: Plan | Go | Stop) -> None:
        assert member.process.stdin is not None
        with suppress(ConnectionError):
            member.process.stdin.write(_encode(message) + b"\n")


async def _begin() -> asyncio.subprocess.Process:
    """In a session of its own, so that Ctrl-C reaches the parent alone, which then asks for the reports."""
    pipe = asyncio.subprocess.PIPE
    words = [sys.executable, "-m", "aibos_realtime.load.process"]
    return await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, limit=_LONGEST_LINE, start_new_session=True)
