"""What a run of `bench` has come to: the reports of its processes put together, as JSON, as text, and what to do about what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..client.options import name_server
from ..load.crew import Result
from ..load.histogram import Histogram, HistogramRecord
from ..load.judge import Verdict
from ..load.plan import Scenario
from .bench_server import NodeUse
from .exits import ExitCode, Failure

FORMAT = 1
"""Of the JSON: it rises with each change that is not an addition."""
BUSY = 0.9
"""Share of a core from which a load process may be what was measured."""
LATE = 0.005
"""Seconds that one message in a hundred may be sent late before it is said."""


@dataclass(frozen=True)
class Settings:
    """What was asked for. `rooms`: names. `rate`: a second, 0: as fast as is answered. `tokens`: "one" or "minted"."""

    run: str
    url: str
    scenario: Scenario
    clients: int
    rooms: list[str]
    members: int
    senders: int
    rate: float
    payload: int
    duration: float
    processes: int
    codec: str
    event: str
    tokens: str

    def to_wire(self) -> dict[str, Any]:
        return {
            "clients": self.clients, "rooms": len(self.rooms), "firstRoom": self.rooms[0] if self.rooms else None, "members": self.members,
            "senders": self.senders, "rate": self.rate, "payload": self.payload, "duration": self.duration, "processes": self.processes,
            "codec": self.codec, "event": self.event, "tokens": self.tokens,
        }  # fmt: skip


class Outcome:
    """See the module. `nodes`: what the servers said of themselves, where they were asked."""

    def __init__(self, settings: Settings, result: Result) -> None:
        self.settings = settings
        self.is_interrupted = result.is_interrupted
        self.problem = result.problem
        self.nodes: list[NodeUse] = []
        self._began = result.began
        self.reports = reports = result.reports
        self.opening, self.answer, self.delivery, self.late = (
            merge(getattr(report, name) for report in reports) for name in ("opening", "answer", "delivery", "late")
        )
        self.errors, self.closes, self.refusals = (_add(getattr(report, name) for report in reports) for name in ("errors", "closes", "refusals"))
        self.words: dict[str, list[str]] = {}
        for kind, words in (one for report in reports for one in report.words.items()):
            self.words[kind] = list(dict.fromkeys((*self.words.get(kind, ()), *words)))
        self.verdict = Verdict()
        for number in sorted({number for report in reports for number in report.rooms}):
            self.verdict.judge(report.rooms[number] for report in reports if number in report.rooms)
        self.seconds = max((report.seconds for report in reports), default=0.0)
        self.opening_seconds = max((report.opening_seconds for report in reports), default=0.0)

    def total(self, name: str) -> int:
        """A count of all processes together."""
        return sum(int(getattr(report, name)) for report in self.reports)

    def rate(self, count: int) -> float | None:
        """A second, while it was sending."""
        return count / self.seconds if self.seconds > 0 else None

    @property
    def busiest(self) -> float:
        """The largest share of a core that a load process used while it was sending."""
        return max((report.cpu / report.seconds for report in self.reports if report.seconds > 0), default=0.0)

    # — the end —

    @property
    def failure(self) -> Failure | None:
        """What the command says at its end, beside the result, where not all went as it was asked for."""
        if (code := self.code) is ExitCode.DONE:
            return None
        asked, opened = self.settings.clients, self.total("opened")
        if self.problem is not None:
            words = f"{opened:,} of {asked:,} clients were let in, and no more: {self.problem.problem.rstrip('.')}."
            advice = dict.fromkeys((advise(self.problem.kind, self.problem.problem), *self.advice))
            return Failure(" ".join([words, *filter(None, advice)]), code)
        if not self.verdict.is_clean:
            return Failure("Not every member got every event once and in order: see `judged`.", code)
        if code is ExitCode.INTERRUPTED:
            return Failure("Interrupted: the result is of what was done by then.", code)
        if (present := self.total("present")) < asked:
            return Failure(f"{present:,} of {asked:,} clients were there at the end: see `refused` and `closed`.", code)
        return Failure("Not everything was answered as it should be: see `errors` and `unanswered`.", code)

    @property
    def code(self) -> ExitCode:
        """How the command ends. What was asked for and measured, and nothing lost, is `DONE`."""
        if self.problem is not None:
            return code_of(self.problem.kind)
        if not self.verdict.is_clean:
            return ExitCode.FAILED
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        if self.total("present") < self.settings.clients:
            worst = next(iter({**self.closes, **self.refusals}), "network")
            return code_of(worst)
        if self.errors:
            return code_of(next(iter(self.errors)))
        return ExitCode.NO_ANSWER if self.total("unanswered") else ExitCode.DONE

    @property
    def advice(self) -> list[str]:
        """Sentences: what stood in the way, and which option of the server it is."""
        kinds = (*self.refusals, *self.closes, *self.errors)
        found = [advise(kind, words) for kind in kinds for words in self.words.get(kind) or [""]]
        if self.busiest >= BUSY:
            share = f"{self.busiest:.0%} of a core"
            found.append(f"A load process used {share}: bench itself may be what was measured. Raise --processes, or run it on other machines.")
        elif (late := self.late.quantile(0.99)) is not None and late > LATE:
            shown = show_seconds(late)
            found.append(f"1 % of all was sent {shown} late or later: the machine that bench runs on is busy, and the latencies hold that too.")
        return list(dict.fromkeys(one for one in found if one))

    def to_wire(self) -> dict[str, Any]:
        """For JSON: durations in seconds, sizes in bytes."""
        verdict, scenario = self.verdict, self.settings.scenario
        shown: dict[str, Any] = {
            "format": FORMAT, "run": self.settings.run, "scenario": scenario.value, "url": self.settings.url, "startedAt": self._began,
            "seconds": self.seconds, "interrupted": self.is_interrupted,
            "problem": self.problem.problem if self.problem else None, "settings": self.settings.to_wire(),
            "clients": {
                "opened": self.total("opened"), "present": self.total("present"), "openingSeconds": self.opening_seconds,
                "reconnects": self.total("reconnects"), "refusals": dict(self.refusals), "closes": dict(self.closes),
            },
            "opening": self.opening.to_wire(),
        }  # fmt: skip
        if scenario in (Scenario.FANOUT, Scenario.REQUEST):
            shown["messages"] = {
                "sent": self.total("sent"), "answered": self.total("answered"), "unanswered": self.total("unanswered"),
                "unsent": self.total("unsent"), "rate": self.rate(self.total("answered")), "errors": dict(self.errors),
            }  # fmt: skip
            shown["answer"] = self.answer.to_wire()
        if scenario is Scenario.FANOUT:
            shown["deliveries"] = {
                "expected": verdict.expected, "count": verdict.count, "rate": self.rate(verdict.count), "lost": verdict.lost,
                "doubled": verdict.doubled, "reordered": verdict.reordered, "altered": verdict.altered, "announced": verdict.announced,
                "resyncs": self.total("resyncs"), "bytes": self.total("bytes_received"),
            }  # fmt: skip
            shown["delivery"] = self.delivery.to_wire()
        shown["load"] = [
            {"cpu": report.cpu / report.seconds if report.seconds > 0 else None, "memory": report.memory, "clients": report.opened}
            for report in self.reports
        ]
        shown["servers"] = [node.to_wire() for node in self.nodes]
        return shown | {"late": self.late.to_wire(), "words": self.words, "advice": self.advice}


def merge(records: Iterable[HistogramRecord]) -> Histogram:
    """The histograms of all processes as one."""
    merged = Histogram()
    for record in records:
        merged.add(record)
    return merged


def _add(counts: Iterable[dict[str, int]]) -> Counter[str]:
    merged: Counter[str] = Counter()
    for one in counts:
        merged.update(one)
    return merged


# — what to do —

_CODES = {
    "401": ExitCode.TOKEN, "4500": ExitCode.TOKEN, "not_authenticated": ExitCode.TOKEN, "403": ExitCode.PERMISSION, "4507": ExitCode.PERMISSION,
    "permission_denied": ExitCode.PERMISSION, "guests_not_allowed": ExitCode.PERMISSION, "network": ExitCode.NO_SERVER,
    "1006": ExitCode.NO_SERVER, "timeout": ExitCode.NO_ANSWER,
}  # fmt: skip

_PUBLISHES = "limits.publishes_per_second (the role service, which minted tokens of publishers have, has none) and limits.messages_per_second"
_ADVICE: tuple[tuple[str, str, str], ...] = (
    ("429", "handshakes from this address", "Clients of one address are let in slowly: limits.handshakes_per_second_per_address."),
    ("429", "handshakes at this server", "Clients are let in slowly: limits.handshakes_per_second."),
    ("429", "This address has", "One address may have so many connections and no more: raise limits.connections_per_address."),
    ("429", "", "Something asks for fewer handshakes: raise limits.handshakes_per_second and _per_address, or look at the proxy's limits."),
    ("503", "", "The server takes no more connections: raise connections.max_connections, or look whether it is well (/ready)."),
    ("4504", "", "A user may have so many connections and no more: raise limits.connections_per_user, or let bench mint tokens (JWT_SECRET)."),
    ("4008", "", "The server closed clients that did not read fast enough: bench was too slow (--processes), or the network was."),
    ("4013", "", "The server closed clients that it refused too often: see the errors, and lower --rate."),
    ("rate_limited", "", f"The server refused messages for their rate: raise {_PUBLISHES}, lower --rate, or raise --publishers."),
    ("room_full", "", "A room may have so many users and no more: raise rooms.max_users_per_room, or max_users of a pattern of rooms."),
    ("room_limit", "", "There may be so many rooms and no more: raise rooms.max_rooms (of the server) or limits.rooms_per_connection."),
    ("overloaded", "", "The server had too many events waiting for its database: lower --rate, or raise persistence.events_waiting."),
    ("message_too_large", "", "The messages are larger than limits.message_bytes allows: lower --payload."),
    ("1009", "", "The messages are larger than limits.message_bytes allows: lower --payload."),
    ("unknown_event", "", "The server has no handler for this event: name one that it has with --event."),
)
"""(kind, words of the server that it holds for, what to do)."""


def code_of(kind: str) -> ExitCode:
    """The exit code for what a server said or did."""
    return _CODES.get(kind, ExitCode.REFUSED)


def advise(kind: str, words: str) -> str:
    """What to do about an error, a close or a refusal; empty where that is in the words themselves."""
    return next((advice for found, part, advice in _ADVICE if found == kind and part in words), "")


# — text —


def show_url(url: str) -> str:
    """Without what may be a secret: a user, a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{name_server(url)}{parts.path.rstrip('/')}"


def show_seconds(seconds: float | None) -> str:
    """`85 µs`, `1.3 ms`, `240 ms`, `2.1 s`."""
    if seconds is None:
        return "-"
    for size, unit in ((1e-3, "µs"), (1.0, "ms")):
        if seconds < size:
            value = seconds / size * 1e3
            return f"{value:.2g} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
