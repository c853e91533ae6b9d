"""Commands as processes of their own, in a folder and an environment that the test gives. Every wait has a deadline."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

DEADLINE = 15.0
"""Seconds for a process to say or do something; starting one takes half of one."""


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would configure a command, and with `variables`."""
    ours = ("REALTIME_", "JWT_", "REDIS_", "DATABASE_", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"NO_PROXY": "*", "PYTHONPATH": str(Path(__file__).parents[2] / "src")} | variables


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    words = [sys.executable, "-m", "aibos_realtime", *arguments]
    return subprocess.run(
        words, cwd=folder, env=clean_environment(**variables), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE
    )


class Process:
    """A command that runs on. `lines`, `error_lines`: what it has said so far."""

    def __init__(self, folder: Path, *arguments: str, shell: str | None = None, **variables: str) -> None:
        words = ["/bin/sh", "-c", f"exec {shell}"] if shell is not None else [sys.executable, "-m", "aibos_realtime", *arguments]
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(
            words, cwd=folder, env=clean_environment(**variables), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )
        assert self._popen.stdout is not None and self._popen.stderr is not None
        self.lines: list[str] = []
        self.error_lines: list[str] = []
        self._news: queue.Queue[None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=pair) for pair in ((self._popen.stdout, self.lines), (self._popen.stderr, self.error_lines))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                self._news.put(None)

    def wait_for(self, text: str, count: int = 1) -> str:
        """The `count`-th line, of either stream, with this text in it."""
        while len(found := [line for line in (*self.lines, *self.error_lines) if text in line]) < count:
            try:
                self._news.get(timeout=DEADLINE)
            except queue.Empty:
                raise AssertionError(f"{text!r} was not said:\n{self.output}") from None
        return found[count - 1]

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        """Everything said so far."""
        return "\n".join([*self.lines, "— stderr —", *self.error_lines])

    def end(self, number: int | None = signal.SIGINT) -> int:
        """Send a signal, None for none, and wait for the end; returned is the exit code."""
        if number is not None and self._popen.poll() is None:
            self._popen.send_signal(number)
        code = self._popen.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self.end(None)


class Server(Process):
    """`serve` on a free port of 127.0.0.1, ready: `url` is where."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        super().__init__(folder, "serve", *arguments, **variables)
        try:
            found = re.search(r"listening on ([^\s\"]+)", self.wait_for("listening on ws"))
            assert found is not None
            self.url = found[1]
        except BaseException:
            self.__exit__(None, None, None)
            raise


def read_json(lines: list[str]) -> list[dict[str, Any]]:
    """The objects of NDJSON."""
    return [json.loads(line) for line in lines]
