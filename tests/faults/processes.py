"""Child processes that tests kill, pause and fill up: programs forked by a zygote, and a server that comes back on the same port and store.

Every wait has a deadline. Nothing here knows what a server is for: load and verdict are elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.network.processes import clean_environment

DEADLINE = 15.0
"""Seconds for a process to say or do something."""

ROOT = Path(__file__).parents[2]
TRACEBACK = "Traceback (most recent call last)"
MAX_LINES = 20_000


class Zygote:
    """The process that forks the others. For use from one thread or loop after another; it starts at the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._popen: subprocess.Popen[bytes] | None = None

    def fork(self, program: str, options: dict[str, Any], output: int) -> int:
        """Run `main(options)` of a module in a new process; returns its pid. `output`: the descriptor for what it writes."""
        with self._lock:
            if self._control is None:
                self._start()
            assert self._control is not None
            socket.send_fds(self._control, [json.dumps({"program": program, "options": options}).encode()], [output])
            return int(json.loads(self._control.recv(1024)))

    def reap(self, pid: int) -> int:
        """The exit status of a process that has ended; negative: the signal that ended it."""
        with self._lock:
            assert self._control is not None
            self._control.send(json.dumps({"reap": pid}).encode())
            return int(json.loads(self._control.recv(1024)))

    def close(self) -> None:
        """End it and every process that it has forked."""
        if self._control is not None and self._popen is not None:
            self._control.close()
            self._popen.wait(DEADLINE)
            self._control = self._popen = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = clean_environment(PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{ROOT}")
        words = [sys.executable, "-m", "tests.faults.zygote", str(theirs.fileno())]
        with theirs:
            self._popen = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        ours.settimeout(DEADLINE)
        self._control = ours


class Process:
    """A program that runs. `lines`: what it has said so far, on both streams."""

    def __init__(self, zygote: Zygote, pid: int, output: asyncio.StreamReader) -> None:
        self.pid = pid
        self.lines: list[str] = []
        self.status: int | None = None
        self._zygote = zygote
        self._output = output
        self._reaping: asyncio.Future[int] | None = None
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._handle = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._handle, self._note_end)
        self._reading = loop.create_task(self._read(), name=f"output of process {pid}")

    @classmethod
    async def start(cls, zygote: Zygote, program: str, options: dict[str, Any]) -> Self:
        """Fork it, and return at once."""
        read_end, write_end = os.pipe()
        try:
            pid = await asyncio.to_thread(zygote.fork, program, options, write_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        output = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read_end, "rb", buffering=0))
        return cls(zygote, pid, output)

    async def until(self, has_come: Callable[[str], bool] | str, *, after: int = 0) -> str:
        """Wait for a line that fits, or has this text in it, past the first `after` lines. Raises `AssertionError` with the whole output."""
        fits = has_come if callable(has_come) else lambda line: has_come in line
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    for line in self.lines[after:]:
                        if fits(line):
                            return line
                    if self._reading.done():
                        break
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        raise AssertionError("the process did not say what was awaited:\n" + "\n".join(self.lines))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended is past it."""
        if not self._ended.is_set():
            os.kill(self.pid, number)

    def pause(self) -> None:
        """Stop it in its tracks, and return when it stands; its sockets stay open."""
        self.signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        while not self.has_ended and state.read_text().rpartition(")")[2].split()[0] != "T":
            os.sched_yield()

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def limit_files(self, size: int | None) -> None:
        """Let no file grow past `size` bytes: to it, the disk is full (EFBIG). None: there is room again.

        The soft limit of another process of the same user, so it needs no rights; pipes and sockets are no files to it.
        """
        soft = resource.RLIM_INFINITY if size is None else size
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))

    async def kill(self) -> int:
        """End it as a power cut would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        return await self.ended()

    async def terminate(self) -> int:
        """Ask it to end, and wait."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        await self.until_ended()
        if self._reaping is None:  # once, whoever else waits, and whoever gives up waiting
            self._reaping = asyncio.ensure_future(asyncio.to_thread(self._zygote.reap, self.pid))
        self.status = await asyncio.shield(self._reaping)
        return self.status

    async def until_ended(self) -> None:
        """Wait until it is gone and everything that it said is read."""
        async with asyncio.timeout(DEADLINE):
            await self._ended.wait()
            await self._reading

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._ended.set()

    async def _read(self) -> None:
        while line := await self._output.readline():
            if len(self.lines) < MAX_LINES:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
            self._news.set()
        self._news.set()


class Server:
    """`tests.faults.server_program`, or one like it, on one port and one store, as often as it is started. The options are the program's."""

    def __init__(self, zygote: Zygote, database: str, *, program: str = "tests.faults.server_program", **options: Any) -> None:
        self.port = find_free_port()
        self._program = program
        self.lives: list[Process] = []
        self._zygote = zygote
        self._options = {"port": self.port, "database": database, **options}

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        """The one that runs, or ran last."""
        return self.lives[-1]

    async def start(self, **changed: Any) -> None:
        """Start it, and wait until it listens. `changed`: options that are others from now on."""
        self._options |= changed
        self.lives.append(await Process.start(self._zygote, self._program, self._options))
        await self.process.until(lambda line: line == "listening")

    async def kill(self) -> None:
        """`kill -9`."""
        await self.process.kill()

    async def stop(self) -> None:
        """SIGTERM. Raises `AssertionError` where it does not end well."""
        status = await self.process.terminate()
        assert status == 0, f"the server ended with status {status}:\n" + "\n".join(self.process.lines)

    async def ask(self, path: str) -> int:
        """The status that it answers to a GET."""
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            try:
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()

    @property
    def lines(self) -> list[str]:
        """What every life of it has said."""
        return [line for life in self.lives for line in life.lines]

    def check_output(self) -> None:
        """Raise `AssertionError` where a traceback was written."""
        for number, life in enumerate(self.lives, 1):
            if any(TRACEBACK in line for line in life.lines):
                raise AssertionError(f"life {number} of the server wrote a traceback:\n" + "\n".join(life.lines[-80:]))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.lives and not self.process.has_ended:
            self.process.resume()
            await self.process.kill()
        elif self.lives:
            await self.process.ended()
        if error is None:
            self.check_output()


def find_free_port() -> int:
    """A port below 32768, which no outgoing connection takes while its server is away."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
