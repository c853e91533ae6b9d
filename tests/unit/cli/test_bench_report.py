"""What is made of the reports of load processes: sums, JSON, how the command ends, and what its user is told to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aibos_realtime.cli.bench_report import Outcome, advise, show_seconds, show_url
from aibos_realtime.cli.bench_server import NodeUse
from aibos_realtime.cli.exits import ExitCode
from aibos_realtime.load.plan import Opened, Report, Scenario

from .bench_reports import BEGAN, durations, outcome, report, room

LATENCY = {"count", "mean", "p50", "p90", "p99", "p999", "max", "buckets"}


class TestSums:
    def test_counts_are_added_and_rates_are_of_the_time_of_sending(self) -> None:
        found = outcome()
        assert (found.total("opened"), found.total("answered"), found.delivery.count) == (4, 10, 40)
        assert found.rate(found.verdict.count) == 4.0 and found.verdict.is_clean and found.verdict.expected == found.verdict.count == 40
        assert found.busiest == 0.2 and (found.code, found.failure, found.advice) == (ExitCode.DONE, None, [])

    def test_a_run_that_never_sent_has_no_rate(self) -> None:
        found = outcome(report(seconds=0.0, rooms={}), problem=Opened("no", "429"))
        assert found.rate(10) is None and found.busiest == 0.0


class TestJson:
    def test_its_members_are_pinned(self) -> None:
        shown = json.loads(json.dumps(outcome(nodes=[NodeUse("web-1", 0.5, 10, 4, 40, 1e-6, None, 0.01)]).to_wire()))
        assert list(shown) == [
            "format", "run", "scenario", "url", "startedAt", "seconds", "interrupted", "problem", "settings", "clients", "opening", "messages",
            "answer", "deliveries", "delivery", "load", "servers", "late", "words", "advice",
        ]  # fmt: skip
        assert (shown["format"], shown["startedAt"], shown["scenario"]) == (1, BEGAN, "fanout")
        assert set(shown["settings"]) == {
            "clients", "rooms", "firstRoom", "members", "senders", "rate", "payload", "duration", "processes", "codec", "event", "tokens"
        }  # fmt: skip
        assert set(shown["clients"]) == {"opened", "present", "openingSeconds", "reconnects", "refusals", "closes"}
        assert set(shown["messages"]) == {"sent", "answered", "unanswered", "unsent", "rate", "errors"}
        assert set(shown["deliveries"]) == {
            "expected", "count", "rate", "lost", "doubled", "reordered", "altered", "announced", "resyncs", "bytes"
        }  # fmt: skip
        assert all(set(shown[name]) == LATENCY for name in ("opening", "answer", "delivery", "late"))
        assert shown["load"] == [{"cpu": 0.2, "memory": 30_000_000, "clients": 2}] * 2
        assert set(shown["servers"][0]) == {"node", "cpu", "memory", "connections", "deliveries", "deliveryCpu", "clientMemory", "loopLag"}

    @pytest.mark.parametrize(
        ("scenario", "without"),
        [
            (Scenario.REQUEST, {"deliveries", "delivery"}),
            (Scenario.CONNECT, {"messages", "answer", "deliveries", "delivery"}),
            (Scenario.IDLE, {"messages", "answer", "deliveries", "delivery"}),
        ],
    )
    def test_what_a_scenario_does_not_measure_is_not_there(self, scenario: Scenario, without: set[str]) -> None:
        assert outcome().to_wire().keys() - outcome(scenario=scenario).to_wire().keys() == without

    def test_nothing_measured_is_null(self) -> None:
        shown = outcome(report(opening=durations())).to_wire()["opening"]
        assert shown == {"count": 0, "mean": None, "p50": None, "p90": None, "p99": None, "p999": None, "max": None, "buckets": []}


class TestTheEnd:
    @pytest.mark.parametrize(
        ("reports", "code", "says"),
        [
            ([report(rooms={0: room(lost=1)}), report()], ExitCode.FAILED, "Not every member got every event once and in order"),
            ([report(rooms={0: room(count=9, sum=90)}), report()], ExitCode.FAILED, "see `judged`"),
            ([report(present=1, closes={"4008": 1}), report()], ExitCode.REFUSED, "3 of 4 clients were there at the end"),
            ([report(present=1, closes={"1006": 1}), report()], ExitCode.NO_SERVER, "3 of 4 clients"),
            ([report(opened=1, present=1, refusals={"429": 9}), report()], ExitCode.REFUSED, "3 of 4 clients"),
            ([report(errors={"rate_limited": 3}), report()], ExitCode.REFUSED, "Not everything was answered"),
            ([report(errors={"permission_denied": 3}), report()], ExitCode.PERMISSION, "Not everything was answered"),
            ([report(unanswered=1, rooms={0: room(unknown=1)}), report()], ExitCode.NO_ANSWER, "Not everything was answered"),
        ],
    )
    def test_it_says_what_was_not_as_asked(self, reports: list[Report], code: ExitCode, says: str) -> None:
        failure = outcome(*reports).failure
        assert failure is not None and failure.code is code and says in str(failure)

    def test_what_came_back_is_no_failure(self) -> None:
        found = outcome(report(refusals={"429": 5}, closes={"4001": 1}, reconnects=1), report())
        assert found.failure is None and found.advice

    def test_interrupted(self) -> None:
        failure = outcome(is_interrupted=True).failure
        assert failure is not None and failure.code is ExitCode.INTERRUPTED
        failure = outcome(report(rooms={0: room(lost=1)}), report(), is_interrupted=True).failure
        assert failure is not None and failure.code is ExitCode.FAILED, "what was lost by then was lost"

    @pytest.mark.parametrize(
        ("kind", "words", "code", "says"),
        [
            ("429", "x answered 429: This address has 100 connections, as many as allowed.", ExitCode.REFUSED, "limits.connections_per_address"),
            ("503", "x answered 503: All connections of this server are taken.", ExitCode.REFUSED, "connections.max_connections"),
            ("4504", "The server closed a connection: 4504", ExitCode.REFUSED, "limits.connections_per_user"),
            ("room_full", "The room is full.", ExitCode.REFUSED, "rooms.max_users_per_room"),
            ("401", "x answered 401: The token is not valid.", ExitCode.TOKEN, "2 of 4 clients were let in, and no more: x answered 401"),
            ("network", "No connection to x: Connection refused.", ExitCode.NO_SERVER, "Connection refused."),
        ],
    )
    def test_who_was_not_let_in(self, kind: str, words: str, code: ExitCode, says: str) -> None:
        failure = outcome(report(rooms={}), problem=Opened(words, kind)).failure
        assert failure is not None and failure.code is code and says in str(failure) and ".." not in str(failure) and "  " not in str(failure)


class TestAdvice:
    def said(self, **more: Any) -> str:
        return " ".join(outcome(report(**more), report()).advice)

    def test_each_thing_once_and_by_its_option(self) -> None:
        words = {"429": ["answered 429: Too many handshakes from this address.", "answered 429: This address has 100 connections."]}
        found = outcome(report(refusals={"429": 5}, words=words), report(refusals={"429": 7}, words=words)).advice
        assert [one.rpartition(" ")[2] for one in found] == ["limits.handshakes_per_second_per_address.", "limits.connections_per_address."]

    def test_a_load_process_that_is_busy_says_so_itself(self) -> None:
        assert "A load process used 95% of a core: bench itself may be what was measured" in self.said(cpu=9.5)
        assert self.said(cpu=8.9) == ""

    def test_sent_late(self) -> None:
        assert "1 % of all was sent 20 ms late or later" in self.said(late=durations(*[20_000] * 10))

    def test_of_what_is_not_known_there_is_none(self) -> None:
        assert advise("internal", "x") == "" and self.said(errors={"internal": 1}, words={"internal": ["x"]}) == ""


class TestText:
    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (None, "-"),
            (0.0, "0 µs"),
            (0.00000149, "1.5 µs"),
            (0.000085, "85 µs"),
            (0.0013, "1.3 ms"),
            (0.24, "240 ms"),
            (2.14, "2.1 s"),
            (70.0, "70 s"),
        ],
    )
    def test_durations(self, seconds: float | None, shown: str) -> None:
        assert show_seconds(seconds) == shown

    def test_a_url_without_what_may_be_a_secret(self) -> None:
        assert show_url("wss://user:password@rt.example/ws?token=1") == "wss://rt.example:443/ws"

    def test_an_outcome_is_of_the_module(self) -> None:
        assert Outcome.__doc__
