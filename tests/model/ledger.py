"""What was ever given a position, and what anybody was told of it: the plain book by which the model judges."""

from __future__ import annotations

from msgspec import Struct

from aibos_realtime.backends.base import Audience
from aibos_realtime.backends.shared_log import Append, Appended
from aibos_realtime.protocol.messages import Position
from aibos_realtime.testing.shared_log import WINDOW, MemoryLog

Place = tuple[str, str, int]
"""room, epoch, offset"""


class Entry(Struct, frozen=True):
    """An event that was given a position."""

    id: str
    event: str
    data: bytes
    user_id: str | None
    audience: Audience | None


class Fault(AssertionError):
    """The product broke a promise."""


class Ledger:
    """`losses`: how often the log lost something; what is judged by an earlier count no longer holds."""

    def __init__(self) -> None:
        self.entries: dict[Place, list[Entry]] = {}
        """Several where a log went back in time: the last one stands."""
        self.tops: dict[tuple[str, str], int] = {}
        """(room, epoch) → the highest offset ever given."""
        self.told: dict[Place, str] = {}
        """Position → the id of the event that somebody was told is there."""
        self.losses = 0
        self.faults: list[str] = []
        self._keyed: dict[tuple[str, str | None, str], tuple[float, int]] = {}

    def note(self, event: Append, position: Position, now: float) -> None:
        """The log has appended an event."""
        draft = event.draft
        place = (draft.room, position.epoch, position.offset)
        self.entries.setdefault(place, []).append(Entry(draft.id, draft.event, draft.data, draft.user_id, draft.audience))
        self.tops[place[:2]] = max(position.offset, self.tops.get(place[:2], 0))
        if draft.keyed:
            key = (draft.room, draft.user_id, draft.id)
            at, losses = self._keyed.get(key, (-WINDOW, self.losses))
            if now - at < WINDOW and losses == self.losses:
                self.faults.append(f"{key} was published twice within the window")  # raised here, it would be told to the broker
            self._keyed[key] = (now, self.losses)

    def tell(self, place: Place, id: str, whom: str) -> None:
        """Somebody was told that an event is at a position."""
        if (known := self.told.setdefault(place, id)) != id:
            raise Fault(f"{whom} was told that {place} is {id}, and somebody else that it is {known}")

    def find(self, place: Place, id: str) -> Entry | None:
        return next((entry for entry in self.entries.get(place, []) if entry.id == id), None)

    def is_hidden(self, place: Place, user: str | None) -> bool:
        """Whether an event is not for a user, in one of the lives of its position."""
        return any(entry.audience is not None and user in entry.audience.exclude for entry in self.entries.get(place, []))


class JournaledLog(MemoryLog):
    """A log that writes down what it appends."""

    ledger: Ledger

    def be_replicated(self) -> None:
        """A fail-over loses nothing that is there now."""
        self._undo.clear()

    def _append(self, shard: int, event: Append) -> Appended:
        outcome = super()._append(shard, event)
        if outcome.status == "appended" and outcome.position is not None:
            self.ledger.note(event, outcome.position, self.clock.monotonic())
        return outcome
