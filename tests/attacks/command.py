"""The command line with many words, variables and folders, one after the other, in processes that are forked with everything imported.

It says a JSON object for each case: `status`, negative for a signal, and `lines`, what was said on both streams.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

PATIENCE = 20
"""Seconds for a command to end."""


def main(options: dict[str, Any]) -> None:
    """`options`: `cases`, each with `words`, `variables` and `folder`."""
    for name in ("app", "checks"):
        importlib.import_module(f"aibos_realtime.cli.{name}")
    for case in options["cases"]:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _run(case, writer)
        os.close(writer)
        with os.fdopen(reader, errors="replace") as output:
            lines = output.read().splitlines()
        print(json.dumps({"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "lines": lines}), flush=True)


def _run(case: dict[str, Any], output: int) -> None:
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)  # those of the parent were of other files
    signal.alarm(PATIENCE)
    os.chdir(case["folder"])
    os.environ.update(case["variables"])
    status = 1
    try:
        from aibos_realtime.cli.app import main as run

        run(case["words"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
