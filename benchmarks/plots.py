"""The plots of `docs/explanation/performance.md`, from the results that are kept: SVG that follows the reader's light or dark scheme.

Needs matplotlib (`pip install '.[bench]'`), as nothing else here does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import LABELS, number
from benchmarks.parts import CLUSTERS, FIELD, PARTS, ROOMY, SERVERS
from benchmarks.results import Results

FOLDER = Path(__file__).parents[1] / "docs" / "explanation" / "figures"
PAPER, INK, FAINT = "#fefdfc", "#010203", "#c1c2c3"  # stand for what the scheme decides: see `follow_scheme`
SCHEMES = {"": {PAPER: "#ffffff", INK: "#1f2328", FAINT: "#d8dde3"}, "dark": {PAPER: "#0d1117", INK: "#e6edf3", FAINT: "#30363d"}}
# Colours of Okabe and Ito, told apart by the colour-blind; two are darker than theirs, for a white page. Marks differ too.
COLOURS = {
    "floor": "#8a8f98",
    "uws": "#0a7bc4",
    "ours": "#d55e00",
    "ws": "#009e73",
    "websockets": "#c0689c",
    "socket.io": "#b58900",
    "python-socketio": "#4aa5df",
}
MARKS = {"floor": "_", "uws": "s", "ours": "o", "ws": "^", "websockets": "D", "socket.io": "P", "python-socketio": "v"}
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aibos-realtime",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK),
    "grid.color": FAINT,
    "legend.frameon": False,
}
Kept = dict[str, Results]
Panel = tuple[str, str, float]  # title, figure, and what to multiply it by


def follow_scheme(svg: str) -> str:
    """The SVG with its three stand-ins as variables, which the reader's scheme sets."""
    names = {PAPER: "paper", INK: "ink", FAINT: "faint"}
    for colour, name in names.items():
        svg = svg.replace(colour, f"var(--{name})")
    rules = []
    for scheme, colours in SCHEMES.items():
        values = "; ".join(f"--{names[colour]}: {value}" for colour, value in colours.items())
        rules.append(f"@media (prefers-color-scheme: {scheme}) {{ svg {{ {values} }} }}" if scheme else f"svg {{ {values} }}")
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    style = f"<style>{' '.join(rules)} text {{ fill: var(--ink) }}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}\n {style}", svg, count=1)


def short(value: float) -> str:
    """A value beside its dot, or at an axis."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if value >= 10_000:
        return f"{value / 1_000:.3g}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def kilo(value: float) -> str:
    return f"{value / 1024:g}K" if value >= 1024 else f"{value:g}"


def members_of(rooms: float) -> str:
    """Under the number of rooms, how many members each has."""
    load = PARTS["rooms"].points[f"{rooms:g}"].load
    return f"{short(rooms)}\n{short(load.clients * load.joins / load.rooms)}"


class Drawing:
    """One file: panels beside each other, saved with the reader's scheme."""

    def __init__(self, name: str, rows: int, columns: int, height: float) -> None:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot

        pyplot.rcParams.update(SETTINGS)
        self._name = name
        self._pyplot = pyplot
        self.figure, axes = pyplot.subplots(rows, columns, figsize=(10.5, height), squeeze=False)
        self.axes: list[Any] = list(axes.flat)

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.svg"
        self.figure.savefig(path, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        self._pyplot.close(self.figure)
        path.write_text(re.sub(r"[ \t]+$", "", follow_scheme(path.read_text()), flags=re.MULTILINE))
        return path


def draw_side_by_side(kept: Kept, folder: Path) -> Path:
    """A dot for each contestant, a panel for each work, on axes by tens."""
    panels = [
        ("fan-out: µs CPU per delivery", "fanout", "cpu_us"),
        ("burst: µs CPU per delivery", "burst", "cpu_us"),
        ("request and answer: µs CPU", "request", "cpu_us"),
        ("opening a session: µs CPU", "open", "open_cpu_us"),
        ("idle client: KB", "idle", "kb_per_client"),
        ("fan-out at half load: p99, ms", "half", "p99_ms"),
    ]
    drawing = Drawing("side-by-side", 2, 3, 4.9)
    names = FIELD[::-1]
    for at, (axes, (title, part, figure)) in enumerate(zip(drawing.axes, panels, strict=True)):
        axes.set_title(title, loc="left")
        axes.set_xscale("log")
        axes.set_yticks(range(len(names)), [LABELS[name] for name in names] if at % 3 == 0 else [""] * len(names))
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.tick_params(axis="both", which="both", length=0)
        values = {name: kept[part].median(name, next(iter(PARTS[part].points)), figure) if part in kept else None for name in names}
        _dot(axes, names, values)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_fontweight("bold" if name == "ours" else "normal")
    drawing.figure.tight_layout(w_pad=1.5, h_pad=1.5)
    return drawing.save(folder)


def _dot(axes: Any, names: Sequence[str], values: dict[str, float | None]) -> None:
    known = [value for value in values.values() if value]
    if known:
        axes.set_xlim(min(known) / 1.6, max(known) * 3.2)
    for row, name in enumerate(names):
        value = values[name]
        if not value:
            axes.annotate("–", (0, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center")
            continue
        weight = "bold" if name == "ours" else "normal"
        axes.plot([value], [row], MARKS["ours"] if name != "floor" else "|", color=COLOURS[name], markersize=9 if name == "ours" else 6.5, zorder=3)
        axes.hlines(row, axes.get_xlim()[0], value, color=FAINT, linewidth=1.0, zorder=1)
        axes.annotate(number(value), (value, row), xytext=(8, 0), textcoords="offset points", va="center", fontweight=weight)
    _tick_by_tens(axes.xaxis)


def _tick_by_tens(axis: Any, label: Callable[[float], str] = short) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.set_minor_formatter(NullFormatter())


def draw_curves(kept: Kept, folder: Path, part: str, names: Sequence[str], across: str, panels: Sequence[Panel], is_linear: bool = False) -> Path:
    """A line for each contestant; both axes by tens, but that of the nodes."""
    results = kept[part]
    drawing = Drawing(part, 1, len(panels), 3.7)
    ticks = [int(point) for point in PARTS[part].points]
    label = {"payload": kilo, "rooms": members_of}.get(part, short)
    for axes, (title, figure, factor) in zip(drawing.axes, panels, strict=True):
        for name in names if figure != "peak_mb" else [name for name in names if name != "floor"]:
            found = [(int(point), value * factor) for point in PARTS[part].points if (value := results.median(name, point, figure))]
            if found:
                _line(axes, name, found)
        axes.set_title(title, loc="left")
        axes.set_yscale("log")
        if not is_linear:
            axes.set_xscale("log")
        axes.set_xticks(ticks, [label(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(across)
        axes.grid(linewidth=0.6)
        axes.margins(x=0.06)
        _span_a_decade(axes)
    lines, labels = drawing.axes[0].get_legend_handles_labels()
    legend = drawing.figure.legend(lines, labels, loc="lower center", ncols=len(labels))
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() == LABELS["ours"] else "normal")
    drawing.figure.tight_layout(rect=(0, 0.08, 1, 1), w_pad=2)
    return drawing.save(folder)


def _line(axes: Any, name: str, found: list[tuple[int, float]]) -> None:
    is_ours = name == "ours"
    style = {"color": COLOURS[name], "marker": MARKS[name], "linewidth": 2.6 if is_ours else 1.3, "markersize": 7 if is_ours else 5}
    axes.plot(*zip(*found, strict=True), label=LABELS[name], linestyle=":" if name == "floor" else "-", zorder=4 if is_ours else 2, **style)


def _span_a_decade(axes: Any) -> None:
    """At least a decade on the axis, from a 1, 2 or 5, so that it is read and small differences do not look large."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = axes.get_ylim()
    if high / low < 10:
        middle = (low * high) ** 0.5
        low, high = middle / 10**0.5, middle * 10**0.5
    axes.set_ylim(low, high)
    steps = (1, 2, 5) if high / low < 1_000 else (1,)
    ticks = [digit * 10.0**power for power in range(-4, 9) for digit in steps if low <= digit * 10.0**power <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_locator(NullLocator())


COST: Panel = ("CPU per delivery, µs", "cpu_us", 1.0)
MEDIAN: Panel = ("last member has read, p50, ms", "p50_ms", 1.0)
LATE: Panel = ("the same, p99, ms", "p99_ms", 1.0)
MEMORY: Panel = ("memory of the server, MB", "peak_mb", 1.0)
CURVES: dict[str, tuple[Sequence[str], str, Sequence[Panel], bool]] = {
    "members": (FIELD, "members of the room", (COST, MEDIAN, LATE, MEMORY), False),
    "rooms": (ROOMY, "rooms, and members of each", (COST, MEDIAN, LATE, MEMORY), False),
    "payload": (FIELD, "payload, bytes", (COST, MEDIAN, LATE, MEMORY), False),
    "connections": (
        SERVERS,
        "clients",
        (
            ("memory of the server, MB", "rss_mb", 1.0),
            ("memory per client, KB", "kb_per_client", 1.0),
            ("CPU to open a session, µs", "open_cpu_us", 1.0),
        ),
        False,
    ),
    "nodes": (CLUSTERS, "nodes", (("CPU of all nodes per delivery, µs", "cpu_us", 1.0), MEDIAN, LATE), True),
}


def draw_all(kept: Kept, folder: Path = FOLDER) -> list[Path]:
    """Every plot that there are results for; what was written. Raises SystemExit where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SystemExit("plots need matplotlib: pip install '.[bench]'") from None
    drawn = [draw_side_by_side(kept, folder)] if "fanout" in kept else []
    return drawn + [draw_curves(kept, folder, part, *drawing) for part, drawing in CURVES.items() if part in kept]
