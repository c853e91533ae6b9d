"""How `bench` looks: on a terminal of every size, where there is none, and what it prints at its end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from aibos_realtime.cli.bench_report import Outcome
from aibos_realtime.cli.bench_screen import Figures, bars, draw, facts, headline, latency_rows, print_outcome, watching
from aibos_realtime.cli.bench_server import NodeUse
from aibos_realtime.cli.top_screen import BLOCKS
from aibos_realtime.load.crew import Look
from aibos_realtime.load.histogram import Histogram
from aibos_realtime.load.plan import Progress, Scenario

from .bench_reports import durations, outcome, report, settings


def look(at: float = 1.0, delivered: int = 100, waiting: str = "") -> Look:
    one = Progress(2, 5, 5, delivered, 1, waiting, durations(1000, 2000))
    return Look("running", at, [one, one])


class TestWhileItWorks:
    @pytest.mark.parametrize("width", [20, 40, 80, 160])
    @pytest.mark.parametrize("scenario", list(Scenario))
    def test_it_fits_every_terminal(self, width: int, scenario: Scenario) -> None:
        figures = Figures(settings(scenario))
        for second in range(200):
            figures.take(look(second, second * 1000, waiting="rt.example:3001 answered 429: Too many handshakes from this address."))
        console = Console(file=io.StringIO(), width=width, color_system=None)
        console.print(draw(settings(scenario), look(), figures, width))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(lines) == 4 and all(len(line) <= width for line in lines)

    def test_rates_are_those_between_two_looks(self) -> None:
        figures = Figures(settings())
        for at, delivered in ((1.0, 0), (1.1, 50), (2.0, 500), (3.0, 500)):
            figures.take(look(at, delivered))
        assert list(figures.curve) == [1000.0, 0.0] and figures.totals["delivered"] == 1000 and figures.latency.count == 4

    def test_without_a_terminal_a_line_every_five_seconds(self, capsys: pytest.CaptureFixture[str]) -> None:
        with watching(settings()) as watch:
            for second in range(12):
                watch.show(look(second, waiting="" if second else "later"))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 3 and lines[0].endswith("failed 2  (waiting: later)") and "delivered 200  p50 1 ms  p99 2 ms" in lines[1]


class TestHeadline:
    def test_each_scenario_says_what_it_does(self) -> None:
        assert headline(settings()) == "fanout: 4 clients, 1 room of 4, 2 publishers, 20 events/s, 150 bytes, json, 10 s"
        assert headline(settings(rate=0.0)).split(", ")[3] == "as fast as answered"
        assert headline(settings(Scenario.REQUEST)) == "request: 4 clients, ping, 20 requests/s, json, 10 s"
        assert headline(settings(Scenario.CONNECT, rate=0.0)) == "connect: 4 clients, 1 room, as fast as they are let in, 10 s at most"
        assert headline(settings(Scenario.IDLE, clients=1)) == "idle: 1 client, 1 room, 10 s"


class TestAtItsEnd:
    def test_what_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_outcome(outcome(nodes=[NodeUse("web-1", 0.42, 88_000_000, 4, 40, 5.1e-6, 3400.0, 0.003)]))
        assert capsys.readouterr().out.splitlines() == [
            "fanout: 4 clients, 1 room of 4, 2 publishers, 20 events/s, 150 bytes, json, 10 s  ws://rt.example:3001",
            "",
            "opened     4 of 4 clients in 500 ms (8/s)",
            "published  10, answered 10 (1.0/s)",
            "delivered  40 of 40 (4.0/s)",
            "judged     lost 0  doubled 0  reordered 0  altered 0",
            "web-1      42% of a core, 5.1 µs a delivery, 88 MB, loop 3 ms late at most, 3.4 KB a client",
            "load       2 processes, 20% of a core at most, 60 MB",
            "",
            "           p50     p90     p99     p99.9   max",
            "opening    1 ms    2 ms    2 ms    2 ms    2 ms",
            "answer     500 µs  500 µs  500 µs  500 µs  500 µs",
            "delivery   1.5 ms  1.5 ms  1.5 ms  1.5 ms  1.5 ms",
            "sent late  50 µs   50 µs   50 µs   50 µs   50 µs",
            "",
            "delivery: how many within",
            f"     2 ms  {BLOCKS[-1] * 40}  100.00%  40",
        ]

    def names(self, found: Outcome) -> list[str]:
        return [name for name, _ in facts(found)]

    def test_what_went_wrong_has_its_lines(self) -> None:
        wrong = report(present=1, refusals={"429": 9}, closes={"4008": 1}, errors={"rate_limited": 3}, unanswered=2, unsent=1, reconnects=1)
        assert self.names(outcome(wrong, report())) == [
            "opened", "refused", "closed", "errors", "gone", "published", "unanswered", "unsent", "delivered", "judged", "reconnects", "load",
        ]  # fmt: skip

    def test_numbers_of_closes_have_their_meaning_beside_them(self) -> None:
        shown = dict(facts(outcome(report(closes={"4008": 2, "1006": 1}, refusals={"429": 1000}, errors={"room_full": 1}), report())))
        assert shown["closed"][0] == "2 × 4008 (too slow: the outgoing buffer overflowed), 1 × 1006"
        assert (shown["refused"][0], shown["errors"][0]) == ("1,000 × 429", "1 × room_full")

    @pytest.mark.parametrize(
        ("scenario", "names"),
        [(Scenario.REQUEST, ["opened", "sent", "load"]), (Scenario.CONNECT, ["opened", "load"]), (Scenario.IDLE, ["opened", "load"])],
    )
    def test_a_scenario_has_the_lines_that_it_is_about(self, scenario: Scenario, names: list[str]) -> None:
        assert self.names(outcome(scenario=scenario)) == names

    def test_what_was_not_seen_has_no_row(self) -> None:
        found = outcome(report(answer=durations(), delivery=durations(), late=durations()))
        assert [row[0][0] for row in latency_rows(found)] == ["", "opening"]

    def test_bars(self) -> None:
        histogram = Histogram().add(durations(*[90] * 100, *[900] * 50, 9000))
        shown = ["".join(part if isinstance(part, str) else part[0] for part in row) for row in bars(histogram, "#")]
        assert shown[0] == f"   100 µs  {'#' * 40}   66.23%  100" and shown[-1].startswith("    10 ms  #    ") and len(shown) == 7
