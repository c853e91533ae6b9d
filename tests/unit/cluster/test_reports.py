"""What nodes tell of themselves, and how that becomes a list of addresses."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec

from aibos_realtime.backends.nodes import NodeRecord, NodeState
from aibos_realtime.cluster.reports import OwnReport, merge
from aibos_realtime.testing.clock import ManualClock


def record(name: str, url: str | None = "ws://web1:3001", **told: Any) -> NodeRecord:
    return NodeRecord(**{"id": name, "name": name, "url": url, "state": "up", "version": "", "started_at": 0.0, "seen_at": 0.0} | told)


async def test_a_node_tells_how_busy_it_is() -> None:
    clock, state, pool = ManualClock(), "up", [1, 2, 3]

    def now() -> NodeState:
        return "draining" if state == "draining" else "up"

    report = OwnReport(pool=pool, max_connections=10, rooms=["a"], weight=2, state=now, clock=clock)
    assert report() == {"state": "up", "connections": 3, "max_connections": 10, "rooms": 1, "load": 0.0, "weight": 2}
    state = "draining"
    used = time.process_time()
    while time.process_time() < used + 0.05:
        pass
    await clock.advance(1.0)
    told = report()
    assert told["state"] == "draining" and 0.05 <= told["load"] < 1
    assert report()["load"] == told["load"], "over no time nothing can be measured"
    json.dumps(msgspec.to_builtins(record("web-1", **told)))


def test_the_processes_behind_one_address_are_one() -> None:
    [report] = merge([record("web-2", connections=5, load=0.2, weight=2), record("web-1", connections=7, load=0.4)])
    assert (report.url, report.name, report.connections, report.load, report.weight) == ("ws://web1:3001", "web-1", 12, 0.3, 3)
    assert report.instance == "ws://web1:3001" and report.instance.weight == 3


def test_the_least_loaded_comes_first_and_what_is_full_last() -> None:
    reports = merge([
        record("full", "ws://full:1", connections=2, max_connections=2), record("busy", "ws://busy:1", connections=30),
        record("strong", "ws://strong:1", connections=40, weight=4), record("hot", "ws://hot:1", connections=10, load=0.9),
        record("b", "ws://b:1"), record("a", "ws://a:1"),
    ])  # fmt: skip
    assert [report.name for report in reports] == ["a", "b", "strong", "hot", "busy", "full"]


def test_an_address_drains_when_all_behind_it_do() -> None:
    [report] = merge([record("web-1", state="draining", connections=9), record("web-2", connections=1)])
    assert (report.is_draining, report.connections, report.weight) == (False, 1, 1)
    [report] = merge([record("web-1", state="draining", connections=9), record("web-2", state="draining", connections=1)])
    assert (report.is_draining, report.connections) == (True, 10)


def test_what_a_server_tells_of_itself_counts_more_than_what_others_tell() -> None:
    [report] = merge([record("web-1", state="draining", connections=9), record("told", role="instance", weight=5)])
    assert (report.is_draining, report.connections, report.name) == (True, 9, "web-1")
    [report] = merge([record("told", role="instance", weight=5), record("told again", role="instance", weight=5)])
    assert (report.connections, report.weight, report.is_draining, report.is_full) == (None, 5, False, False)


def test_what_is_no_address_is_passed_over() -> None:
    assert merge([record("a", "wss://user@host:1"), record("b", "ws://[::1"), record("c", None)]) == []
