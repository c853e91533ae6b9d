"""One room as a client sees it: its place in the log, and the filter that lets each event through once.

A place is what makes "exactly once, in order" possible over many connections. This module sends nothing and waits for nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from .client_readings import JoinedRoom, to_event
from .messages import Event, Position, ServerMessage

RECENT_IDS = 1000
"""Ids that a room remembers: as many as the hot log of a room holds by default."""

Origin = Literal["asked", "stream", "given"]
"""Why a room is there: `join_room`; an own stream (`user:<id>`, `all`); or the server put the socket there."""

Phase = Literal["away", "joining", "live", "behind", "leaving"]
"""away: not on this connection. joining: the answer is awaited, live events are discarded because the answer brings them again.
behind: the inbox was full, live events are discarded until it has room. leaving: nothing more is wanted."""


class ClientRoom:
    """A room with its place. `received`: the last offset that came; `handled`: where the application is."""

    __slots__ = ("_recent", "announced", "epoch", "handled", "is_known", "is_rewinding", "name", "origin", "phase", "presence", "received",
                 "refusals", "retry_at", "rewind")  # fmt: skip

    def __init__(self, name: str, origin: Origin, *, recover: Position | None = None, rewind: int | None = None, presence: bool = False) -> None:
        self.name = name
        self.origin = origin
        self.phase: Phase = "away"
        self.presence = presence
        self.rewind = rewind
        self.is_rewinding = rewind is not None and recover is None
        self.epoch: str | None = None
        self.received = 0
        self.handled: Position | None = None
        self.announced: Position | None = None
        """Of an own stream: where it stood when this connection began."""
        self.is_known = False
        """Whether this client was in it once: then it is joined again after a loss, and left only for good."""
        self.refusals = 0
        self.retry_at: float | None = None
        self._recent: dict[str, None] = {}
        if recover is not None:
            self.place(recover)
            self.handled = recover

    @property
    def position(self) -> Position | None:
        """The place up to which everything came; None while there is none."""
        return None if self.epoch is None else Position(self.epoch, self.received)

    def place(self, position: Position | None) -> None:
        """Go on from here. None: from whatever comes next."""
        self.epoch = None if position is None else position.epoch
        self.received = 0 if position is None else position.offset

    def join_data(self) -> dict[str, Any]:
        """`data` of the `join-room` that brings this room up to date."""
        data: dict[str, Any] = {"roomId": self.name}
        if self.is_rewinding:
            data["rewind"] = self.rewind
        elif self.epoch is not None:
            data["recover"] = {"epoch": self.epoch, "offset": self.received}
        if self.presence:
            data["presence"] = True
        return data

    def plain_data(self) -> dict[str, Any]:
        """`data` of a `join-room` that leaves the place alone."""
        return {"roomId": self.name, "presence": True} if self.presence else {"roomId": self.name}

    def settle(self, answer: JoinedRoom) -> bool:
        """Take the answer to a join. True: continuity is lost, and the place is now the answer's."""
        before = self.position
        self.phase, self.is_known, self.refusals, self.retry_at = "live", True, 0, None
        if self.is_rewinding:
            self.place(Position(answer.epoch, 0))
            self.handled = answer.position
            return False
        if before is None:
            self.place(answer.position)
            self.handled = answer.position
            return False
        if (answer.recovered and answer.epoch == before.epoch) or answer.position == before:
            return False
        self.place(answer.position)
        return True

    def is_new(self, message: ServerMessage) -> bool:
        """Whether the event has not come before: by its place, and by its id."""
        if message.offset is not None and message.offset <= self.received:
            return False
        return not message.id or message.id not in self._recent

    def admit(self, message: ServerMessage) -> Event | None:
        """The event to hand on, or None for one that came before. The place moves on in either case."""
        is_new = self.is_new(message)
        if message.offset is not None and message.offset > self.received:
            self.received = message.offset
            self.is_rewinding = False
        if not is_new:
            return None
        if message.id:
            self._recent[message.id] = None
            if len(self._recent) > RECENT_IDS:
                del self._recent[next(iter(self._recent))]
        return to_event(message, self.epoch)
