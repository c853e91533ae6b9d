"""Runs workloads, and says to who counts instructions where each begins and ends: by a call of the C library's `ctermid`, which nobody else calls.

Run as `python -m tests.guard.drive [--named] [NAME …]`, by `measure`. Prints the names, in the order in which they ran, as JSON. Without a counter
around it, it is a check that every workload works. `--named`: each Python function has an entrance of its own (see `where`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Sequence

from aibos_realtime.server.loop import new_event_loop

from .rig import Net, net
from .workloads import WORKLOADS, Work, Workload

mark = os.ctermid


async def drive(names: Sequence[str]) -> None:
    async with net() as running:
        for name in names:
            await run(running, WORKLOADS[name])


async def run(net: Net, workload: Workload) -> None:
    """One workload, between two marks."""
    work = await workload.prepare(net)
    await repeat(work, workload.warm_up)
    before = work.counter()
    mark()
    await repeat(work, workload.steps)
    mark()
    done = work.counter() - before
    if done != workload.steps * work.each:
        raise AssertionError(f"{workload.name}: {workload.steps} steps counted {done}, where {workload.steps * work.each} were expected")


async def repeat(work: Work, steps: int) -> None:
    step = work.step
    if work.is_async:
        for _ in range(steps):
            await step()
    else:
        for _ in range(steps):
            step()


def main() -> None:
    gc.disable()  # no collection is to fall between two marks by chance
    arguments = sys.argv[1:]
    if arguments[:1] == ["--named"]:
        del arguments[0]
        sys.activate_stack_trampoline("perf")  # type: ignore[attr-defined, unused-ignore]  # from CPython 3.12 on
    names = arguments or list(WORKLOADS)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(drive(names))
    print(json.dumps(names))


if __name__ == "__main__":
    main()
