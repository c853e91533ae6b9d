"""A load process: `python -m aibos_realtime.load.process`. Its plan comes by stdin, what it saw goes by stdout (see `plan`).

It ends with its parent: where stdin ends before it is done, so does it, at once.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import suppress

import msgspec

from ..server.loop import new_event_loop, rare_garbage_collection
from .fleet import Fleet
from .plan import Go, Opened, Plan, Progress, Report, Stop

PROGRESS_EVERY = 0.5
"""Seconds."""
LONGEST_LINE = 2**28
"""Bytes: a plan has the token of each client in it."""

_decode = msgspec.json.Decoder(Plan | Go | Stop).decode


class Process:
    """One process, from its plan to its report."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._fleet: Fleet | None = None
        self._go: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        plan = await self._read()
        if not isinstance(plan, Plan):
            return
        fleet = self._fleet = Fleet(plan)
        listening = asyncio.ensure_future(self._listen(asyncio.current_task()))
        telling = asyncio.ensure_future(self._tell_progress(fleet))
        try:
            opened = await fleet.open()
            self._tell(opened)
            if not opened.problem and (at := await self._go) is not None:
                await fleet.run(at)
            self._tell(fleet.progress())
            self._tell(fleet.report())
            await fleet.close()
        finally:
            for task in (listening, telling):
                task.cancel()
            await asyncio.gather(listening, telling, return_exceptions=True)

    async def _read(self) -> Plan | Go | Stop | None:
        line = await self._reader.readline()
        return _decode(line) if line else None

    async def _listen(self, main: asyncio.Task[None] | None) -> None:
        """What the parent says beside the plan."""
        while (told := await self._read()) is not None:
            if isinstance(told, Go) and not self._go.done():
                self._go.set_result(told.at)
            elif isinstance(told, Stop):
                if not self._go.done():
                    self._go.set_result(None)
                if self._fleet is not None:
                    self._fleet.stop()
        if main is not None:
            main.cancel()

    async def _tell_progress(self, fleet: Fleet) -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY)
            self._tell(fleet.progress())

    def _tell(self, message: Opened | Progress | Report) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()


async def run() -> None:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with suppress(BrokenPipeError):  # the parent is gone, and so are we
        await Process(reader).run()


def raise_descriptors() -> None:
    """As many open files as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    raise_descriptors()
    with rare_garbage_collection(), suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
