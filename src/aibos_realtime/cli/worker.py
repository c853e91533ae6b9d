"""One of the processes of `serve --workers`: a server like any other, on an address that it shares, and a line to the process that began it.

`python -m aibos_realtime.cli.worker PLAN`. What it is told is no secret: those come by the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from .app import end_with
from .logs import LISTENING, LogFormat, LogLevel, set_up_audit_log, set_up_logging
from .serve import Given, make_server, run

READY = b"r"


class Plan(Struct, frozen=True):
    """What a worker is to do. `number`: its own, from 1. `link`: the descriptor of the line to its parent. The rest: see `serve`."""

    number: int
    link: int
    host: str
    port: int
    target: str | None
    config: str | None
    env_file: str | None
    log_format: LogFormat
    log_level: LogLevel
    audit_log: str | None = None


class Link:
    """The line to the parent: it is told when this process serves, and when it ends for whatever reason, so does this one, like by SIGTERM."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def tell_ready(self) -> None:
        """In the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._heard)
        try:
            self._socket.send(READY)
        except OSError:
            pass  # the parent is gone, and `_heard` sees it too

    def close(self) -> None:
        self._socket.close()

    def _heard(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        os.kill(os.getpid(), signal.SIGTERM)


def serve_as_worker(plan: Plan) -> None:
    """Serve until a signal, or the end of the parent. Raises `Failure`."""
    link = Link(plan.link)
    logs = set_up_logging(plan.log_format, plan.log_level)
    set_up_audit_log(plan.audit_log)
    logs.addFilter(lambda record: record.msg != LISTENING)  # the parent says it, once for all

    def mark(record: logging.LogRecord) -> bool:
        record.worker = plan.number
        return True

    logs.addFilter(mark)
    config, env_file = (Path(name) if name is not None else None for name in (plan.config, plan.env_file))
    server, _ = make_server(Given(plan.target, plan.host, plan.port, config, env_file), logs)
    server.listen_on(shared=True)
    try:
        run(server, link.tell_ready, says_stopped=False)
    finally:
        link.close()


if __name__ == "__main__":
    end_with(lambda: serve_as_worker(msgspec.json.decode(sys.argv[1], type=Plan)))
