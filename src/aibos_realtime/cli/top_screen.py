"""What `top` shows: rows of text, and how they lie on a terminal of any size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .connections import act_row
from .output import Part, escape_controls, out, show_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from ..admin.reports import NodeReport
    from .top import Look, Rates

WIDE, TWO_COLUMNS = 130, 110
"""Columns of a terminal from which all of a node is shown; from which two tables stand side by side."""
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"

SILENT = "silent"
"""In place of the state of a node that answers no more."""

_STATES = {"ok": "green", "draining": "yellow"}


# — rows —


def facts(look: Look) -> list[list[Part]]:
    """What all nodes do together, in two lines."""
    nodes = look.nodes
    p50, p99 = (max((value for node in nodes if (value := getattr(node, name)) is not None), default=None) for name in ("latency_p50", "latency_p99"))
    lag = max((node.loop_lag for node in nodes), default=None)
    lost = sum(node.gaps_lost for node in nodes)
    first: list[tuple[str, Part]] = [
        ("connections", f"{sum(node.connections for node in nodes):,}"),
        ("rooms", f"{len(look.rooms):,}" + ("+" if look.has_more_rooms else "")),
        ("events", _rate(look.total_rate("events"))),
        ("deliveries", _rate(look.total_rate("deliveries"))),
        ("nodes", str(len(nodes))),
        *([("silent", (str(len(look.silent)), "bold red"))] if look.silent else []),
    ]
    second: list[tuple[str, Part]] = [
        ("latency p50", _milliseconds(p50)),
        ("p99", _milliseconds(p99)),
        ("loop lag", _milliseconds(lag)),
        ("queued", show_bytes(sum(node.outbox_bytes for node in nodes))),
        ("slow closes", f"{sum(node.slow_closes for node in nodes):,}"),
        ("gaps lost", (str(lost), "bold red") if lost else "0"),
    ]
    return [_pairs(first), _pairs(second)]


def node_rows(look: Look, *, wide: bool) -> list[list[Part]]:
    """A heading, and a row for each node."""
    columns = [(heading, show) for heading, is_needed, show in _COLUMNS if wide or is_needed]
    rows: list[list[Part]] = [[(heading, "bold underline") for heading, _ in columns]]
    rows += [[show(node, look.rates[node.id]) for _, show in columns] for node in look.nodes]
    return rows + [[(node.name, "dim"), (SILENT, "bold red"), *["-"] * (len(columns) - 2)] for node in look.silent]


def room_rows(look: Look) -> list[list[Part]]:
    """A heading, and a row for each room, the busiest first."""
    rows: list[list[Part]] = [[(heading, "bold underline") for heading in ("connections", "users", "busiest rooms")]]
    return rows + [[str(room.connection_count), str(room.user_count), (room.id, "cyan")] for room in look.rooms]


def act_rows(look: Look) -> list[list[Part]]:
    """A heading, and a row for each act, the newest first."""
    rows: list[list[Part]] = [[(heading, "bold underline") for heading in ("time", "act", "newest acts")]]
    for act in look.acts:
        _, what, rest = act_row(act)
        rows.append([(time.strftime("%H:%M:%S", time.localtime(act.time)), "dim"), what, rest])
    return rows


def _state(node: NodeReport, _: Rates) -> Part:
    return (node.state, _STATES.get(node.state, "bold red"))


def _connections(node: NodeReport, _: Rates) -> Part:
    if node.max_connections is None:
        return str(node.connections)
    return (f"{node.connections}/{node.max_connections}", "yellow" if node.connections >= 0.9 * node.max_connections else "")


def _lost(node: NodeReport, _: Rates) -> Part:
    return (str(node.gaps_lost), "bold red") if node.gaps_lost else "0"


_COLUMNS: tuple[tuple[str, bool, Callable[[NodeReport, Rates], Part]], ...] = (
    ("node", True, lambda node, _: (node.name, "cyan")),
    ("state", True, _state),
    ("connections", True, _connections),
    ("rooms", False, lambda node, _: str(node.rooms)),
    ("events", True, lambda _, rates: _rate(rates.events)),
    ("deliveries", True, lambda _, rates: _rate(rates.deliveries)),
    ("messages in", False, lambda _, rates: _rate(rates.messages_in)),
    ("p50", False, lambda node, _: _milliseconds(node.latency_p50)),
    ("p99", True, lambda node, _: _milliseconds(node.latency_p99)),
    ("lag", False, lambda node, _: _milliseconds(node.loop_lag)),
    ("cpu", True, lambda node, _: f"{node.cpu:.0%}"),
    ("memory", True, lambda node, _: show_bytes(node.memory)),
    ("queued", False, lambda node, _: show_bytes(node.outbox_bytes)),
    ("to store", False, lambda node, _: "-" if node.store_waiting is None else str(node.store_waiting)),
    ("slow", False, lambda node, _: str(node.slow_closes)),
    ("lost", False, _lost),
)
"""(heading, whether a narrow terminal has it too, what of a node)."""


def _pairs(pairs: Sequence[tuple[str, Part]]) -> list[Part]:
    parts: list[Part] = []
    for name, value in pairs:
        text, style = _part(value)
        parts += [(f"{name} ", "dim"), (text, style or "bold"), "   "]
    return parts[:-1]


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    for size, unit in ((1e6, "M"), (1e4, "k")):
        if rate >= size:
            return f"{rate / (1e6 if unit == 'M' else 1e3):.1f}{unit}/s"
    return f"{rate:.0f}/s" if rate >= 10 or rate == 0 else f"{rate:.1f}/s"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def draw_curve(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """The last values as a line of blocks, the highest one full."""
    shown = list(values[-width:]) if width > 0 else []
    most = max(shown, default=0.0)
    return "".join(blocks[round(value / most * (len(blocks) - 1))] if most else blocks[0] for value in shown)


# — the screen —


class Screen:
    """The whole terminal, which is given back as it was. `where`: the server that is asked."""

    def __init__(self, where: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._where = where
        self._console = Console(file=out.stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, screen=True)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, look: Look, trouble: str) -> None:
        """Draw it. `trouble`: why there is nothing newer."""
        width, height = self._console.size
        blocks = BLOCKS if "utf" in self._console.encoding.lower() else ASCII_BLOCKS
        self._live.update(draw(look, trouble, self._where, width, height, blocks), refresh=True)


def draw(look: Look, trouble: str, where: str, width: int, height: int, blocks: str = BLOCKS) -> RenderableType:
    """A screen of this size."""
    from rich.console import Group
    from rich.table import Table

    at = time.strftime("%H:%M:%S", time.localtime(look.at))
    head: list[Part] = [("aibos-realtime top  ", "bold"), ("q ends  ", "dim"), (where, "cyan"), f"  {at}"]
    lines = [_line(head), _line([(trouble, "bold red")]), *map(_line, facts(look))]
    for name, values in (("events/s", look.events), ("deliveries/s", look.deliveries)):
        peak = f"  most {_rate(max(values))}" if values else ""
        lines.append(_line([(f"{name:13}", "dim"), (draw_curve(values, width - 13 - len(peak), blocks), "green"), (peak, "dim")]))
    left = height - len(lines) - 1
    nodes = _cut(node_rows(look, wide=width >= WIDE), max(3, left // 3))
    left -= len(nodes) + 2
    if width >= TWO_COLUMNS:
        both = Table.grid(expand=True, padding=(0, 2, 0, 0))
        both.add_column(ratio=2)
        both.add_column(ratio=3)
        both.add_row(_table(room_rows(look)[: max(0, left)]), _table(act_rows(look)[: max(0, left)]))
        below: list[RenderableType] = [both]
    else:
        half = max(0, left - 1) // 2
        below = [_table(room_rows(look)[:half]), _line([]), _table(act_rows(look)[: max(0, left - 1 - half)])]
    return Group(*lines, _line([]), _table(nodes, numbers_from=2), _line([]), *below)


def _cut(rows: list[list[Part]], most: int) -> list[list[Part]]:
    """As many rows as there is space for, and how many are missing."""
    if len(rows) <= most:
        return rows
    missing: Part = (f"… {len(rows) - most + 1} more", "dim")
    return [*rows[: most - 1], [missing, *([""] * (len(rows[0]) - 1))]]


def _table(rows: list[list[Part]], numbers_from: int | None = None) -> RenderableType:
    """`numbers_from`: the column from which on all are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for number in range(len(rows[0]) if rows else 0):
        table.add_column(no_wrap=True, overflow="ellipsis", justify="right" if numbers_from is not None and number >= numbers_from else "left")
    for row in rows:
        table.add_row(*(_line([part]) for part in row))
    return table


def _line(parts: Sequence[Part]) -> Text:
    from rich.text import Text

    return Text.assemble(*((escape_controls(text), style) for text, style in map(_part, parts)), no_wrap=True, overflow="ellipsis")


def _part(part: Part) -> tuple[str, str]:
    return (part, "") if isinstance(part, str) else part
