"""Runs what `parts.py` says: fresh servers for each measurement, the load beside them on a core of its own, contestants in turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jwt

from benchmarks.contestants import ROOT, Contestant
from benchmarks.parts import Load, Part, Point, Program
from benchmarks.processes import SECRET, compile_program, running_nodes, running_redis

Figures = dict[str, float]
PATIENCE = 300.0  # seconds for one measurement
CROWDED = 0.9  # of a core: where the load needs as much as this and more than the server, it is the load that was measured


@dataclass
class Found:
    """What was measured: by contestant and point, the figures of each round; of a program, what each run printed."""

    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)


class Driver:
    """Measures one contestant under one load. `folder`: for the compiled programs."""

    def __init__(self, folder: Path, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        self.floor = compile_program("floor", folder)
        self._load = compile_program("load", folder)
        self._cores = sorted(os.sched_getaffinity(0)) if shutil.which("taskset") else []
        self._tokens: list[str] = []

    def measure(self, contestant: Contestant, point: Point) -> Figures:
        """Raises RuntimeError, which says what failed."""
        with ExitStack() as life:
            folder = Path(life.enter_context(tempfile.TemporaryDirectory(prefix="aibos-bench-")))
            redis_url = life.enter_context(running_redis(folder, self._core(2))) if point.nodes else None
            nodes = life.enter_context(running_nodes(contestant, [self._core(0)] * max(1, point.nodes), redis_url, folder))
            words = [f"dialect={contestant.dialect}", f"ports={_join(node.port for node in nodes)}", f"pids={_join(node.pid for node in nodes)}"]
            if redis_url is not None:
                words.append(f"beside={_ask_pid(redis_url)}")
            if contestant.dialect == "aibos":
                words.append(f"tokens={self._write_tokens(folder, point.load.clients)}")
            return self._run([*words, *point.load.words()])

    def _run(self, words: list[str]) -> Figures:
        core = self._core(1)
        command = [*(["taskset", "-c", core] if core else []), str(self._load), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"took longer than {PATIENCE:g} s") from None
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"the load ended with {done.returncode}"])[-1])
        found: Figures = json.loads(done.stdout)
        return found

    def _core(self, wanted: int) -> str | None:
        """The first is the server's, the second the load's, the third Redis', as far as there are so many. None: wherever there is room."""
        return str(self._cores[min(wanted, len(self._cores) - 1)]) if len(self._cores) > 1 else None

    def _write_tokens(self, folder: Path, number: int) -> Path:
        """A token for each client, of a user of its own."""
        now = int(time.time())
        for index in range(len(self._tokens), number):
            claims = {"sub": f"user-{index}", "role": "user", "iat": now, "exp": now + 7200, "jti": f"bench-{index}"}
            self._tokens.append(jwt.encode(claims, SECRET, "HS256"))
        path = folder / "tokens"
        path.write_text("\n".join(self._tokens[:number]) + "\n")
        return path


def _join(numbers: Any) -> str:
    return ",".join(map(str, numbers))


def _ask_pid(redis_url: str) -> int:
    from redis import Redis

    with Redis.from_url(redis_url) as client:
        told: Any = client.info("server")
    return int(told["process_id"])


def take_turns(driver: Driver, part: Part, known: dict[str, Contestant], chosen: list[str], rounds: int, tell: Callable[[str], None]) -> Found:
    """Every chosen contestant at every point, round after round."""
    found = Found()
    points = {name: replace(point, load=point.load.shrink()) if driver.is_quick else point for name, point in part.points.items()}
    if part.pacers:
        points = {name: replace(point, load=_pace(driver, point.load, part.pacers, known, tell)) for name, point in points.items()}
    found.loads = {name: point.load for name, point in points.items()}
    for number in range(rounds):
        for name, point in points.items():
            for contestant in point.only or part.contestants:
                if contestant not in chosen:
                    continue
                where = f"{contestant} at {name}" if len(points) > 1 else contestant
                try:
                    figures = driver.measure(known[contestant], point)
                except RuntimeError as error:
                    found.failures[where] = str(error)
                    tell(f"round {number + 1} of {rounds}: {where}: failed: {error}")
                else:
                    found.results.setdefault(contestant, {}).setdefault(name, []).append(figures)
                    tell(f"round {number + 1} of {rounds}: {where}: {describe(figures)}")
    return found


def _pace(driver: Driver, load: Load, pacers: tuple[str, ...], known: dict[str, Contestant], tell: Callable[[str], None]) -> Load:
    """The load at half of what the first pacer that is there reaches. Raises RuntimeError where that one fails."""
    pacer = next(name for name in pacers if name in known)
    figures = driver.measure(known[pacer], Point(load))
    rate = round(figures["per_s"] / load.clients / 2, 1)
    tell(f"{pacer} delivers {figures['per_s']:,.0f} a second: {rate:g} events a second are half of it")
    return replace(load, rate=rate)


def describe(figures: Figures) -> str:
    """One line, while it runs."""
    if "cpu_us" not in figures:
        return f"{figures['kb_per_client']:.1f} KB, {figures['open_cpu_us']:.0f} µs CPU to open"
    crowded = figures["load_busy"] > CROWDED and figures["load_busy"] > figures["server_busy"]
    behind = ", could not keep up" if figures["behind"] else ""
    warning = " (the load was the bottleneck)" if crowded else ""
    return f"{figures['cpu_us']:.2f} µs CPU, p99 {figures['p99_ms']:.2f} ms{behind}{warning}"


def run_program(program: Program, rounds: int, is_quick: bool, peers: Path, tell: Callable[[str], None]) -> Found:
    """What each run of it printed, named by the run. What it tells meanwhile goes to the terminal."""
    found = Found()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    for name, arguments in program.runs.items():
        words = [sys.executable, *arguments, *(program.quick if is_quick else [])]
        if program.option:
            words += [program.option, str(rounds)]
        if program.needs_peers and peers.is_dir():
            words += ["--peers", str(peers)]
        tell(" ".join(words[1:]))
        done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            found.results[name] = json.loads(done.stdout)
        except json.JSONDecodeError:
            found.failures[name or arguments[0]] = f"ended with {done.returncode}"
            tell(f"failed: {done.returncode}")
    return found


def as_record(loads: dict[str, Load]) -> dict[str, Any]:
    return {name: asdict(load) for name, load in loads.items()}
