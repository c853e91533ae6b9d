"""A million connections on paper: what the measured costs of two nodes come to for many, and what would give way first.

    python benchmarks/nodes.py --json > figures.json
    python benchmarks/scale_model.py figures.json
    python benchmarks/scale_model.py figures.json --fill docs/explanation/scale.md     the page's figures, of this run

Arithmetic, no measurement: costs are taken as constant, load as even, and every client as a member of one room. What it cannot see: how a machine
with many cores shares its memory bandwidth and network, how Redis does with hundreds of subscribers, and bursts. A node is a process with one core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as a script, its neighbours are found

from aibos_realtime.backends.redis.layout import CLUSTER_SHARDS  # noqa: E402
from aibos_realtime.hub.rooms import RoomPattern  # noqa: E402
from aibos_realtime.pipeline.throttle import LimitOptions  # noqa: E402
from benchmarks.nodes_report import NOT_ALIKE, describe, table, tables  # noqa: E402

BEGIN, END = "<!-- figures: benchmarks/scale_model.py --fill -->", "<!-- end of figures -->"
LOG = RoomPattern()  # what Redis keeps of a room by default
HANDSHAKES = LimitOptions().handshakes_per_second or 1e9  # a second and node, by default
GB = 1024**3

Placement = Literal["anywhere", "together"]


@dataclass(frozen=True)
class Costs:
    """What one of each costs: CPU in µs of one core, memory in bytes."""

    base_bytes: float  # a node without clients
    base_cpu: float  # the same, a second
    base_redis: float  # a shard without clients, a second
    client_bytes: float  # a client that joined a room
    room_bytes: float  # a room at a node where it has members
    open_cpu: float  # a session, from the handshake to the joined room
    open_redis: float
    room_cpu: float  # the first member of a room at a node: it subscribes
    room_redis: float
    silent_cpu: float  # a client, a second
    silent_redis: float
    room_silent_cpu: float  # a room at a node, a second: whether its position is still that of the log
    room_silent_redis: float
    presence_bytes: float  # a member, in Redis
    room_redis_bytes: float  # a room at a node, in Redis
    publish_cpu: float  # an event, at the node that it was published at
    publish_redis: float
    receive_cpu: float  # an event, at a node with members of the room
    send_redis: float  # an event, for each node that gets it, one event at a time
    log_bytes: float  # an event, in Redis
    delivery_cpu: float  # an event, for each member
    delivery_bytes: float  # on the wire


@dataclass(frozen=True)
class Workload:
    """`deliveries`: a second. `placement`: where a room's members connect, `together` as by a balancer that hashes the room."""

    connections: float = 1_000_000
    deliveries: float = 1_000_000
    room_size: float = 100
    session_seconds: float = 1_800
    placement: Placement = "anywhere"

    @property
    def rooms(self) -> float:
        return self.connections / self.room_size

    @property
    def events(self) -> float:
        """Published a second."""
        return self.deliveries / self.room_size


@dataclass(frozen=True)
class Machine:
    """How full a process may be. `busy`: part of a core; `gigabits`: a second, of one process."""

    busy: float = 0.6
    node_bytes: float = 2 * GB
    shard_bytes: float = 8 * GB
    gigabits: float = 5.0


@dataclass(frozen=True)
class Part:
    """One process of many alike: µs of CPU a second by what it is spent on, bytes of memory, gigabits a second sent."""

    cpu: dict[str, float]
    bytes: float
    gigabits: float

    def use(self, busy: float, memory: float, gigabits: float) -> dict[str, float]:
        """How much of what is allowed is used: 1 is all of it."""
        return {"CPU": sum(self.cpu.values()) / 1e6 / busy, "memory": self.bytes / memory, "network": self.gigabits / gigabits}


@dataclass(frozen=True)
class Layout:
    """How many of each, and how one of them is used."""

    workload: Workload
    nodes: int
    shards: int
    node: Part
    shard: Part
    node_use: dict[str, float]
    shard_use: dict[str, float]
    nodes_per_event: float
    room_events: float  # a second, that one room can take: its shard is one core
    ceilings: dict[str, float]  # how many times this load, until something is full of which there cannot be more
    fan_out_seconds: float  # of one event to the members of its room at one node
    return_seconds: float  # until the clients of a lost node are connected again

    @property
    def is_possible(self) -> bool:
        """A room is in one shard, and rooms are spread over a fixed number of them."""
        return self.shards <= min(CLUSTER_SHARDS, max(1, self.workload.rooms))


def read_costs(figures: dict[str, Any], name: str = "ours") -> Costs:
    """The costs from what `nodes.py --json` gave. Raises KeyError for a work that was not run."""
    results = figures["results"][name] | figures["results"]["Redis"]
    found: dict[str, dict[str, float]] = {work: settings["nodes"] for work, settings in results.items()}
    publish, relay, delivery, idle, rooms = (found[work] for work in ("publish", "relay", "delivery-1000", "idle", "idle-rooms"))

    def more(figure: str) -> float:
        """Of a member in a room of its own than of one more in a room."""
        return max(0.0, rooms[figure] - idle[figure])

    return Costs(
        base_bytes=idle["base_mb"] * 1024**2,
        base_cpu=idle["member_base_cpu_us"],
        base_redis=idle["redis_base_cpu_us"],
        client_bytes=idle["member_kb"] * 1024,
        room_bytes=more("member_kb") * 1024,
        open_cpu=idle["member_open_cpu_us"],
        open_redis=idle["redis_open_cpu_us"],
        room_cpu=more("member_open_cpu_us"),
        room_redis=more("redis_open_cpu_us"),
        silent_cpu=idle["member_silent_cpu_us"],
        silent_redis=idle["redis_silent_cpu_us"],
        room_silent_cpu=more("member_silent_cpu_us"),
        room_silent_redis=more("redis_silent_cpu_us"),
        presence_bytes=idle["redis_bytes"],
        room_redis_bytes=more("redis_bytes"),
        publish_cpu=publish["publisher_cpu_us"],
        publish_redis=publish["redis_cpu_us"],
        receive_cpu=max(0.0, relay["member_cpu_us"] - delivery["member_cpu_us"]),
        send_redis=found["pass"]["redis_cpu_us"],
        log_bytes=max(0.0, publish["redis_bytes"]),
        delivery_cpu=delivery["member_cpu_us"],
        delivery_bytes=delivery["bytes"],
    )


def spread(members: float, nodes: float) -> float:
    """On how many of `nodes` a room has members that connected anywhere."""
    return nodes * (1 - math.pow(1 - 1 / nodes, members))


def nodes_of_room(load: Workload, nodes: float) -> float:
    if load.placement == "anywhere":
        return spread(load.room_size, nodes)
    return max(1.0, load.room_size * nodes / load.connections)


def first_members(load: Workload, nodes: float) -> float:
    """Part of the joins that bring a room to a node where it had nobody, the load being steady."""
    if load.placement == "anywhere":
        return math.pow(1 - 1 / nodes, load.room_size - 1)
    return nodes_of_room(load, nodes) / load.room_size


def lay_node(load: Workload, costs: Costs, nodes: float) -> Part:
    here, joins = nodes_of_room(load, nodes), load.connections / load.session_seconds
    total = {
        "deliver": load.deliveries * costs.delivery_cpu,
        "receive": load.events * here * costs.receive_cpu,
        "publish": load.events * costs.publish_cpu,
        "open": joins * (costs.open_cpu + first_members(load, nodes) * costs.room_cpu),
        "keep": load.connections * costs.silent_cpu + load.rooms * here * costs.room_silent_cpu,
    }
    memory = costs.base_bytes + (load.connections * costs.client_bytes + load.rooms * here * costs.room_bytes) / nodes
    sent = load.deliveries * costs.delivery_bytes * 8 / 1e9 / nodes
    return Part({name: cpu / nodes for name, cpu in total.items()} | {"run": costs.base_cpu}, memory, sent)


def lay_shard(load: Workload, costs: Costs, nodes: float, shards: float) -> Part:
    here, joins = nodes_of_room(load, nodes), load.connections / load.session_seconds
    total = {
        "publish": load.events * costs.publish_redis,
        "send": load.events * here * costs.send_redis,
        "open": joins * (costs.open_redis + first_members(load, nodes) * costs.room_redis),
        "keep": load.connections * costs.silent_redis + load.rooms * here * costs.room_silent_redis,
    }
    kept = min(LOG.history_size, load.events / load.rooms * LOG.history_ttl)
    memory = load.connections * costs.presence_bytes + load.rooms * (here * costs.room_redis_bytes + kept * costs.log_bytes)
    sent = load.events * here * costs.delivery_bytes * 8 / 1e9
    return Part({name: cpu / shards for name, cpu in total.items()} | {"run": costs.base_redis}, memory / shards, sent / shards)


def lay_out(load: Workload, costs: Costs, machine: Machine, store_events: float | None = None) -> Layout:
    """The fewest nodes, and for these the fewest shards, that are nowhere fuller than allowed. `store_events`: a second, that the database takes.

    Raises ValueError where no number is enough.
    """
    limits = machine.busy, machine.node_bytes, machine.gigabits
    nodes = fewest(lambda number: max(lay_node(load, costs, number).use(*limits).values()) <= 1)
    of_shard = machine.busy, machine.shard_bytes, machine.gigabits
    shards = fewest(lambda number: max(lay_shard(load, costs, nodes, number).use(*of_shard).values()) <= 1)
    node, shard = lay_node(load, costs, nodes), lay_shard(load, costs, nodes, shards)
    here = nodes_of_room(load, nodes)
    room_events = machine.busy * 1e6 / (costs.publish_redis + here * costs.send_redis)
    all_shards = lay_shard(load, costs, nodes, min(CLUSTER_SHARDS, max(1, load.rooms))).use(*of_shard)
    ceilings = {"all shards": 1 / max(all_shards.values()), "a room's shard": room_events / (load.events / load.rooms)}
    if store_events is not None:
        ceilings["the store"] = store_events / load.events
    openings = min(HANDSHAKES, max(0.0, 1e6 - sum(node.cpu.values())) / (costs.open_cpu + costs.room_cpu))
    return Layout(
        workload=load,
        nodes=nodes,
        shards=shards,
        node=node,
        shard=shard,
        node_use=node.use(*limits),
        shard_use=shard.use(*of_shard),
        nodes_per_event=here,
        room_events=room_events,
        ceilings=ceilings,
        fan_out_seconds=load.room_size / here * costs.delivery_cpu / 1e6,
        return_seconds=load.connections / nodes / max(1, nodes - 1) / openings,
    )


def fewest(is_enough: Callable[[int], bool], most: int = 10_000_000) -> int:
    """The smallest number that is enough, where more is never worse. Raises ValueError past `most`."""
    high = 1
    while not is_enough(high):
        high *= 2
        if high > most:
            raise ValueError("no number of processes is enough")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


# — what is printed —


def fullest(use: dict[str, float]) -> str:
    name = max(use, key=lambda resource: use[resource])
    return f"{name} {use[name]:.0%}"


def shares(cpu: dict[str, float]) -> str:
    """What most of the CPU goes into."""
    total = sum(cpu.values()) or 1.0
    most = sorted(cpu, key=lambda name: -cpu[name])[:2]
    return ", ".join(f"{name} {cpu[name] / total:.0%}" for name in most)


def room_size(load: Workload) -> list[str]:
    return [f"{load.room_size:,.0f} {load.placement}", f"{load.events:,.0f}"]


HEAD = ["rooms of", "events/s", "nodes each", "nodes", "CPU of a node", "GB a node", "shards", "CPU of a shard", "GB a shard", "fullest"]
LIMITS_HEAD = [
    "rooms of",
    "events/s",
    "first ceiling",
    "events/s, one room at most",
    "fan-out at a node, ms",
    "lost node's clients back, s",
    "Gbit/s a node",
    "a shard",
]


def row(layout: Layout) -> list[str]:
    nodes = [f"{layout.nodes_per_event:,.1f}", f"{layout.nodes:,}", f"{sum(layout.node.cpu.values()) / 1e6:.0%}: {shares(layout.node.cpu)}"]
    shards = [f"{layout.shards:,}{' !' * (not layout.is_possible)}", f"{sum(layout.shard.cpu.values()) / 1e6:.0%}: {shares(layout.shard.cpu)}"]
    memory = f"{layout.node.bytes / GB:.2f}", f"{layout.shard.bytes / GB:.2f}"
    full = f"node: {fullest(layout.node_use)}, shard: {fullest(layout.shard_use)}"
    return [*room_size(layout.workload), *nodes, memory[0], *shards, memory[1], full]


def limits_row(layout: Layout) -> list[str]:
    ceiling = min(layout.ceilings, key=lambda name: layout.ceilings[name])
    times = [
        f"{ceiling}: × {layout.ceilings[ceiling]:,.1f}",
        f"{layout.room_events:,.0f}",
        f"{layout.fan_out_seconds * 1e3:,.1f}",
        f"{layout.return_seconds:,.1f}",
    ]
    return [*room_size(layout.workload), *times, f"{layout.node.gigabits:.2f}", f"{layout.shard.gigabits:.2f}"]


def write_tables(layouts: list[Layout], more: list[Layout], machine: Machine, costs: Costs) -> str:
    load = layouts[0].workload
    given = f"{load.connections:,.0f} connections of {load.session_seconds / 60:g} minutes"
    memory = f"{machine.node_bytes / GB:g} GB a node, {machine.shard_bytes / GB:g} GB a shard"
    full = f"a process at most {machine.busy:.0%} busy, {memory}, {machine.gigabits:g} Gbit/s"
    texts = [
        f"{given}, {load.deliveries:,.0f} deliveries a second; {full}. Rooms by size; members connect anywhere, or a room's together.",
        table(HEAD, [row(layout) for layout in layouts]),
        "Nodes can be added; of some things there cannot be more. The first ceiling is the one that is met first, and at how many times this load:",
        table(LIMITS_HEAD, [limits_row(layout) for layout in layouts]),
        f"By deliveries a second, rooms of {more[0].workload.room_size:,.0f}:",
        table(["deliveries/s", *HEAD], [[f"{layout.workload.deliveries:,.0f}", *row(layout)] for layout in more]),
        "What one of each costs (CPU in µs, memory in bytes):",
        table(["", ""], [[name.replace("_", " "), f"{value:,.1f}"] for name, value in asdict(costs).items()]),
    ]
    if not all(layout.is_possible for layout in (*layouts, *more)):
        texts.append(f"! Not possible: more shards than rooms, or than the {CLUSTER_SHARDS} over which rooms are spread.")
    return "\n\n".join(texts)


def fill(page: Path, text: str) -> None:
    """Put the text between the page's two marks. Raises ValueError where they are missing."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} … {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="what `nodes.py --json` printed")
    parser.add_argument("--connections", type=float, default=1_000_000)
    parser.add_argument("--deliveries", type=float, default=1_000_000, help="a second")
    parser.add_argument("--room-sizes", default="10,100,1000,10000,1000000")
    parser.add_argument("--session-minutes", type=float, default=30, help="how long a client stays connected")
    parser.add_argument("--busy", type=float, default=0.6, help="part of a core that a process may use")
    parser.add_argument("--node-gb", type=float, default=2)
    parser.add_argument("--shard-gb", type=float, default=8)
    parser.add_argument("--gigabits", type=float, default=5, help="a second and process")
    parser.add_argument("--store-events", type=float, metavar="N", help="events a second that the database stores, where it has been measured")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fill", type=Path, metavar="PAGE", help="write the tables, and those of the figures, into this page")
    given = parser.parse_args()
    figures = json.loads(given.figures.read_text())
    try:
        costs = read_costs(figures)
    except KeyError as error:
        raise SystemExit(f"{given.figures} lacks {error}: run all works of nodes.py for `ours`") from None
    machine = Machine(given.busy, given.node_gb * GB, given.shard_gb * GB, given.gigabits)

    def load(size: float, deliveries: float, placement: Placement) -> Layout:
        return lay_out(Workload(given.connections, deliveries, size, given.session_minutes * 60, placement), costs, machine, given.store_events)

    placements: tuple[Placement, ...] = ("anywhere", "together")
    sizes = [float(size) for size in given.room_sizes.split(",")]
    layouts = [load(size, given.deliveries, placement) for size in sizes for placement in placements]
    more = [load(100.0, given.deliveries * factor, placement) for factor in (0.1, 1, 10) for placement in placements]
    text = write_tables(layouts, more, machine, costs)
    if given.fill:
        if figures["quick"]:
            raise SystemExit("figures of --quick mean nothing: not written")
        measured = "\n\n".join(f"{title[0].upper()}{title[1:]}:\n\n{rows}" for title, rows in tables(figures))
        fill(
            given.fill,
            f"### Two nodes, measured\n\n{measured}\n\n{describe(figures)}\n\n{NOT_ALIKE}\n\n### A million connections, on paper\n\n{text}",
        )
    elif given.json:
        print(json.dumps({"costs": asdict(costs), "machine": asdict(machine), "layouts": [asdict(layout) for layout in (*layouts, *more)]}))
    else:
        print(f"{'--quick: these figures mean nothing' * figures['quick']}\n{text}".lstrip())


if __name__ == "__main__":
    main()
