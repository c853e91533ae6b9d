"""A command on a terminal of its own, as a process. Every wait has a deadline."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.network.processes import DEADLINE, clean_environment


class Terminal:
    """`columns`, `lines`: its size. It is a context manager, so that the command ends with the test."""

    def __init__(self, folder: Path, *arguments: str, columns: int = 160, lines: int = 40, **variables: str) -> None:
        self._near, self._far = pty.openpty()
        fcntl.ioctl(self._far, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = self.settings()
        words = [sys.executable, "-m", "aibos_realtime", *arguments]
        environment = clean_environment(TERM="xterm-256color", PYTHONIOENCODING="utf-8", **variables)
        self._popen = subprocess.Popen(words, cwd=folder, env=environment, stdin=self._far, stdout=self._far, stderr=self._far)
        self._shown = b""

    def settings(self) -> list[Any]:
        """How the terminal is set: echo, lines and so on."""
        return termios.tcgetattr(self._far)

    @property
    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    def wait_for(self, text: str, count: int = 1) -> str:
        """What was shown, once this text was in it so often."""
        end = time.monotonic() + DEADLINE
        while self._shown.count(text.encode()) < count:
            if not select.select([self._near], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} was not shown {count} times:\n{self.shown!r}")
            self._shown += os.read(self._near, 65_536)
        return self.shown

    def forget(self) -> None:
        """Wait from here on for what is shown anew."""
        self._shown = b""

    def press(self, text: str) -> None:
        os.write(self._near, text.encode())

    def end(self, number: int | None) -> tuple[int, str]:
        """Send a signal, None for none, and wait for the end: the exit code, and all that was shown."""
        if number is not None:
            self._popen.send_signal(number)
        end = time.monotonic() + DEADLINE
        while self._popen.poll() is None and time.monotonic() < end:  # what nobody reads would keep it from ending
            self._read_some(0.05)
        code = self._popen.wait(0.1)
        while self._read_some(0.0):
            pass
        return code, self.shown

    def _read_some(self, seconds: float) -> bool:
        if not select.select([self._near], [], [], seconds)[0]:
            return False
        self._shown += os.read(self._near, 65_536)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGKILL)
            self._popen.wait(DEADLINE)
        os.close(self._near)
        os.close(self._far)
