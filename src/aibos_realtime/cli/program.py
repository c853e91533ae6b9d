"""How this program was called, as a command that can be copied into another terminal of the same folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

NAME = "aibos-realtime"


def program() -> str:
    """`aibos-realtime` where that finds this program, else the path that does: `.venv/bin/aibos-realtime`, `.venv/bin/python -m aibos_realtime`."""
    called = sys.argv[0]
    if called.endswith(os.path.join("aibos_realtime", "__main__.py")):
        return f"{_shortest(sys.executable)} -m aibos_realtime"
    return _shortest(called) if os.path.basename(called).startswith(NAME) else NAME


def _shortest(path: str) -> str:
    """The bare name where PATH leads to this very file, else the path, relative where the file is below the working directory.

    Links are not followed: an environment's `python` is a link to one that knows nothing of the environment.
    """
    absolute = os.path.abspath(path)
    found = shutil.which(os.path.basename(path))
    if found is not None and os.path.abspath(found) == absolute:
        return os.path.basename(path)
    relative = os.path.relpath(absolute)
    if relative.startswith(".."):
        return shlex.quote(absolute)
    return shlex.quote(relative if os.sep in relative else os.path.join(".", relative))
