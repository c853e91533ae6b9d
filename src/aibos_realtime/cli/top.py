"""`aibos-realtime top`: what the servers do at this moment, drawn anew every second. It asks the HTTP API; `top_screen` draws."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exits import ExitCode, Failure
from .keyboard import Keyboard
from .output import out
from .target import ApiKeyOption, TokenOption, UrlOption

if TYPE_CHECKING:
    from ..admin.reports import ActReport, NodeReport, RoomReport, Sample
    from .api import Api

EVERY = 1.0
"""Seconds between two looks."""
PATIENCE = 5.0
"""Seconds for one answer."""
KEPT = 60
"""Seconds that the curves show."""
AVERAGED = 5.0
"""Seconds over which a rate is the average."""
ROOMS, ROOMS_EVERY = 1000, 5
"""Rooms that are compared, and every how many looks."""
ACTS = 30
REMEMBERED = 30.0
"""Seconds for which a node that answers no more is shown: it has left, died, or hangs."""
FINAL = (ExitCode.TOKEN, ExitCode.PERMISSION, ExitCode.USAGE)
"""What no further look would change."""


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once, and print it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a second, with --once a single one.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Watch the servers work, second by second.

    Connections, events, latency, nodes, rooms, and who comes and goes. It goes on while a server restarts. q or Ctrl-C ends it.
    """
    from .api import find_api

    if not once and not as_json and not out.is_terminal:
        raise Failure("top draws on a terminal: add --once or --json.", ExitCode.USAGE)
    api = find_api(url, token, api_key)
    api.timeout = PATIENCE
    observer = Observer(api)
    first = observer.look()
    if once:
        _print(first, as_json)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(observer, first, as_json)
    except KeyboardInterrupt:
        pass


def _run(observer: Observer, look: Look, as_json: bool) -> None:
    from .top_screen import Screen

    trouble = ""
    with Keyboard() as keyboard, _Lines() if as_json else Screen(observer.where) as shown:
        while True:
            shown.show(look, trouble)
            if "q" in keyboard.wait(EVERY).lower():
                return
            try:
                look, trouble = observer.look(), ""
            except Failure as failure:
                if failure.code in FINAL:
                    raise
                trouble = str(failure)


class _Lines:
    """One JSON object at a time; while no server answers, with an `error` alone."""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, look: Look, trouble: str) -> None:
        out.json({"time": time.time(), "error": trouble} if trouble else look.to_json())


# — looking —


@dataclass(frozen=True)
class Rates:
    """Of one node, a second; None where it has said too little yet."""

    events: float | None = None
    deliveries: float | None = None
    messages_in: float | None = None


@dataclass(frozen=True)
class Look:
    """What all nodes told at one moment.

    `silent`: nodes that told something shortly before, and do not any more. `rates`: by node id. `rooms`: the busiest first. `events`, `deliveries`:
    of each of the last seconds, all nodes together, oldest first; an event counts on every node that it reaches.
    """

    at: float
    nodes: Sequence[NodeReport]
    silent: Sequence[NodeReport]
    rates: dict[str, Rates]
    rooms: Sequence[RoomReport]
    has_more_rooms: bool
    acts: Sequence[ActReport]
    events: list[float] = field(default_factory=list)
    deliveries: list[float] = field(default_factory=list)

    def total_rate(self, name: str) -> float | None:
        """Of all nodes that can say it."""
        found = [rate for one in self.rates.values() if (rate := getattr(one, name)) is not None]
        return sum(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """For scripts; rates are per second."""
        nodes = []
        for node in self.nodes:
            wire, rates = node.to_wire(), self.rates[node.id]
            del wire["samples"]
            nodes.append(wire | {"eventsRate": rates.events, "deliveriesRate": rates.deliveries, "messagesInRate": rates.messages_in})
        totals = {
            "connections": sum(node.connections for node in self.nodes), "rooms": len(self.rooms), "moreRooms": self.has_more_rooms,
            "eventsRate": self.total_rate("events"), "deliveriesRate": self.total_rate("deliveries"),
        }  # fmt: skip
        return {
            "time": self.at, "totals": totals, "nodes": nodes, "silent": [node.name for node in self.silent],
            "rooms": [room.to_wire() for room in self.rooms[:ACTS]], "acts": [act.to_wire() for act in self.acts],
        }  # fmt: skip


class Observer:
    """Asks, and remembers the samples of each node. `where`: the server that it asks."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.where = api.base
        self._samples: dict[str, deque[Sample]] = {}
        self._known: dict[str, tuple[NodeReport, float]] = {}
        """By node id: what it told last, and when (monotonic)."""
        self._rooms: tuple[Sequence[RoomReport], bool] = ((), False)
        self._looks = 0

    def look(self) -> Look:
        """Raises `Failure`."""
        from ..admin.reports import ActReport, NodeReport
        from .rooms import fetch_rooms

        last = [samples[-1].time if samples else 0.0 for samples in self._samples.values()]
        nodes = self._api.get_list("/nodes", "nodes", NodeReport, samples=KEPT + 1, since=min(last, default=0.0))
        self._remember(nodes)
        if self._looks % ROOMS_EVERY == 0:
            found, has_more = fetch_rooms(self._api, None, ROOMS)
            self._rooms = sorted(found, key=lambda room: (-room.connection_count, room.id)), has_more
        acts = self._api.get_list("/acts", "acts", ActReport, limit=ACTS)
        self._looks += 1
        every = list(self._samples.values())
        return Look(
            time.time(), nodes, self._find_silent(nodes), {id: rates_of(samples) for id, samples in self._samples.items()}, *self._rooms, acts,
            curve(every, "events"), curve(every, "deliveries"),
        )  # fmt: skip

    def _find_silent(self, nodes: Iterable[NodeReport]) -> list[NodeReport]:
        """Those that told something shortly before. One that was started anew in the meantime, under the same name, is not among them."""
        now = time.monotonic()
        self._known = {id: known for id, known in self._known.items() if now - known[1] < REMEMBERED} | {one.id: (one, now) for one in nodes}
        living = {name for one in nodes for name in (one.id, one.name)}
        return [node for id, (node, _) in self._known.items() if id not in living and node.name not in living]

    def _remember(self, nodes: Iterable[NodeReport]) -> None:
        """Forget the nodes that are gone, and add what is new of the others."""
        kept, self._samples = self._samples, {}
        for node in nodes:
            samples = self._samples[node.id] = kept.get(node.id, deque(maxlen=KEPT + 1))
            for sample in sorted(node.samples, key=lambda one: one.time):
                if not samples or sample.time > samples[-1].time:
                    samples.append(sample)


def rates_of(samples: Sequence[Sample]) -> Rates:
    """The average over the last seconds."""
    if not samples:
        return Rates()
    newest = samples[-1]
    oldest = next(one for one in samples if one.time >= newest.time - AVERAGED - 0.5)
    seconds = newest.time - oldest.time
    if seconds <= 0:
        return Rates()
    return Rates(*(max(0, getattr(newest, name) - getattr(oldest, name)) / seconds for name in ("events", "deliveries", "messages_in")))


def curve(nodes: Iterable[Sequence[Sample]], name: str) -> list[float]:
    """How many a second, of all nodes together, oldest first; up to the second that every node has told of."""
    sums: dict[int, float] = {}
    end: int | None = None
    for samples in nodes:
        for before, after in pairwise(samples):
            second = int(after.time)
            sums[second] = sums.get(second, 0.0) + max(0.0, (getattr(after, name) - getattr(before, name)) / (after.time - before.time))
        if len(samples) > 1:
            end = min(int(samples[-1].time), end) if end is not None else int(samples[-1].time)
    if end is None:
        return []
    return [sums.get(second, 0.0) for second in range(max(min(sums), end - KEPT + 1), end + 1)]


def _print(look: Look, as_json: bool) -> None:
    from .top_screen import act_rows, facts, node_rows, room_rows

    if as_json:
        out.json(look.to_json())
        return
    for line in facts(look):
        out.line(*line)
    for rows in (node_rows(look, wide=True), room_rows(look)[:11], act_rows(look)[:11]):
        if len(rows) > 1:
            out.line()
            out.columns(rows)
