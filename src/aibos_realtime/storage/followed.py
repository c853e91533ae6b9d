"""One room that a node follows: what was delivered of it last, and what waits behind something that is being read. It reads nothing itself."""

from __future__ import annotations

import asyncio
from collections import deque

from ..backends.base import LoggedEvent
from ..clock import Clock
from ..errors import BrokerUnavailable
from ..protocol.messages import Position

RECENT = 64
"""Ids of a room's last events, by which the same position with another event is recognised."""
MAX_HELD = 1000
"""Events of one room that are kept while what is before them is read; past that they are read too."""


class Followed:
    """`slice`: when it is compared with the log. It has no epoch until it has entered: until it is heard, and it is known where it stands."""

    __slots__ = (
        "_again", "_held", "_is_heard", "_waiting", "behind", "epoch", "idle", "is_broken", "is_live", "is_split", "offset", "recent", "room",
        "slice",
    )  # fmt: skip

    def __init__(self, room: str, slice: int) -> None:
        self.room = room
        self.slice = slice
        self.epoch = ""
        self.offset = 0
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.is_live = False
        """Whether what is heard can be delivered at once."""
        self.is_broken = False
        """Whether what was delivered is not what the log has there, or what comes after it cannot be read."""
        self.is_split = False
        """Whether the log says the first of these: one position of the epoch means one event here, and another one elsewhere."""
        self.behind = 0
        """Where the log stood when it was last found ahead of what was heard."""
        self.idle = 0
        """Looks since it was watched last."""
        self._held: list[LoggedEvent] = []
        self._is_heard = False
        self._again = False
        """Whether something may have been missed since reading began."""
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    # — what was delivered —

    def stand_at(self, position: Position) -> None:
        """What comes next comes right after a position."""
        self.epoch, self.offset = position.epoch, position.offset
        self.recent.clear()
        self.is_broken = self.is_split = False
        self.behind = 0

    def break_off(self) -> None:
        """The log has another event where this room stands."""
        self.is_broken = self.is_split = True

    def advance(self, event: LoggedEvent) -> None:
        """The next event is delivered."""
        self.offset = event.offset
        self.recent.append(event.id)

    def is_other(self, event: LoggedEvent) -> bool:
        """Whether an event whose offset was delivered before is not the one that was."""
        back = self.offset - event.offset
        return back < len(self.recent) and self.recent[-1 - back] != event.id

    def stands_on(self, id: str | None) -> bool:
        """Whether the log has, where this room stands, the event that was delivered; True too where that is not known."""
        return id is None or not self.recent or self.recent[-1] == id

    # — what waits —

    def hold(self, event: LoggedEvent) -> None:
        """It was heard while something before it is read."""
        if len(self._held) < MAX_HELD:
            self._held.append(event)
        else:
            self._again = True

    def hear_again(self) -> None:
        """It is heard from here on; the first time is no news."""
        self._again = self._again or self._is_heard
        self._is_heard = True

    def begin_reading(self) -> None:
        """What was held until now is read: the log has an event before anybody hears of it."""
        self._held.clear()
        self._again = False

    def take_held(self) -> list[LoggedEvent] | None:
        """What is held and was not delivered; None where it does not come right after what was, or something was missed."""
        held, self._held = self._held, []
        if self._again:
            return None
        rest: list[LoggedEvent] = []
        for event in held:
            if event.epoch != self.epoch or event.offset > self.offset + len(rest) + 1:
                return None
            if event.offset <= self.offset:
                self.is_broken = self.is_broken or self.is_other(event)
            elif event.offset == self.offset + len(rest) + 1:
                rest.append(event)
        return None if self.is_broken else rest

    # — waiting for it —

    def enter(self, position: Position) -> None:
        """It is heard, and stood here since then."""
        self.stand_at(position)
        self._wake(None)

    def go_live(self) -> None:
        """Everything up to what is heard next was delivered."""
        self.is_live = True
        self._wake(None)

    def fail(self, error: Exception) -> None:
        """It is not followed."""
        self._wake(error)

    async def wait(self, clock: Clock, patience: float | None = None) -> None:
        """Until it has entered, or if it has, until it is live. `patience`: seconds, then `BrokerUnavailable`. Raises what `fail` is told.

        Cancelling is safe.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        timer = None if patience is None else clock.call_later(patience, _settle, waiter, BrokerUnavailable())
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _wake(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            _settle(waiter, error if error is None else BrokerUnavailable(str(error)))


def _settle(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
