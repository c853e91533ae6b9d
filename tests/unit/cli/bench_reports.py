"""Reports of load processes as a test wants them, for the tests of `bench`."""

from __future__ import annotations

from typing import Any

from aibos_realtime.cli.bench_report import Outcome, Settings
from aibos_realtime.cli.bench_server import NodeUse
from aibos_realtime.load.crew import Result
from aibos_realtime.load.histogram import Histogram, HistogramRecord
from aibos_realtime.load.judge import MembersRecord, RoomRecord
from aibos_realtime.load.plan import Opened, Report, Scenario

BEGAN = 1_700_000_000.0


def durations(*values: int) -> HistogramRecord:
    """Microseconds."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram.to_record()


def settings(scenario: Scenario = Scenario.FANOUT, **more: Any) -> Settings:
    """Four clients of two processes in one room."""
    given = {
        "run": "run_1", "url": "ws://rt.example:3001", "scenario": scenario, "clients": 4, "rooms": ["bench:run_1:0"], "members": 4, "senders": 2,
        "rate": 20.0, "payload": 150, "duration": 10.0, "processes": 2, "codec": "json", "event": "ping", "tokens": "minted", **more,
    }  # fmt: skip
    return Settings(**given)


def room(published: int = 5, sum: int = 50, unknown: int = 0, **more: Any) -> RoomRecord:
    """One process's part of a room in which ten events were published, with two members who got them all."""
    given = {"members": 2, "offset": 10, "count": 10, "sum": 100, "lost": 0, "doubled": 0, "reordered": 0, "is_whole": True, "is_there": True, **more}
    return RoomRecord(published, sum, 10, unknown, 0, [MembersRecord(**given)])


def report(**more: Any) -> Report:
    """Of one process, with nothing wrong."""
    given: dict[str, Any] = {
        "opened": 2, "present": 2, "opening_seconds": 0.5, "seconds": 10.0, "cpu": 2.0, "memory": 30_000_000, "sent": 5, "answered": 5,
        "unanswered": 0, "unsent": 0, "bytes_received": 1000, "reconnects": 0, "resyncs": 0, "errors": {}, "closes": {}, "refusals": {},
        "words": {}, "opening": durations(1000, 2000), "answer": durations(*[500] * 5), "delivery": durations(*[1500] * 20),
        "late": durations(*[50] * 5), "rooms": {0: room()}, **more,
    }  # fmt: skip
    return Report(**given)


def outcome(
    *reports: Report,
    scenario: Scenario = Scenario.FANOUT,
    problem: Opened | None = None,
    is_interrupted: bool = False,
    nodes: list[NodeUse] | None = None,
) -> Outcome:
    """Of a run whose processes said this; where nothing is given, all went well."""
    found = list(reports) or [report(), report()]
    made = Outcome(settings(scenario), Result(found, problem, is_interrupted, BEGAN, BEGAN + 1.0))
    made.nodes = nodes or []
    return made
