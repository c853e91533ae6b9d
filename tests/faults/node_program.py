"""The rig's server as one of several nodes: on SIGUSR1 it says how often it has read events from the database."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.faults.processes import Process
from tests.faults.server_program import make_server

READS = "reads of events so far: "


def main(options: dict[str, Any]) -> None:
    """`options`: those of `server_program.make_server`."""
    reads = 0

    def count(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal reads
        reads += statement.lstrip().startswith("SELECT") and "realtime_messages.log_offset" in statement

    def begin() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print(f"{READS}{reads}", flush=True))
        print("listening", flush=True)

    event.listen(Engine, "before_cursor_execute", count)
    make_server(**options).run(on_started=begin)


async def ask_for_reads(process: Process) -> int:
    """How often a node that runs has read events from the database."""
    known = len(process.lines)
    process.signal(signal.SIGUSR1)
    return int((await process.until(READS, after=known)).removeprefix(READS))
