"""The Autobahn testsuite as a program: found a Python 2.7 for, installed once into a cache, run in one direction, and its report read.

As a client it attacks a server that echoes; as a server it attacks a client that echoes. Which, and what the result means, is `autobahn`'s.
Its environment is years old: it is bound to this machine's own address, and run against nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv==20.21.1"  # the last line that can still make an environment for Python 2.7
SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13")
QUICK = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
ALL = ("*",)
PORTS = range(23000, 23200)  # below those of outgoing connections
LAUNCH = """
import functools
from autobahntestsuite import fuzzing, wstest
fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
wstest.run()
"""

Results = dict[str, dict[str, Any]]


class CannotRun(Exception):
    """The suite could not be set up or started; says nothing about what it was to test."""


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aibos-realtime" / "autobahn"


def find_python27(given: Path | None = None) -> Path | None:
    """The first candidate that starts: a name on PATH may be a shim with nothing behind it."""
    for candidate in [given] if given else candidates():
        command: list[str | Path] = [candidate, "-c", "import sys; print(sys.version_info[:2])"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.stdout.strip() == "(2, 7)":
            return candidate
    return None


def candidates() -> Iterator[Path]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and (found := shutil.which("python2.7", path=folder)):
            yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(versions.glob("2.7*/bin/python2.7"), reverse=True)


def install(python: Path, cache: Path) -> Path:
    """The interpreter of the suite's environment in the cache, made there first if need be; another run that is installing is waited for."""
    cache.mkdir(parents=True, exist_ok=True)
    environment, tools, stamp = cache / "py27", cache / "tools", cache / "installed"
    interpreter = environment / "bin" / "python"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == SUITE and interpreter.exists():
            return interpreter
        print(f"Installing {SUITE} (once; half a minute)", flush=True)
        stamp.unlink(missing_ok=True)
        for folder in (environment, tools):
            shutil.rmtree(folder, ignore_errors=True)
        _step(sys.executable, "-m", "venv", tools)
        _step(tools / "bin" / "pip", "install", "--quiet", VIRTUALENV)
        _step(tools / "bin" / "virtualenv", "--quiet", "--python", python, environment)
        _step(environment / "bin" / "pip", "install", "--quiet", SUITE)
        stamp.write_text(SUITE)
    return interpreter


def _step(*command: str | Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(f"{Path(command[0]).name} could not be run: {type(error).__name__}") from None
    if done.returncode:
        raise CannotRun(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-2000:]}")


class Run:
    """One run in one direction. `report`: a folder of its own, replaced if it holds a report already; `timeout`: seconds for all of it."""

    def __init__(self, interpreter: Path, cases: tuple[str, ...], report: Path, *, exclude: tuple[str, ...] = (), timeout: float = 2700.0) -> None:
        # The suite waits for ever if it has nothing to do.
        if not any(pattern.split(".")[0] in ("*", *SECTIONS) for pattern in cases):
            raise CannotRun(f"the cases name none of the sections {', '.join(SECTIONS)}")
        self._interpreter = interpreter
        self._cases = cases
        self._exclude = exclude
        self._report = report
        self._timeout = timeout

    def attack_server(self, url: str) -> Results:
        """Run the cases against a server that echoes and allows 32 MiB and 100,000 fragments. Raises `CannotRun`."""
        try:
            socket.create_connection(_address(url), timeout=5).close()
        except OSError as error:
            raise CannotRun(f"nothing listens at the URL ({error})") from None
        suite = self._start("fuzzingclient", {"servers": [{"agent": "peer", "url": url}]})
        return self._finish(suite)

    def attack_client(self, command: list[str], environment: dict[str, str]) -> Results:
        """Run the cases against a client: the command gets the URL as its last argument, takes every case, and asks for the report.

        Raises `CannotRun`.
        """
        port = _free_port()
        url = f"ws://127.0.0.1:{port}"
        suite = self._start("fuzzingserver", {"url": url})
        try:
            self._await_port(suite, port)
            client = subprocess.run([*command, url], env={**os.environ, **environment}, timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"the client did not take all cases within {self._timeout:g} s") from None
        else:
            if client.returncode:
                raise CannotRun(f"the client ended with {client.returncode}")
            return self._finish(suite)
        finally:
            if suite.poll() is None:
                suite.kill()
                suite.wait()

    def _start(self, mode: str, target: dict[str, Any]) -> subprocess.Popen[bytes]:
        report = self._report
        if (report / "specification.json").exists():
            shutil.rmtree(report)
        report.mkdir(parents=True, exist_ok=True)
        cases = {"cases": list(self._cases), "exclude-cases": list(self._exclude), "exclude-agent-cases": {}}
        (report / "specification.json").write_text(json.dumps({"outdir": str(report), **target, **cases}, indent=2))
        command: list[str | Path] = [self._interpreter, "-c", LAUNCH, "-m", mode, "-s", report / "specification.json", "-u", "0"]
        with (report / "suite.log").open("w") as log:
            # In a folder of its own: the suite also writes into the working directory.
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=report)

    def _await_port(self, suite: subprocess.Popen[bytes], port: int) -> None:
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            if suite.poll() is not None:
                break
            with socket.socket() as one:
                one.settimeout(0.2)
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return
            try:
                suite.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
        raise CannotRun(f"the suite does not listen; see {self._report / 'suite.log'}")

    def _finish(self, suite: subprocess.Popen[bytes]) -> Results:
        try:
            code = suite.wait(self._timeout)
        except subprocess.TimeoutExpired:
            suite.kill()
            suite.wait()
            raise CannotRun(f"the suite did not end within {self._timeout:g} s; see {self._report / 'suite.log'}") from None
        index = self._report / "index.json"
        if code or not index.exists():
            raise CannotRun(f"the suite left no report (exit code {code}); see {self._report / 'suite.log'}")
        results: dict[str, Results] = json.loads(index.read_text())
        return results.get("peer", {})


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("ws://").rstrip("/").rpartition(":")
    if not url.startswith("ws://") or not host or not port.isdigit():
        raise CannotRun("the URL must look like ws://127.0.0.1:9001")
    return host, int(port)


def _free_port() -> int:
    begin = os.getpid() % len(PORTS)  # of two runs at once, each begins elsewhere
    port: int
    for port in (*PORTS[begin:], *PORTS[:begin]):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CannotRun(f"no port between {PORTS.start} and {PORTS.stop} is free")
