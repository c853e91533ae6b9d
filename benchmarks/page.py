"""The tables of `docs/explanation/performance.md`, made from the results that are kept, each between two marks of its own. No text but tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.nodes_report import table
from benchmarks.parts import CLUSTERS, FIELD, PARTS, ROOMY, SERVERS
from benchmarks.results import Results

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
END = "<!-- end of figures -->"
NONE = "–"
LABELS = {
    "floor": "floor",
    "uws": "µWebSockets",
    "ours": "this server",
    "ws": "ws",
    "websockets": "websockets",
    "socket.io": "Socket.IO",
    "python-socketio": "python-socketio",
}
STORES = {
    "ephemeral": ("ours", "`ephemeral` rooms: nothing is kept"),
    "log": ("ours", "rooms with a log in memory"),
    "sqlite": ("ours-sqlite", "stored in SQLite, synced to the disk"),
    "postgresql": ("ours-postgresql", "stored in PostgreSQL, synced to the disk"),
}
Kept = dict[str, Results]


def begin_of(name: str) -> str:
    return f"<!-- figures: {name} (python -m benchmarks plot) -->"


def number(value: float | None, digits: int | None = None) -> str:
    """Three figures that say something, thousands apart; `digits`: after the point."""
    if value is None:
        return NONE
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def size(value: str) -> str:
    """Bytes, as a person writes them."""
    return f"{int(value) // 1024} KB" if int(value) >= 1024 else f"{value} B"


def heads(contestants: Iterable[str]) -> list[str]:
    return ["", *(f"**{LABELS[name]}**" if name == "ours" else LABELS[name] for name in contestants)]


def bold(name: str, text: str) -> str:
    return f"**{text}**" if name == "ours" and text != NONE else text


def about(*found: Results) -> str:
    """When, how often and on what, in one line."""
    record = found[0].record
    machine = record["machine"]
    dates = sorted({one.record["date"] for one in found})
    counts = sorted({rounds for one in found if (rounds := one.record.get("rounds"))})
    times = f"{counts[0]} round{'s' * (counts[0] > 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} rounds" if counts else ""
    medians = f"Medians of {times}, " if times and counts[-1] > 1 else f"{times}, " if times else ""
    return (
        f"{medians}{' and '.join(dates[:: max(1, len(dates) - 1)])}, {machine['cores']} cores ({machine['processor']}), CPython {machine['python']}."
    )


def versions(*found: Results) -> str:
    """Of the peers, each package once."""
    known: dict[str, str] = {}
    for one in found:
        for packages in one.record.get("versions", {}).values():
            known |= {name: version for name, version in packages.items() if name not in ("aibos-realtime", "python")}
    return ", ".join(f"{name} {version.removeprefix('v')}" for name, version in sorted(known.items()))


def summary(results: Results) -> str:
    """For a terminal: what the part is about, by point and contestant."""
    points = list(dict.fromkeys(point for name in results.contestants for point in results.points(name)))
    figure = "cpu_us" if any("cpu_us" in found for name in results.contestants for found in results.rounds(name, points[0])) else "open_cpu_us"
    rows = [[point, *(number(results.median(name, point, figure)) for name in results.contestants)] for point in points]
    what = "µs CPU per delivery" if figure == "cpu_us" else "µs CPU to open a session"
    return f"\n{results.part}, {what}:\n\n{table(['', *results.contestants], rows)}\n"


# — side by side —


def side_by_side(kept: Kept) -> str:
    wanted = [
        ("fan-out, one event at a time: µs CPU", "fanout", "cpu_us"),
        ("burst, 16 on the way: µs CPU", "burst", "cpu_us"),
        ("request and answer: µs CPU", "request", "cpu_us"),
        ("opening a session: µs CPU", "open", "open_cpu_us"),
        ("the same, p99: ms", "open", "open_p99_ms"),
        ("idle client: KB", "idle", "kb_per_client"),
        ("fan-out at half load, p50: ms", "half", "p50_ms"),
        ("the same, p99: ms", "half", "p99_ms"),
    ]
    rows = []
    for label, part, figure in wanted:
        values = [(name, kept[part].median(name, next(iter(PARTS[part].points)), figure)) for name in FIELD] if part in kept else []
        rows.append([label, *(bold(name, number(value)) for name, value in values)] if values else [label, *[NONE] * len(FIELD)])
    found = [kept[part] for part in dict.fromkeys(part for _, part, _ in wanted) if part in kept]
    pace = f" Half load: {kept['half'].record['loads']['1000']['rate']:g} events a second." if "half" in kept else ""
    return f"{table(heads(FIELD), rows)}\n\n{about(*found)}{pace} {versions(*found)}."


def ratios(kept: Kept) -> str:
    others = ("floor", "uws", "ws", "python-socketio")
    wanted = [
        ("fan-out", "fanout", "cpu_us"),
        ("burst", "burst", "cpu_us"),
        ("request and answer", "request", "cpu_us"),
        ("opening a session", "open", "open_cpu_us"),
        ("memory of an idle client", "idle", "kb_per_client"),
        ("p99 at half load", "half", "p99_ms"),
    ]
    rows = []
    for label, part, figure in wanted:
        point = next(iter(PARTS[part].points))
        rows.append([label, *(number(kept[part].ratio("ours", other, point, figure) if part in kept else None, 2) for other in others)])
    return table(["this server / the other", *(LABELS[other] for other in others)], rows)


# — curves —


def _curve(results: Results, contestants: tuple[str, ...], figure: str, first: str, label: Callable[[str], str]) -> str:
    """A row for each point, a column for each contestant."""
    rows = [
        [label(point), *(bold(name, number(results.median(name, point, figure))) for name in contestants)] for point in PARTS[results.part].points
    ]
    return table([first, *heads(contestants)[1:]], rows)


def _ours(results: Results, label: Callable[[str], str]) -> list[list[str]]:
    figures = (("event_cpu_us", None), ("p50_ms", None), ("p99_ms", None), ("peak_mb", 0))
    return [
        [label(point), *(number(results.median("ours", point, name), digits) for name, digits in figures)] for point in PARTS[results.part].points
    ]


def _plain(value: str) -> str:
    return f"{int(value):,}"


def _spread(value: str) -> str:
    load = PARTS["rooms"].points[value].load
    return f"{int(value):,} of {load.clients * load.joins // load.rooms:,}"


def curve(part: str, contestants: tuple[str, ...], first: str, label: Callable[[str], str]) -> Callable[[Kept], str]:
    def draw(kept: Kept) -> str:
        results = kept[part]
        costs = _curve(results, contestants, "cpu_us", first, label)
        mine = table([first, "this server: µs CPU an event", "p50, ms", "p99, ms", "memory, MB"], _ours(results, label))
        return f"µs of CPU per delivery:\n\n{costs}\n\n{mine}\n\n{about(results)}"

    return draw


def connections(kept: Kept) -> str:
    results = kept["connections"]
    memory = _curve(results, SERVERS, "kb_per_client", "clients", _plain)
    cpu = _curve(results, SERVERS, "open_cpu_us", "clients", _plain)
    return f"KB per client:\n\n{memory}\n\nµs of CPU to open one, 64 at the same time:\n\n{cpu}\n\n{about(results)}"


def nodes(kept: Kept) -> str:
    results = kept["nodes"]
    figures = ("cpu_us", "beside_us", "p50_ms", "p99_ms")
    rows = [
        [
            f"{LABELS[name]}, {point} node{'s' * (point != '1')}",
            *(NONE if point == "1" and figure == "beside_us" else number(results.median(name, point, figure)) for figure in figures),
        ]
        for name in CLUSTERS
        for point in PARTS["nodes"].points
    ]
    head = ["", "µs CPU of all nodes per delivery", "of Redis per event", "last member p50, ms", "p99"]
    return f"{table(head, rows)}\n\n{about(results)} {versions(results)}."


def two_nodes(kept: Kept) -> str:
    record: dict[str, Any] = kept["two-nodes"].results[""]
    found = record["results"]

    def get(name: str, work: str, figure: str, setting: str = "nodes", digits: int | None = 0) -> str:
        value = found.get(name, {}).get(work, {}).get(setting, {}).get(figure)
        return number(value, digits)

    def of_redis(name: str, work: str) -> str:
        return f"{get(name, work, 'publisher_cpu_us')} ({get(name, work, 'redis_cpu_us')})"

    def alone(name: str, work: str, figure: str, digits: int) -> str:
        return f"{get(name, work, figure, digits=digits)} ({get(name, work, figure, 'alone', digits)})"

    rows = [
        ["publish by a client, 64 on the way: µs CPU of its node (and of Redis)", *(of_redis(name, "publish") for name in CLUSTERS)],
        ["broadcast by the node's own program", *(of_redis(name, "broadcast") for name in CLUSTERS)],
        ["the same publish, at the node that passes it on to one member", *(get(name, "relay", "member_cpu_us") for name in CLUSTERS)],
        [
            "delivery to 500 members at the other node, µs CPU each (and at a single node)",
            *(alone(name, "delivery-500", "member_cpu_us", 1) for name in CLUSTERS),
        ],
        ["from sending to reading, p50, ms (and at a single node)", *(alone(name, "latency", "p50_ms", 2) for name in CLUSTERS)],
        ["p99", *(alone(name, "latency", "p99_ms", 1) for name in CLUSTERS)],
    ]
    return f"{table(heads(CLUSTERS), rows)}\n\n{about(kept['two-nodes'])}"


# — durability —


def durable(kept: Kept) -> str:
    results = kept["durable"]
    rows = []
    for point, (name, label) in STORES.items():
        ratio = results.ratio(name, "ours", point, "cpu_us", "ephemeral")
        figures = (number(results.median(name, point, figure)) for figure in ("cpu_us", "p50_ms", "p99_ms"))
        cpu, *times = figures
        rows.append([label, cpu, number(ratio, 2), *times])
    return f"{table(['', 'µs CPU per delivery', 'ratio', 'last member p50, ms', 'p99'], rows)}\n\n{about(results)}"


def publishes(kept: Kept) -> str:
    labels = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "memory": "without a store, for comparison"}
    head = ["", "publishes a second", "µs CPU per publish", "events per commit"]
    found = kept["publishes"].results
    wanted = (("publishes per second", 0), ("µs CPU per publish", None), ("events per commit", 0))
    rows = [[labels[name], *(number(figures[figure] or None, digits) for figure, digits in wanted)] for name, figures in found.items()]
    return f"{table(head, rows)}\n\n{about(kept['publishes'])}"


def store(kept: Kept) -> str:
    found = kept["store"].results["sqlite"]
    labels = {
        "newest_50_ms": "`get_messages(limit=50)`: ms",
        "before_50_ms": "the same, before a point",
        "after_50_oldest_first_ms": "after a point, oldest first",
        "offset_1000_ms": "skipping a thousand",
        "store_one_ms": "one message stored alone: ms",
        "stored_in_batches_per_second": "messages stored a second, in batches of 500",
    }
    rows = [[label, number(found[figure])] for figure, label in labels.items()]
    head = [f"SQLite with {number(found['rows'], 0)} messages", ""]
    return f"{table(head, rows)}\n\n{about(kept['store'])}"


def queue(kept: Kept) -> str:
    found = kept["queues"].results[""]
    rows = []
    for row in found["results"]:
        own = {name: version for name, version in row["versions"].items() if name not in ("redis", "hiredis", "uvloop")}
        label = "**this queue**" if row["name"] == "ours" else f"{row['name']} {own.get(row['name'], '')}".strip()
        rows.append([label, *(number(row[kind], 0) for kind in ("sent", "handled", "both"))])
    head = [f"{found['messages']:,} messages: a second", "sent", "handled", "one after the other"]
    return f"{table(head, rows)}\n\n{about(kept['queues'])}"


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Kept], str]]] = {
    "side by side": (("fanout",), side_by_side),
    "ratios": (("fanout",), ratios),
    "members": (("members",), curve("members", FIELD, "members", _plain)),
    "rooms": (("rooms",), curve("rooms", ROOMY, "rooms, of members", _spread)),
    "payload": (("payload",), curve("payload", FIELD, "payload", size)),
    "connections": (("connections",), connections),
    "nodes": (("nodes",), nodes),
    "two nodes": (("two-nodes",), two_nodes),
    "durable": (("durable",), durable),
    "publishes": (("publishes",), publishes),
    "store": (("store",), store),
    "queue": (("queues",), queue),
}


def fill(text: str, name: str, drawn: str) -> str:
    """The page with this between the two marks. Raises ValueError where they are missing."""
    begin = begin_of(name)
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"the page has no {begin} … {END}")
    return f"{before}{begin}\n\n{drawn}\n\n{END}{after}"


def fill_page(text: str, kept: Kept) -> str:
    """The page with every table that there are results for."""
    for name, (parts, draw) in TABLES.items():
        if all(part in kept for part in parts):
            text = fill(text, name, draw(kept))
    return text


def fill_all(kept: Kept, page: Path = PAGE) -> list[Path]:
    """Write the page; what was written."""
    text = page.read_text()
    filled = fill_page(text, kept)
    if filled == text:
        return []
    page.write_text(filled)
    return [page]


def names_in(text: str) -> list[str]:
    """The tables that the page has marks for."""
    return re.findall(r"<!-- figures: (.*?) \(python -m benchmarks plot\) -->", text)
