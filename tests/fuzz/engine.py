"""One target under atheris, in a process of its own: `python -m tests.fuzz` starts it, and reads what it prints.

What the target raises is written down once for each place it is raised at, and the search goes on. Only `aibos_realtime` is instrumented.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")
"""It has no types, and is not everywhere."""


def main() -> None:
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["aibos_realtime"]):
        from .targets import TARGETS
    target, known, place = TARGETS[name], set[str](), Path(folder)

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except Exception as error:
            if (found := describe(error)) not in known:
                known.add(found)
                path = place / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"FOUND {path}\n{found}", file=sys.stderr, flush=True)

    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def describe(error: BaseException) -> str:
    """What was raised and where, the same for the same mistake: no value of the input."""
    cause = error.__cause__ if error.__cause__ is not None else error
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(cause.__traceback__)[-4:]]
    return f"{type(error).__name__}: {str(error)[:14]!r} from {type(cause).__name__} at {', '.join(frames)}"


main()
