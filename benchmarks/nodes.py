"""Two nodes on one Redis, under load, side by side with the peers that a user would pick: what a publish and a delivery cost, and how long they take.

    python benchmarks/nodes.py                                     this project alone
    python benchmarks/nodes.py --peers /tmp/peers --install        Socket.IO and python-socketio too, installed below that folder
    python benchmarks/nodes.py latency --only ours --quick         does it run? (its figures mean nothing)
    python benchmarks/nodes.py --json > figures.json               for `scale_model.py`

works    publish        64 clients of one node, each waits for its acknowledgement: CPU of that node per event
         broadcast      the same from the node's own program
         relay          publish, with one member of each room on the other node
         delivery-500   a room of 500 members on one node, the publisher on the other, one event at a time: CPU per delivery; and on one node alone
         delivery-1000
         latency        one event at a time, paced: from sending at one node to reading at the other; and on one node alone
         idle           members that join one room and are silent: CPU and memory of opening, joining and keeping them
         idle-rooms     the same, each in a room of its own
         pass           Redis alone, one event to 50 subscribers of a channel: CPU for each of them

Contestants take turns, each with new processes and an empty Redis, so that a machine that gets slower gets slower for all. The node that is measured
has a core to itself; ratios within one run are what counts. A round of all works with three contestants takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as a script, its neighbours are found

from benchmarks.contestants import ROOT, Contestant, find_contestants, install  # noqa: E402
from benchmarks.nodes_load import Figures, Job  # noqa: E402
from benchmarks.nodes_report import show  # noqa: E402
from benchmarks.processes import SECRET, Node, running_nodes, running_redis  # noqa: E402

DEFAULT = ("ours", "socket.io", "python-socketio")


@dataclass(frozen=True)
class Work:
    """`job`: what the load does. `measured`: which node has a core to itself. `alone`: on a single node without Redis as well.
    `once`: of Redis alone, so it is run with the first contestant only.
    """

    job: dict[str, Any]
    measured: str | None = "member"
    alone: bool = False
    once: bool = False
    quick: dict[str, Any] = field(default_factory=dict)


def _delivery(members: int) -> Work:
    return Work({"work": "delivery", "count": 400, "members": members}, alone=True, quick={"count": 20, "members": members // 10})


def _idle(rooms: int) -> Work:
    quick = {"members": 200, "rooms": min(rooms, 200), "silent": 1.0}
    return Work({"work": "idle", "members": 5_000, "rooms": rooms, "silent": 45.0}, quick=quick)


WORKS = {
    "publish": Work({"work": "publish", "count": 20_000}, measured="publisher", quick={"count": 640}),
    "broadcast": Work({"work": "broadcast", "count": 40_000}, measured="publisher", quick={"count": 640}),
    "relay": Work({"work": "publish", "count": 20_000, "members": 1}, quick={"count": 640}),
    "delivery-500": _delivery(500),
    "delivery-1000": _delivery(1_000),
    "latency": Work({"work": "latency", "count": 2_000, "rate": 200.0}, measured=None, alone=True, quick={"count": 50}),
    "idle": _idle(1),
    "idle-rooms": _idle(5_000),
    "pass": Work({"work": "pass", "count": 2_000, "members": 50}, once=True, quick={"count": 50}),
}
SETTINGS = ("alone", "nodes")  # a single node without Redis; two nodes with it


class Runner:
    """Runs a work with new processes each time."""

    def __init__(self, redis_url: str | None, is_quick: bool) -> None:
        self._redis_url = redis_url
        self.redis: dict[str, str] = {}  # program and version, once there was one
        self._is_quick = is_quick
        self._has_cores = (os.cpu_count() or 1) > 1 and shutil.which("taskset") is not None
        self._others = f"1-{(os.cpu_count() or 1) - 1}"

    def job_of(self, work: str) -> Job:
        given = WORKS[work].job | (WORKS[work].quick if self._is_quick else {})
        return Job(dialect="", publisher=0, member=0, secret=SECRET, **given)

    def run(self, contestant: Contestant, work: str, setting: str) -> Figures:
        """Raises RuntimeError, which says what failed."""
        measured = WORKS[work].measured
        with ExitStack() as life:
            folder = Path(life.enter_context(tempfile.TemporaryDirectory(prefix="aibos-bench-")))
            redis_url, pids = None, {}
            if setting == "nodes":
                if self._redis_url is not None:
                    _empty(self._redis_url)
                redis_url = self._redis_url or life.enter_context(running_redis(folder, self._core(measured is None)))
                told = _ask(redis_url)
                pids["redis"] = _find_pid(told)
                self.redis = {told.get("server_name", "redis"): told.get("valkey_version") or told["redis_version"]}
            roles = ["publisher", "member"] if setting == "nodes" else ["both"]
            cores = [self._core(measured is None, role in (measured, "both")) for role in roles]
            nodes = life.enter_context(running_nodes(contestant, cores, redis_url, folder))
            return self._load(contestant, nodes, pids, redis_url, work)

    def _core(self, is_free: bool, is_measured: bool = False) -> str | None:
        """For taskset; None: wherever there is room."""
        return None if is_free or not self._has_cores else "0" if is_measured else self._others

    def _load(self, contestant: Contestant, nodes: list[Node], pids: dict[str, int], redis_url: str | None, work: str) -> Figures:
        publisher, member = nodes[0], nodes[-1]
        pids = {"publisher": publisher.pid, "member": member.pid} | {name: pid for name, pid in pids.items() if pid}
        job = replace(self.job_of(work), dialect=contestant.dialect, publisher=publisher.port, member=member.port, pids=pids, redis_url=redis_url)
        core = self._core(WORKS[work].measured is None)
        command = [*(["taskset", "-c", core] if core else []), sys.executable, "-m", "benchmarks.nodes_load"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
        done = subprocess.run(command, input=job.to_json(), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
        found: Figures = json.loads(done.stdout)
        return found


def _find_pid(redis: dict[str, Any]) -> int:
    """Of the Redis server, if it runs on this machine; else 0, and its CPU is not measured."""
    try:
        name = Path(f"/proc/{redis['process_id']}/comm").read_text()
    except OSError:
        return 0
    return int(redis["process_id"]) if name.startswith(("redis", "valkey")) else 0


def _ask(redis_url: str) -> dict[str, Any]:
    """What the Redis server says of itself."""
    from redis import Redis

    with Redis.from_url(redis_url) as client:
        found: dict[str, Any] = client.info("server")
    return found


def _empty(redis_url: str) -> None:
    from redis import Redis

    with Redis.from_url(redis_url) as client:
        client.flushdb()


def _is_empty(redis_url: str) -> bool:
    from redis import Redis

    with Redis.from_url(redis_url) as client:
        return bool(client.dbsize() == 0)


def take_turns(runner: Runner, contestants: list[Contestant], works: list[str], rounds: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The medians by contestant, work and setting; and what failed."""
    found: dict[tuple[str, str, str], list[Figures]] = {}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for work in works:
            is_once = WORKS[work].once
            for contestant in contestants[:1] if is_once else contestants:
                for setting in SETTINGS if WORKS[work].alone else ("nodes",):
                    print(f"round {number + 1} of {rounds}: {work}, {contestant.name}, {setting}", file=sys.stderr)
                    try:
                        figures = runner.run(contestant, work, setting)
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        failures[f"{contestant.name}, {work}, {setting}"] = str(error)
                        print(f"  failed: {error}", file=sys.stderr)
                    else:
                        found.setdefault(("Redis" if is_once else contestant.name, work, setting), []).append(figures)
    results: dict[str, Any] = {}
    for (name, work, setting), rows in found.items():
        medians = {figure: statistics.median(row[figure] for row in rows) for figure in rows[0]}
        results.setdefault(name, {}).setdefault(work, {})[setting] = medians
    return results, failures


def choose(names: list[str], known: dict[str, Any], what: str) -> list[str]:
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", help="default: all")
    parser.add_argument("--only", metavar="NAME,…", help=f"contestants; default: {', '.join(DEFAULT)}, as far as they are installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where the peers are installed")
    parser.add_argument("--install", action="store_true", help="install them there first")
    parser.add_argument("--redis", metavar="URL", help="an empty database, which is emptied again for every run; default: a server is started")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = given.peers.resolve() if given.peers else None
    if given.install:
        install(folder or parser.error("--install needs --peers FOLDER"))
    known = {name: one for name, one in find_contestants(folder).items() if one.is_node}
    absent = [] if given.only else [name for name in DEFAULT if name not in known]
    names = choose(given.only.split(","), known, "contestant") if given.only else [name for name in DEFAULT if name in known]
    works = choose(given.works or list(WORKS), WORKS, "work")
    if given.redis and not _is_empty(given.redis):
        raise SystemExit("--redis: this database is not empty")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runner = Runner(given.redis, given.quick)
    results, failures = take_turns(runner, [known[name] for name in names], works, given.rounds)
    figures = {
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "processor": platform.machine()},
        "rounds": given.rounds,
        "quick": given.quick,
        "jobs": {work: {name: value for name, value in asdict(runner.job_of(work)).items() if name in WORKS[work].job} for work in works},
        "payload": runner.job_of("publish").payload,
        "versions": {name: known[name].versions for name in names} | {"Redis": runner.redis},
        "results": results,
        "failures": failures,
        "absent": absent,
    }
    if given.json:
        print(json.dumps(figures, indent=1))
    else:
        show(figures)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
