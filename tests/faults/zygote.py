"""A process with everything imported that forks programs: starting a server then takes milliseconds, and killing it is still killing a process.

Run as `python -m tests.faults.zygote DESCRIPTOR`, by `processes.Zygote`. It takes requests (JSON, one each) on that socket: `{"program", "options"}`
with one descriptor, the program's output, answers the pid; `{"reap": pid}` of one that has ended answers its exit status. It ends, and takes its
children with it, when the socket does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

PRELOADED = (
    "aibos_realtime.server.server", "aibos_realtime.storage.persistence", "aibos_realtime.storage.broker", "aibos_realtime.backends.sql.database",
    "aibos_realtime.backends.sql.schema", "aibos_realtime.backends.sql.events", "sqlalchemy", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql.asyncpg", "asyncpg", "alembic", "uvloop", "fastapi", "starlette.staticfiles",
    "aibos_realtime.backends.sql.queue_rows", "aibos_realtime.backends.redis.queue", "redis.asyncio", "tests.faults.worker_program",
)  # fmt: skip
"""What programs import sooner or later. What is missing here costs time, and nothing else."""

PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    control = socket.socket(fileno=descriptor)
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65_536, 1)
        if not message:
            break
        request = json.loads(message)
        if "reap" in request:
            children.discard(request["reap"])
            answer = os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                run(request["program"], request["options"], descriptors[0])
            children.add(answer)
            os.close(descriptors[0])
        control.send(json.dumps(answer).encode())
    for child in children:
        os.kill(child, signal.SIGKILL)


def run(program: str, options: dict[str, Any], output: int) -> NoReturn:
    """The child: `main(options)` of the module, with its output where it is to go."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.closerange(3, max(nothing, output) + 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        importlib.import_module(program).main(options)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]))
