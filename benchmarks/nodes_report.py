"""The figures of `nodes.py` as tables in Markdown, for a terminal and for a page alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

Figures = dict[str, float]

NOT_ALIKE = """\
What an acknowledgement is worth differs. This project acknowledges an event when it has its position in the log at Redis; socket.io as soon as the
event was handed over to its Redis client (in `broadcast` its adapter's answer is awaited); python-socketio when Redis has passed it on, which keeps
nothing. The peers check no token and no right, and know no users, positions or presence. Socket.IO's and python-socketio's nodes get every event of
every room; this project's nodes get those of rooms with members on them."""

Cell = Callable[[Figures], str]
Rows = list[list[str]]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Aligned Markdown: the first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True))] for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


def _number(name: str, digits: int = 0) -> Cell:
    return lambda figures: f"{figures[name]:,.{digits}f}" if name in figures else "–"


_PUBLISH: dict[str, Cell] = {
    "µs CPU, publisher's node": _number("publisher_cpu_us"),
    "other node": _number("member_cpu_us"),
    "Redis": _number("redis_cpu_us"),
    "acknowledged/s": _number("per_s"),
    "ack p50, ms": _number("ack_p50_ms", 1),
    "p99": _number("ack_p99_ms", 1),
}
_IDLE: dict[str, Cell] = {
    "µs CPU to open": _number("member_open_cpu_us"),
    "other node": _number("publisher_open_cpu_us"),
    "Redis": _number("redis_open_cpu_us"),
    "KB": _number("member_kb", 1),
    "bytes in Redis": _number("redis_bytes"),
    "silence, µs CPU a second": _number("member_silent_cpu_us", 1),
    "Redis in silence": _number("redis_silent_cpu_us", 1),
    "node alone, µs CPU a second": _number("member_base_cpu_us"),
    "Redis alone": _number("redis_base_cpu_us"),
}
_PASS: dict[str, Cell] = {"µs CPU": _number("redis_cpu_us", 2)}
_TITLES = {
    "publish": "publish: clients of one node, {window} events on the way, a room each; per event",
    "broadcast": "broadcast: the node's own program, {window} events on the way, a room each; per event",
    "relay": "relay: publish, with one member of each room on the other node; per event",
    "delivery-500": "delivery: one room of {members} members, one event at a time; µs CPU per delivery on the members' node",
    "delivery-1000": "delivery: one room of {members} members, one event at a time; µs CPU per delivery on the members' node",
    "latency": "latency: one event at a time, {rate:g} a second; ms from sending to reading",
    "idle": "idle: {members} members of one room; per member",
    "idle-rooms": "idle: {members} members, each in a room of its own; per member",
    "pass": "pass: Redis passes an event on to {members} subscribers; per subscriber",
}


_CELLS = {"publish": _PUBLISH, "broadcast": _PUBLISH, "idle": _IDLE, "pass": _PASS}


def _plain(cells: dict[str, Cell], found: dict[str, Any]) -> str:
    rows = [[name, *(cell(settings["nodes"]) for cell in cells.values())] for name, settings in found.items() if "nodes" in settings]
    return table(["", *cells], rows)


def _delivery(found: dict[str, Any]) -> str:
    rows = []
    for name, settings in found.items():
        two, one = settings.get("nodes", {}), settings.get("alone", {})
        ratio = f"{two['member_cpu_us'] / one['member_cpu_us']:.2f}" if two and one and one["member_cpu_us"] else "–"
        counted = [_number("member_cpu_us", 2)(two), _number("member_cpu_us", 2)(one), ratio]
        rows.append(
            [name, *counted, _number("redis_cpu_us")(two), _number("deliveries_per_s")(two), _number("last_p50_ms", 1)(two), _number("bytes")(two)]
        )
    return table(["", "two nodes", "one node", "ratio", "Redis, per event", "deliveries/s", "last member p50, ms", "bytes"], rows)


def _latency(found: dict[str, Any]) -> str:
    rows = []
    for name, settings in found.items():
        two, one = settings.get("nodes", {}), settings.get("alone", {})
        measured = [_number(figure, 2)(setting) for setting in (two, one) for figure in ("p50_ms", "p99_ms")]
        rows.append([name, *measured, *(f"{two[figure] - one[figure]:.2f}" if two and one else "–" for figure in ("p50_ms", "p99_ms"))])
    return table(["", "two nodes p50", "p99", "one node p50", "p99", "added p50", "added p99"], rows)


def tables(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, table) of every work that gave figures."""
    drawn = []
    for work, job in figures["jobs"].items():
        found = {name: works[work] for name, works in figures["results"].items() if work in works}
        if not found:
            continue
        kind = job["work"]
        text = _delivery(found) if kind == "delivery" else _latency(found) if kind == "latency" else _plain(_CELLS[kind], found)
        drawn.append((_TITLES[work].format(**{"window": 64, "rate": 100.0} | job), text))
    return drawn


def describe(figures: dict[str, Any]) -> str:
    """What was measured on what, in one line."""
    machine, rounds = figures["machine"], figures["rounds"]
    alike: dict[str, list[str]] = {}
    for name, found in figures["versions"].items():
        alike.setdefault(", ".join(f"{package} {version}" for package, version in found.items()), []).append(name)
    versions = "; ".join(f"{', '.join(names)}: {found}" for found, names in alike.items())
    return f"{machine['cores']} cores, {rounds} round{'s' * (rounds > 1)}, medians, events of {figures['payload']} bytes. {versions}."


def show(figures: dict[str, Any]) -> None:
    if figures["quick"]:
        print("--quick: these figures mean nothing\n")
    for title, text in tables(figures):
        print(f"{title}\n\n{text}\n")
    print(f"{describe(figures)}\n\n{NOT_ALIKE}")
    for where, reason in figures["failures"].items():
        print(f"failed: {where}: {reason}", file=sys.stderr)
    if figures["absent"]:
        print(f"not installed: {', '.join(figures['absent'])} (--peers FOLDER --install)", file=sys.stderr)
