"""What a load process is told, and what it tells: JSON, one message a line, over its stdin and stdout.

The conversation: `Plan` in; `Progress` out, time and again; `Opened` out; `Go` in; `Report` out. `Stop` in ends it early. Tokens come this way, so
that none stands in a list of processes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from .histogram import HistogramRecord
from .judge import RoomRecord


class Scenario(StrEnum):
    """What is asked of the server."""

    FANOUT = "fanout"
    CONNECT = "connect"
    REQUEST = "request"
    IDLE = "idle"


class Place(Struct, frozen=True):
    """Where the server is: `host` as the URL has it (for TLS and the Host field), `addresses` found for it, `path` with the query."""

    host: str
    port: int
    path: str
    is_secure: bool
    addresses: list[str]

    @property
    def name(self) -> str:
        """`host:port`, for errors."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class ClientPlan(Struct, frozen=True):
    """One client. `rooms`: the numbers of those that it joins. `sender`: its number among those that send, None where it only receives."""

    token: str
    rooms: list[int] = []
    sender: int | None = None


class Plan(Struct, frozen=True, tag="plan"):
    """What one process is to do.

    `rooms`: names of all rooms, of which clients have the numbers. `senders`: of all processes. `rate`: of all processes, a second; 0: as fast as
    is answered. `payload`: bytes. `duration`: seconds. `event`: what is requested, with `data`, or content of our own where that is None. `run`: the
    run's name, which is in every event. `base`: the moment that all times of the run are counted from, by the machine's monotonic clock, in
    nanoseconds. The clients of all processes have numbers: `first` is that of the first one here, and `every` the step to the next.
    """

    scenario: Scenario
    place: Place
    codec: str
    clients: list[ClientPlan]
    rooms: list[str]
    senders: int
    rate: float
    payload: int
    duration: float
    event: str
    run: str
    base: int
    first: int
    every: int
    data: Any = None


class Go(Struct, frozen=True, tag="go"):
    """Begin to send. `at`: microseconds since the base."""

    at: int


class Stop(Struct, frozen=True, tag="stop"):
    """End early, and report."""


class Progress(Struct, frozen=True, tag="progress"):
    """How far a process is. `latency`: what the scenario measures, so far."""

    opened: int
    sent: int
    answered: int
    delivered: int
    failed: int
    waiting: str
    """Why nothing goes on at the moment; empty otherwise."""
    latency: HistogramRecord


class Opened(Struct, frozen=True, tag="opened"):
    """All clients are there. `problem`: or are not, and why; then no `Go` is waited for."""

    problem: str = ""
    kind: str = ""
    """What sort of problem: the code of an error, of a close, an HTTP status, or `network`."""


class Report(Struct, frozen=True, tag="report"):
    """All that a process has seen. Histograms: microseconds; see `fleet.Tally`. `cpu`, `seconds`: while it was sending."""

    opened: int
    present: int
    """Clients that were there at the end."""
    opening_seconds: float
    seconds: float
    cpu: float
    memory: int
    """Resident bytes."""
    sent: int
    answered: int
    unanswered: int
    unsent: int
    """What was due and had no connection to go by."""
    bytes_received: int
    reconnects: int
    resyncs: int
    errors: dict[str, int]
    closes: dict[str, int]
    refusals: dict[str, int]
    words: dict[str, list[str]]
    """What the server said with errors, closes and refusals, a few times each."""
    opening: HistogramRecord
    answer: HistogramRecord
    delivery: HistogramRecord
    late: HistogramRecord
    """Of the sending itself: how long after its moment."""
    rooms: dict[int, RoomRecord]


Told = Plan | Go | Stop
Tells = Progress | Opened | Report
