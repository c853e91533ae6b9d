"""Who a broker hands its events to, in tests: it writes down what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from aibos_realtime import Position
from aibos_realtime.backends.base import LoggedEvent


@dataclass
class Recorder:
    """See `backends.base.Receiver`. `watched`: the rooms whose events are wanted."""

    delivered: list[LoggedEvent] = field(default_factory=list)
    volatile: list[LoggedEvent] = field(default_factory=list)
    resyncs: list[tuple[str, Position, int]] = field(default_factory=list)
    """(room, position, how many events had been delivered before)."""
    watched: set[str] = field(default_factory=set)

    def deliver(self, event: LoggedEvent) -> None:
        self.delivered.append(event)

    def deliver_volatile(self, event: LoggedEvent) -> None:
        self.volatile.append(event)

    def resync(self, room: str, position: Position) -> None:
        self.resyncs.append((room, position, len(self.delivered)))

    def is_watched(self, room: str) -> bool:
        return room in self.watched
