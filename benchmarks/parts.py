"""What is measured, as data: the works side by side, the curves, and the benchmarks that are programs of their own. Nothing here runs anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

FIELD = ("floor", "uws", "ours", "ws", "websockets", "socket.io", "python-socketio")
SERVERS = FIELD[1:]  # the floor knows one room, and keeps nothing of a client
ROOMY = SERVERS[:-1]  # with 10,000 clients, python-socketio takes longer than all others together
CLUSTERS = ("ours", "socket.io", "python-socketio")


@dataclass(frozen=True)
class Load:
    """What the load does; the names are those of `load.c`."""

    work: str = "fanout"
    room: str = "live"  # rooms called live:… keep no events, with this project; bench:… are those of its defaults
    clients: int = 1_000
    rooms: int = 1
    joins: int = 1
    opening: int = 64
    window: int = 1
    publishers: int = 1  # in each room
    payload: int = 150
    rate: float = 0.0
    warm: float = 0.3
    seconds: float = 1.0

    def words(self) -> list[str]:
        return [f"{name}={value}" for name, value in asdict(self).items()]

    def shrink(self) -> Load:
        """As small as it can be and still run."""
        clients = max(10, self.clients // 20)
        return replace(self, clients=clients, rooms=min(self.rooms, clients), warm=0.05, seconds=0.1, rate=self.rate / 4)


@dataclass(frozen=True)
class Point:
    """`only`: the contestants, where they differ from the part's. `nodes`: with 0, a single one without Redis."""

    load: Load
    nodes: int = 0
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Points by what stands on the axis; every contestant is measured at each of them, in every round. `pacers`: the load is paced at half of what
    the first of them that is there reaches.
    """

    title: str
    points: dict[str, Point]
    contestants: tuple[str, ...] = SERVERS
    rounds: int = 1
    pacers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A benchmark that is a program and prints JSON. `runs`: arguments by what the result is called; `quick`: more of them for small numbers;
    `option`: the one that gives the number of rounds, of which the program takes the medians.
    """

    title: str
    runs: dict[str, list[str]]
    quick: list[str]
    needs_peers: bool = False
    option: str = ""
    rounds: int = 1


def _one(load: Load) -> dict[str, Point]:
    return {str(load.clients): Point(load)}


WORKS = {
    "fanout": Part("one event at a time to 1,000 members of a room", _one(Load()), FIELD, rounds=5),
    "burst": Part("the same, with 16 events on the way", _one(Load(window=16)), FIELD, rounds=5),
    "request": Part("100 clients, each asks a handler and waits for the answer", _one(Load(work="request", clients=100)), FIELD, rounds=5),
    "open": Part("sessions opened, eight at the same time: token, join", _one(Load(work="idle", clients=2_000, opening=8)), FIELD, rounds=3),
    "idle": Part("10,000 silent clients, each joined to a room", _one(Load(work="idle", clients=10_000))),
    "half": Part(
        "one event at a time to 1,000 members, paced at half of what µWebSockets reaches",
        _one(Load(seconds=3.0)),
        FIELD[:-1],  # python-socketio is far from keeping up
        rounds=3,
        pacers=("uws", "ours"),
    ),
    "durable": Part(
        "the fan-out in rooms that keep their events",
        {
            "ephemeral": Point(Load(), only=("ours",)),
            "log": Point(Load(room="bench"), only=("ours",)),
            "sqlite": Point(Load(room="bench"), only=("ours-sqlite",)),
            "postgresql": Point(Load(room="bench"), only=("ours-postgresql",)),
        },
        rounds=3,
    ),
}


def _rooms(rooms: int, joins: int = 1) -> Point:
    members = 10_000 * joins // rooms
    return Point(Load(clients=10_000, rooms=rooms, joins=joins, window=10_000 // members))


CURVES = {
    "members": Part(
        "one event at a time to a room of so many members", {str(count): Point(Load(clients=count)) for count in (10, 100, 1_000, 10_000)}, FIELD
    ),
    "rooms": Part(
        "10,000 deliveries on the way, spread over so many rooms; the last: 10,000 rooms of ten members",
        {str(rooms): _rooms(rooms) for rooms in (1, 10, 100, 1_000)} | {"10000": _rooms(10_000, joins=10)},
        ROOMY,
    ),
    "payload": Part(
        "one event of so many bytes at a time to 100 members",
        {str(size): Point(Load(clients=100, payload=size, seconds=0.8)) for size in (64, 256, 1_024, 4_096, 16_384, 65_536)},
        FIELD,
    ),
    "connections": Part(
        "so many silent clients, each joined to a room",
        {str(count): Point(Load(work="idle", clients=count)) for count in (100, 1_000, 12_000)},
    ),
    "nodes": Part(
        "one event at a time to 1,200 members spread over so many nodes; one node without Redis, several with it",
        {str(nodes): Point(Load(room="bench", clients=1_200), nodes=nodes if nodes > 1 else 0) for nodes in (1, 2, 3)},
        CLUSTERS,
    ),
}
PARTS = WORKS | CURVES

PROGRAMS = {
    "two-nodes": Program(
        "two nodes on one Redis: what a publish and a delivery cost",
        {"": ["benchmarks/nodes.py", "publish", "broadcast", "relay", "delivery-500", "latency", "--json"]},
        quick=["--quick"],
        needs_peers=True,
        option="--rounds",
    ),
    "publishes": Program(
        "durable publishes a second, 64 on the way",
        {
            "sqlite": ["-m", "benchmarks.publishes"],
            "postgresql": ["-m", "benchmarks.publishes", "--postgres"],
            "memory": ["-m", "benchmarks.publishes", "--database-url", "memory://"],
        },
        quick=["--publishes", "640"],
        option="--rounds",
        rounds=3,
    ),
    "store": Program(
        "the store with half a million messages in it",
        {"sqlite": ["benchmarks/persistence.py", "--json", "--messages", "500000"]},
        quick=["--messages", "20000"],
    ),
    "queues": Program(
        "the queue beside the Python queues that a user would pick",
        {"": ["benchmarks/queues.py", "--json", "--messages", "10000"]},
        quick=["--messages", "200"],
        needs_peers=True,
        option="--runs",
        rounds=2,
    ),
}
ALL = [*WORKS, *CURVES, *PROGRAMS]
