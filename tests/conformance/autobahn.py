"""The Autobahn testsuite against an echo server that is already running: a tool, not a test that pytest collects.

    python tests/conformance/autobahn.py --url ws://127.0.0.1:9001 [--cases '1.*,12.1.*']

The suite needs Python 2.7, found on PATH or among pyenv's; it is installed once, into a cache of its own. The server must echo all messages
and allow 32 MiB and 100,000 fragments. Exit: 0 all cases good, 1 some not, 2 it could not run, 77 skipped (no Python 2.7).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv==20.21.1"  # the last line that can still make an environment for Python 2.7
SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13")
DEFAULT_CASES = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*"
ACCEPTED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
SKIPPED = 77
AGENT = "server"

Results = dict[str, dict[str, Any]]


class CannotRun(Exception):
    """The suite could not be set up or started; says nothing about the server."""


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    python = find_python27(options.python)
    if python is None:
        print("SKIPPED: the Autobahn testsuite needs Python 2.7, and there is none on PATH or in ~/.pyenv/versions.", file=sys.stderr)
        return SKIPPED
    try:
        check_reachable(options.url)
        wstest = install(python, options.cache)
        results = run(wstest, options)
    except (CannotRun, OSError, subprocess.SubprocessError) as error:
        print(f"CANNOT RUN: {error}", file=sys.stderr)
        return 2
    summary = summarize(results)
    (options.report / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (options.report / "summary.md").write_text(as_markdown(summary))
    print(as_markdown(summary))
    print(f"Report of every case: {options.report / 'index.html'}")
    return 0 if summary["total"] and not summary["unaccepted"] else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aibos-realtime" / "autobahn"
    parser = argparse.ArgumentParser(description="Run the Autobahn testsuite against a running echo server.")
    parser.add_argument("--url", required=True, help="the server, such as ws://127.0.0.1:9001")
    parser.add_argument("--cases", default=DEFAULT_CASES, help="comma-separated patterns; default: all but sections 12 and 13 (deflate: ten minutes)")
    parser.add_argument("--exclude", default="", help="comma-separated patterns of cases to leave out")
    parser.add_argument("--cache", type=Path, default=cache, help="where the suite is installed once (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="where the report goes (default: CACHE/report); replaced if it is one already")
    parser.add_argument("--python", type=Path, help="a Python 2.7 to use")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for the whole run (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.cases = [pattern.strip() for pattern in options.cases.split(",") if pattern.strip()]
    options.exclude = [pattern.strip() for pattern in options.exclude.split(",") if pattern.strip()]
    # The suite waits for ever if it has nothing to do.
    if not any(pattern.split(".")[0] in ("*", *SECTIONS) for pattern in options.cases):
        parser.error(f"--cases names none of the sections {', '.join(SECTIONS)}")
    options.cache = options.cache.expanduser().absolute()
    options.report = (options.report or options.cache / "report").expanduser().absolute()
    return options


def find_python27(given: Path | None) -> Path | None:
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


def check_reachable(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or parts.hostname is None:
        raise CannotRun("--url must look like ws://127.0.0.1:9001")
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)), timeout=5).close()
    except OSError as error:
        raise CannotRun(f"nothing listens at the URL ({error})") from None


def install(python: Path, cache: Path) -> Path:
    """The suite's `wstest` in the cache, installed there first if need be; another run that is installing is waited for."""
    cache.mkdir(parents=True, exist_ok=True)
    environment, tools, stamp = cache / "py27", cache / "tools", cache / "installed"
    wstest = environment / "bin" / "wstest"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == SUITE and wstest.exists():
            return wstest
        print(f"Installing {SUITE} (once; half a minute)", flush=True)
        stamp.unlink(missing_ok=True)
        for folder in (environment, tools):
            shutil.rmtree(folder, ignore_errors=True)
        step(sys.executable, "-m", "venv", tools)
        step(tools / "bin" / "pip", "install", "--quiet", VIRTUALENV)
        step(tools / "bin" / "virtualenv", "--quiet", "--python", python, environment)
        step(environment / "bin" / "pip", "install", "--quiet", SUITE)
        stamp.write_text(SUITE)
    return wstest


def step(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise CannotRun(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-2000:]}")


def run(wstest: Path, options: argparse.Namespace) -> Results:
    """Run the cases; the report folder then holds the suite's own pages, its log, and what this returns."""
    report: Path = options.report
    if (report / "fuzzingclient.json").exists():
        shutil.rmtree(report)
    report.mkdir(parents=True, exist_ok=True)
    specification = {
        "outdir": str(report),
        "servers": [{"agent": AGENT, "url": options.url}],
        "cases": options.cases,
        "exclude-cases": options.exclude,
        "exclude-agent-cases": {},
    }
    (report / "fuzzingclient.json").write_text(json.dumps(specification, indent=2))
    with (report / "wstest.log").open("w") as log:
        command: list[str | Path] = [wstest, "-m", "fuzzingclient", "-s", report / "fuzzingclient.json"]
        # In a folder of its own: the suite also writes into the working directory.
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=report, timeout=options.timeout, check=True)
    index = report / "index.json"
    if not index.exists():
        raise CannotRun(f"the suite left no report; see {report / 'wstest.log'}")
    results: dict[str, Results] = json.loads(index.read_text())
    return results.get(AGENT, {})


def summarize(results: Results) -> dict[str, Any]:
    """Counts by behaviour, for the message part and for the closing part of the cases, and the cases that are not plainly OK."""
    sections: dict[str, Counter[str]] = {}
    for case, result in results.items():
        sections.setdefault(case.split(".")[0], Counter())[result["behavior"]] += 1
    ordered = sorted(results, key=lambda case: [int(part) for part in case.split(".")])
    verdicts = {case: (results[case]["behavior"], results[case]["behaviorClose"]) for case in ordered}
    return {
        "suite": SUITE,
        "total": len(results),
        "behavior": dict(Counter(behavior for behavior, _ in verdicts.values())),
        "behaviorClose": dict(Counter(closing for _, closing in verdicts.values())),
        "sections": {section: dict(sections[section]) for section in sorted(sections, key=int)},
        "unaccepted": {case: pair for case, pair in verdicts.items() if not ACCEPTED.issuperset(pair)},
        "not strict": [case for case, pair in verdicts.items() if "NON-STRICT" in pair],
        "informational": [case for case, pair in verdicts.items() if "INFORMATIONAL" in pair],
    }


def as_markdown(summary: dict[str, Any]) -> str:
    names = sorted(summary["behavior"], key=lambda name: (name not in ACCEPTED, name != "OK", name))
    lines = [f"# {summary['suite']}: {summary['total'] - len(summary['unaccepted'])} of {summary['total']} accepted", ""]
    lines += [f"| section | cases | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for section, counts in summary["sections"].items():
        lines.append(f"| {section} | {sum(counts.values())} | {' | '.join(str(counts.get(name, 0)) for name in names)} |")
    lines += ["", "Closing: " + ", ".join(f"{count} {name}" for name, count in summary["behaviorClose"].items())]
    lines += [f"{title.capitalize()}: {', '.join(summary[title])}" for title in ("not strict", "informational") if summary[title]]
    lines += [f"- **{case}**: {behavior}, closing {closing}" for case, (behavior, closing) in summary["unaccepted"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
