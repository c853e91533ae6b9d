"""What `bench` shows: how far it is while it works, on stderr, and what it found, on stdout."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..load.crew import Look
from ..load.histogram import QUANTILES, Histogram
from ..load.plan import Scenario
from ..protocol.close_codes import default_reason
from .bench_report import Outcome, Settings, merge, show_seconds
from .bench_server import NodeUse
from .output import Part, err, note, out, show_bytes
from .top_screen import ASCII_BLOCKS, BLOCKS, draw_curve

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_EVERY = 5.0
"""Seconds between two lines, where there is no terminal."""
KEPT = 120
"""Looks that the curve shows: a minute."""
BAR = 40
"""Columns of the longest bar."""
_CURVES = {Scenario.FANOUT: "delivered", Scenario.REQUEST: "answered"}


def headline(settings: Settings) -> str:
    """What is done, in one line."""
    rooms, clients = counted(len(settings.rooms), "room"), counted(settings.clients, "client")
    pace = f"{settings.rate:g} {_UNITS[settings.scenario]}/s" if settings.rate else "as fast as answered"
    seconds = f"{settings.duration:g} s"
    if settings.scenario is Scenario.FANOUT:
        content = f"{counted(settings.senders, 'publisher')}, {pace}, {settings.payload} bytes, {settings.codec}"
        return f"fanout: {clients}, {rooms} of {settings.members:,}, {content}, {seconds}"
    if settings.scenario is Scenario.REQUEST:
        return f"request: {clients}, {settings.event}, {pace}, {settings.codec}, {seconds}"
    if settings.scenario is Scenario.CONNECT:
        return f"connect: {clients}, {rooms}, {pace if settings.rate else 'as fast as they are let in'}, {seconds} at most"
    return f"idle: {clients}, {rooms}, {seconds}"


_UNITS = {Scenario.FANOUT: "events", Scenario.REQUEST: "requests", Scenario.CONNECT: "clients", Scenario.IDLE: ""}


def counted(count: int, noun: str) -> str:
    """`1 room`, `2,000 rooms`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# — while it works —


class Watch(Protocol):
    def show(self, look: Look) -> None: ...


@contextmanager
def watching(settings: Settings) -> Iterator[Watch]:
    """What shows a run as it goes: redrawn on a terminal, else a line every five seconds."""
    if not err.is_terminal:
        yield _Lines(settings)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=err.stream, highlight=False)
    blocks = BLOCKS if "utf" in console.encoding.lower() else ASCII_BLOCKS
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Picture(settings, live, blocks)


class Figures:
    """What looks are turned into: totals, and rates from one look to the next."""

    def __init__(self, settings: Settings) -> None:
        self._counted = _CURVES.get(settings.scenario, "opened")
        self._before: tuple[float, int] | None = None
        self.curve: deque[float] = deque(maxlen=KEPT)
        self.totals: dict[str, int] = {}
        self.latency = Histogram()
        self.waiting = ""

    def take(self, look: Look) -> None:
        names = ("opened", "sent", "answered", "delivered", "failed")
        self.totals = {name: sum(getattr(one, name) for one in look.progress) for name in names}
        self.latency = merge(one.latency for one in look.progress)
        self.waiting = next((one.waiting for one in look.progress if one.waiting), "")
        count = self.totals[self._counted]
        if self._before is None:
            self._before = (look.at, count)
        elif look.at - self._before[0] >= 0.4:
            self.curve.append(max(0.0, (count - self._before[1]) / (look.at - self._before[0])))
            self._before = (look.at, count)

    @property
    def rate(self) -> float:
        return self.curve[-1] if self.curve else 0.0

    def parts(self, settings: Settings) -> list[tuple[str, str]]:
        """(name, value) pairs, for one line."""
        shown = [("opened", f"{self.totals['opened']:,}/{settings.clients:,}")]
        if settings.scenario in _CURVES:
            shown += [("sent", f"{self.totals['sent']:,}"), ("answered", f"{self.totals['answered']:,}")]
        if settings.scenario is Scenario.FANOUT:
            shown.append(("delivered", f"{self.totals['delivered']:,}"))
        shown += [("p50", show_seconds(self.latency.quantile(0.5))), ("p99", show_seconds(self.latency.quantile(0.99)))]
        return [*shown, ("failed", f"{self.totals['failed']:,}")]


class _Lines:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._figures = Figures(settings)
        self._next = 0.0

    def show(self, look: Look) -> None:
        self._figures.take(look)
        if look.at < self._next:
            return
        self._next = look.at + LINE_EVERY
        words = "  ".join(f"{name} {value}" for name, value in self._figures.parts(self._settings))
        waiting = f"  (waiting: {self._figures.waiting})" if self._figures.waiting else ""
        note(f"{look.at:5.0f} s  {look.phase:8} {words}{waiting}")


class _Picture:
    def __init__(self, settings: Settings, live: Any, blocks: str) -> None:
        self._settings = settings
        self._figures = Figures(settings)
        self._live = live
        self._blocks = blocks

    def show(self, look: Look) -> None:
        self._figures.take(look)
        self._live.update(draw(self._settings, look, self._figures, self._live.console.width, self._blocks), refresh=True)


def draw(settings: Settings, look: Look, figures: Figures, width: int, blocks: str = BLOCKS) -> RenderableType:
    """Four lines."""
    from rich.console import Group
    from rich.text import Text

    def line(*parts: Part) -> Text:
        return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")

    pairs: list[Part] = []
    for name, value in figures.parts(settings):
        pairs += [(f"{name} ", "dim"), (value, "bold"), "   "]
    curve = draw_curve(list(figures.curve), max(0, width - 32), blocks)
    what = _CURVES.get(settings.scenario, "opened")
    return Group(
        line(("aibos-realtime bench  ", "bold"), (headline(settings), "dim")),
        line((f"{look.phase} ", "cyan"), f"{look.at:.0f} s   ", *pairs),
        line((f"{what}/s ", "dim"), (curve, "green"), f" {figures.rate:,.0f}"),
        line((figures.waiting or "Ctrl-C ends it, and shows what there is", "yellow" if figures.waiting else "dim")),
    )


# — what it found —


def print_outcome(outcome: Outcome) -> None:
    """Facts, latencies, the histogram of what the scenario is about, and what to do."""
    settings = outcome.settings
    out.line((headline(settings), "bold"), (f"  {settings.url}", "cyan"))
    if outcome.is_interrupted:
        out.line((f"interrupted after {outcome.seconds:.1f} s: this is what there is", "yellow"))
    out.line()
    out.columns([[(name, "dim"), value] for name, value in facts(outcome)])
    main, name = {
        Scenario.FANOUT: (outcome.delivery, "delivery"), Scenario.REQUEST: (outcome.answer, "answer"),
    }.get(settings.scenario, (outcome.opening, "opening"))  # fmt: skip
    out.line()
    out.columns(latency_rows(outcome))
    if main.count:
        out.line()
        out.line((f"{name}: how many within", "dim"))
        for row in bars(main, BLOCKS[-1] if "utf" in (getattr(out.stream, "encoding", None) or "").lower() else "#"):
            out.line(*row)
    for advice in outcome.advice:
        out.line()
        out.line(("! ", "bold yellow"), advice)


def facts(outcome: Outcome) -> list[tuple[str, Part]]:
    """(name, value) a line."""
    settings, total, verdict = outcome.settings, outcome.total, outcome.verdict
    opened, present = total("opened"), total("present")
    words = f"{opened:,} of {counted(settings.clients, 'client')} in {show_seconds(outcome.opening_seconds)}"
    found: list[tuple[str, Part]] = [("opened", words + (f" ({opened / outcome.opening_seconds:,.0f}/s)" if outcome.opening_seconds else ""))]
    for name, counts in (("refused", outcome.refusals), ("closed", outcome.closes), ("errors", outcome.errors)):
        if counts:
            found.append((name, (", ".join(_times(kind, count) for kind, count in counts.most_common()), "bold red")))
    if present < opened:
        found.append(("gone", (f"{counted(opened - present, 'client')} at the end", "bold red")))
    if settings.scenario in (Scenario.FANOUT, Scenario.REQUEST):
        answered = total("answered")
        verb = "published" if settings.scenario is Scenario.FANOUT else "sent"
        found.append((verb, f"{total('sent'):,}, answered {answered:,} ({_rate(outcome.rate(answered))})"))
        for name in ("unanswered", "unsent"):
            if total(name):
                found.append((name, (f"{total(name):,}", "bold red")))
    if settings.scenario is Scenario.FANOUT:
        found.append(("delivered", f"{verdict.count:,} of {verdict.expected:,} ({_rate(outcome.rate(verdict.count))})"))
        judged = {"lost": verdict.lost, "doubled": verdict.doubled, "reordered": verdict.reordered, "altered": verdict.altered}
        shown = "  ".join(f"{name} {count:,}" for name, count in judged.items())
        found.append(("judged", (shown, "green" if verdict.is_clean else "bold red")))
    if total("reconnects"):
        found.append(("reconnects", f"{total('reconnects'):,}, of which {verdict.announced:,} missed something and were told"))
    found += [(node.name, words_of(node)) for node in outcome.nodes]
    memory = sum(process.memory for process in outcome.reports)
    processes = counted(len(outcome.reports), "process").replace("processs", "processes")
    found.append(("load", f"{processes}, {outcome.busiest:.0%} of a core at most, {show_bytes(memory)}"))
    return found


def _times(kind: str, count: int) -> str:
    """`3 × 4008 (too slow: the outgoing buffer overflowed)`: what a number means stands beside it."""
    words = default_reason(int(kind)) if kind.isdecimal() else ""
    return f"{count:,} × {kind}{f' ({words})' if words else ''}"


def words_of(node: NodeUse) -> str:
    """What a node used."""
    words = [f"{node.cpu:.0%} of a core", show_bytes(node.memory), f"loop {show_seconds(node.loop_lag)} late at most"]
    if node.delivery_cpu is not None:
        words.insert(1, f"{node.delivery_cpu * 1e6:.1f} µs a delivery")
    if node.client_memory is not None:
        words.append(f"{node.client_memory / 1000:.1f} KB a client")
    return ", ".join(words)


def latency_rows(outcome: Outcome) -> list[list[Part]]:
    """A heading, and a row for each kind of latency that was seen."""
    rows: list[list[Part]] = [[("", ""), *((name, "bold underline") for name in (*_HEADINGS, "max"))]]
    for name in ("opening", "answer", "delivery", "late"):
        histogram: Histogram = getattr(outcome, name)
        if histogram.count:
            values = [histogram.quantile(share) for share in QUANTILES.values()]
            rows.append([("sent late" if name == "late" else name, "dim"), *(show_seconds(value) for value in (*values, histogram.longest))])
    return rows


_HEADINGS = ("p50", "p90", "p99", "p99.9")


def bars(histogram: Histogram, block: str) -> Iterator[Sequence[Part]]:
    """A line for each bucket."""
    found = histogram.bars()
    most, count = max(number for _, number in found), histogram.count
    for end, number in found:
        length = round(number / most * BAR) or (1 if number else 0)
        share = f"{number / count:7.2%}"
        yield f"  {show_seconds(end):>7}  ", (f"{block * length:{BAR}}", "green"), f"  {share}  {number:,}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
