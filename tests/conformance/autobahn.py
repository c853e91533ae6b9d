"""The Autobahn testsuite both ways: against the server's transport, and against what the Python client connects with.

    python -m tests.conformance.autobahn [--peer server] [--peer client] [--all] [--cases '1.*,12.1.*'] [--keep]

Either is a bare echo in a process of its own (`echo_server`, `echo_client`). The suite needs Python 2.7, and is installed once, into a cache
(`suite`). `--keep` writes the result of all cases to docs/explanation/conformance.json, and its tables into the page beside it.
Exit: 0 all cases good, 1 some not, 2 it could not run, 77 skipped (no Python 2.7).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conformance.suite import ALL, QUICK, SUITE, CannotRun, Results, Run, default_cache, find_python27, install

PEERS = ("server", "client")
ACCEPTED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
EXCEPTIONS: dict[str, dict[str, str]] = {
    "server": {},
    "client": {
        "7.1.5": "a close between the fragments of a message: `websockets` answers it with 1002 instead of the close's own code, and documents"
        " that; the connection ends either way"
    },
}
"""Cases that are not passed, and why that is accepted: whoever adds one says whom it harms."""
SKIPPED = 77
NO_PYTHON = "the Autobahn testsuite needs Python 2.7, and there is none on PATH or in ~/.pyenv/versions"
DOCS = Path(__file__).parents[2] / "docs" / "explanation"
KEPT, PAGE = DOCS / "conformance.json", DOCS / "conformance.md"
BEGIN, END = "<!-- results (make nightly) -->", "<!-- end of results -->"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    python = find_python27(options.python)
    if python is None:
        print(f"SKIPPED: {NO_PYTHON}. Nothing is proven or disproven.", file=sys.stderr)
        return SKIPPED
    summaries: dict[str, Any] = {}
    try:
        interpreter = install(python, options.cache)
        for peer in options.peers:
            report: Path = options.report / peer
            run = Run(interpreter, options.cases, report, exclude=options.exclude, timeout=options.timeout)
            summaries[peer] = summary = summarize(attack(run, peer, options.url), EXCEPTIONS[peer])
            (report / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            print(f"{peer}: {summary['passed']} of {summary['cases']}\n\n{table(summary)}\nEvery case: {report / 'index.html'}\n", flush=True)
    except (CannotRun, OSError, subprocess.SubprocessError) as error:
        print(f"CANNOT RUN: {error}", file=sys.stderr)
        return 2
    if options.keep:
        keep(summaries)
    return 0 if all(summary["cases"] and not summary["failed"] for summary in summaries.values()) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    cache = default_cache()
    parser = argparse.ArgumentParser(description="Run the Autobahn testsuite against the server's transport and the client's connection.")
    parser.add_argument("--peer", dest="peers", action="append", choices=PEERS, help="what is attacked; default: both")
    parser.add_argument("--all", action="store_true", help="sections 12 and 13 (compression) too: ten minutes more for each peer")
    parser.add_argument("--cases", default="", help="comma-separated patterns of cases instead")
    parser.add_argument("--exclude", default="", help="comma-separated patterns of cases to leave out")
    parser.add_argument("--url", help="an echo server that runs already, such as ws://127.0.0.1:9001, instead of our own")
    parser.add_argument("--keep", action="store_true", help="with --all: write the results into the docs")
    parser.add_argument("--cache", type=Path, default=cache, help="where the suite is installed once (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="where the reports go (default: CACHE/report); replaced if they are there already")
    parser.add_argument("--python", type=Path, help="a Python 2.7 to use")
    parser.add_argument("--timeout", type=float, default=2700, help="seconds for one peer (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.peers = tuple(dict.fromkeys(options.peers or (("server",) if options.url else PEERS)))
    if options.url and options.peers != ("server",):
        parser.error("--url goes with --peer server")
    if options.keep and (not options.all or options.cases or options.exclude):
        parser.error("--keep goes with --all: what is kept is whole")
    named = _patterns(options.cases)
    options.cases = named or (ALL if options.all else QUICK)
    options.exclude = _patterns(options.exclude)
    options.cache = options.cache.expanduser().absolute()
    options.report = (options.report or options.cache / "report").expanduser().absolute()
    return options


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def attack(run: Run, peer: str, url: str | None = None) -> Results:
    """All results of one peer. Raises `CannotRun`."""
    if peer == "client":
        return run.attack_client([sys.executable, "-m", "tests.conformance.echo_client"], {"WEBSOCKETS_MAX_FRAGMENTS": "100000"})
    if url is not None:
        return run.attack_server(url)
    command = [sys.executable, "-m", "tests.conformance.echo_server"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        said = server.stdout.readline().split()
        if not said:
            raise CannotRun("the echo server did not start")
        results = run.attack_server(said[-1])
        if server.poll() is not None:
            raise CannotRun(f"the echo server ended with {server.returncode}")
        return results
    finally:
        server.kill()
        server.communicate()


def summarize(results: Results, exceptions: dict[str, str]) -> dict[str, Any]:
    """Counts by section and verdict, for the message part and the closing part of the cases, and the cases that are not plainly OK."""
    verdicts = {case: (results[case]["behavior"], results[case]["behaviorClose"]) for case in sorted(results, key=_numbers)}
    failed = {case: list(pair) for case, pair in verdicts.items() if not ACCEPTED.issuperset(pair)}
    sections: dict[str, Counter[str]] = {}
    for case, pair in verdicts.items():
        sections.setdefault(case.split(".")[0], Counter())["FAILED" if case in failed else pair[0]] += 1
    return {
        "suite": SUITE,
        "cases": len(verdicts),
        "passed": len(verdicts) - len(failed),
        "sections": {section: dict(sorted(counts.items())) for section, counts in sections.items()},
        "not strict": [case for case, pair in verdicts.items() if "NON-STRICT" in pair],
        "informational": [case for case, pair in verdicts.items() if "INFORMATIONAL" in pair],
        "exceptions": {case: exceptions[case] for case in failed if case in exceptions},
        "failed": {case: pair for case, pair in failed.items() if case not in exceptions},
    }


def _numbers(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


def table(summary: dict[str, Any]) -> str:
    """The result as Markdown."""
    columns = ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED")
    lines = ["| section | cases | OK | not strict | informational | not passed |", "| --- | --: | --: | --: | --: | --: |"]
    total: Counter[str] = Counter()
    for section, counts in summary["sections"].items():
        total.update(counts)
        figures = [str(counts[column]) if counts.get(column) else "" for column in columns]
        lines.append(f"| {section} | {sum(counts.values())} | {' | '.join(figures)} |")
    lines += [f"| | **{summary['cases']}** | {' | '.join(f'**{total[column]}**' for column in columns)} |", ""]
    lines += [f"{title.capitalize()}: {', '.join(summary[title])}.  " for title in ("not strict", "informational") if summary[title]]
    lines += [f"Not passed: {case}, {reason}.  " for case, reason in summary["exceptions"].items()]
    lines += [f"**Failed: {case}** ({pair[0]}, closing {pair[1]}).  " for case, pair in summary["failed"].items()]
    return "\n".join(lines).rstrip() + "\n"


def tables(kept: dict[str, Any]) -> str:
    """What stands between the marks of the page."""
    names = {"server": "The server's transport", "client": "The Python client's connection"}
    return "\n".join(f"**{names[peer]}: {summary['passed']} of {summary['cases']}.**\n\n{table(summary)}" for peer, summary in kept.items())


def keep(summaries: dict[str, Any]) -> None:
    """Write what was run into the docs, and leave what was not as it is."""
    before = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept = {peer: summary for peer in PEERS if (summary := summaries.get(peer, before.get(peer))) is not None}
    KEPT.write_text(json.dumps(kept, indent=2) + "\n")
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables(kept)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main())
