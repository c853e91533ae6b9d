"""The ports to what keeps events: what a broker takes, what it gives back, and what it promises.

A broker owns the order of each room. It is not the fan-out (that is `pipeline`) and knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from ..protocol.messages import Position, Receipt


class Audience(Struct, frozen=True):
    """For whom an event is, beyond its room: kept beside the event, so that recovery and history obey it too.

    `where`: attribute conditions (`{"role__in": ["admin"]}`), all of which hold. `filter`: the name of a registered filter.
    `users`: the only user ids. `exclude`: user ids that never get it. None or empty = no condition.
    """

    where: dict[str, object] | None = None
    filter: str | None = None
    users: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()


class Draft(Struct, frozen=True):
    """An event on its way to a position. `data`: JSON text. `publisher`: a user id, or None for the server itself."""

    room: str
    event: str
    data: bytes
    id: str
    publisher: str | None = None
    user_id: str | None = None
    audience: Audience | None = None
    keyed: bool = False
    """The id was chosen by the publisher: publishing it again within the window gives the first position."""
    ephemeral: bool = False
    """Position in memory only, nothing kept to be read again."""
    persist: bool = True
    """False: takes an offset and is delivered, but its payload is kept in no store."""
    history_size: int = 1000
    history_ttl: float = 300.0


class LoggedEvent(Struct, frozen=True):
    """An event with its place in the log of its room. `data`: JSON text; `timestamp`: RFC 3339, milliseconds, UTC."""

    room: str
    event: str
    data: bytes
    id: str
    epoch: str
    offset: int
    timestamp: str
    user_id: str | None = None
    audience: Audience | None = None


class Page(Struct, frozen=True):
    """Events of one epoch by rising offset. `more`: there are further ones in the direction that was asked."""

    epoch: str
    events: list[LoggedEvent]
    more: bool


__all__ = ["Audience", "Broker", "Deliver", "Draft", "LoggedEvent", "Page", "Receipt"]

Deliver = Callable[[LoggedEvent], None]


class Broker(Protocol):
    """Gives every event of a room its position, keeps it for the recovery window, and hands it to every node.

    One room's events are handed to `deliver` by rising offset. Errors: `BrokerUnavailable`.
    """

    is_immediate: bool
    """Its coroutines finish without waiting for anything: the road may run them on the spot, without a task."""

    def attach(self, deliver: Deliver) -> None:
        """From now on call `deliver` with every event published to any room. Called once, before `start`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, draft: Draft) -> Receipt:
        """Append and hand on, in one atomic step. An error means: unknown whether it happened.

        Raises `IdempotencyConflict`: the id was used for another event name or data within the window.
        """

    async def position(self, room: str) -> Position:
        """Where the room's log ends.

        Offset 0: nothing yet, and the epoch is that of the first event to come, unless the broker forgets rooms before.
        """

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        """The events right after a position, up to `limit`, none missing in between.

        Raises `UnrecoverablePosition` where that cannot be proven: another epoch, trimmed away, or ahead of the log.
        """

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        """The last events before a position (None: before the end), up to `limit`; for history, so it may end where the log does."""
