"""Small things that a process can do, for the tests of `processes`."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import Any

PACE = threading.Event()


def main(options: dict[str, Any]) -> None:
    match options["do"]:
        case "speak":
            print(options["words"], flush=True)
            print("to stderr", file=sys.stderr)
        case "fail":
            raise RuntimeError("on purpose")
        case "count":
            for number in itertools.count():
                print(number, flush=True)
                PACE.wait(0.001)
        case "write":
            _write(options["file"])


def _write(name: str) -> None:
    """Append for ever; say of each attempt how it went."""
    with open(name, "ab", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 1000)
                print("written", flush=True)
                PACE.wait(0.001)
            except OSError as error:
                print(f"failed {error.errno}", flush=True)
                PACE.wait(0.001)
