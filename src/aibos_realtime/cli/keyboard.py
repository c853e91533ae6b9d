"""What is typed on the terminal, one key at a time, without Enter and without being shown. Where stdin is no terminal nothing is ever typed."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from typing import Any


class Keyboard:
    """A context manager: the terminal is as it was afterwards."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> Keyboard:
        if sys.stdin is not None and sys.stdin.isatty():
            self._descriptor = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str:
        """What is typed within a time: "" where nothing is, "q" where the terminal has gone."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return ""
        try:
            return os.read(self._descriptor, 64).decode(errors="replace") or "q"
        except OSError:
            return "q"
