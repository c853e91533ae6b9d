"""The ports to what keeps events: what a broker and a store take, what they give back, and what they promise.

A broker owns the order of each room. It is not the fan-out (that is `pipeline`) and knows no socket. A store keeps what the broker gave a position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

from ..protocol.messages import Position, Receipt

if TYPE_CHECKING:
    from .shared_log import Remembered

Ack = Literal["committed", "queued"]
"""committed: once the store has the event. queued: once the log has it, and the store's intake."""


class Audience(Struct, frozen=True):
    """For whom an event is, beyond its room: kept beside the event, so that recovery and history obey it too.

    `where`: attribute conditions (`{"role__in": ["admin"]}`), all of which hold. `filter`: the name of a registered filter.
    `users`: the only user ids; an empty set is nobody. `exclude`: user ids that never get it. None = no condition.
    """

    where: dict[str, object] | None = None
    filter: str | None = None
    users: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()


class Draft(Struct, frozen=True):
    """An event on its way to a position. `data`: JSON text. `user_id`: who publishes; None is the server itself."""

    room: str
    event: str
    data: bytes
    id: str
    user_id: str | None = None
    audience: Audience | None = None
    keyed: bool = False
    """The id was chosen by the publisher: publishing it again within the window gives the first position."""
    ephemeral: bool = False
    """Position in memory only, nothing kept to be read again."""
    persist: bool = True
    """False: takes an offset and is delivered, but its payload is kept in no store."""
    ack: Ack | None = None
    """When the publish counts as done; None: as the broker is set."""
    history_size: int = 1000
    history_ttl: float = 300.0


class LoggedEvent(Struct, frozen=True):
    """An event with its place in the log of its room. `data`: JSON text; `timestamp`: Unix time in milliseconds."""

    room: str
    event: str
    data: bytes
    id: str
    epoch: str
    offset: int
    timestamp: int
    user_id: str | None = None
    audience: Audience | None = None


class Page(Struct, frozen=True):
    """A stretch of one room's log, by rising offset. `more`: it goes on in the direction that was asked.

    `first`, `last`: the offsets between which this page says all. Not each of them has an event in `events`: a payload may be kept in no store.
    """

    epoch: str
    events: list[LoggedEvent]
    more: bool
    first: int
    last: int


__all__ = ["Ack", "Audience", "Batch", "Broker", "Draft", "EventStore", "LoggedEvent", "NOBODY", "Page", "Receipt", "Receiver", "Refused", "Stored"]


class Receiver(Protocol):
    """Who a broker hands events to: the fan-out of a node."""

    def deliver(self, event: LoggedEvent) -> None:
        """Take an event that has its position. Events of one room come by rising offset, none missing, as long as the epoch is the same."""

    def deliver_volatile(self, event: LoggedEvent) -> None:
        """Take an event without a position, which another node sent."""

    def resync(self, room: str, position: Position) -> None:
        """Continuity could not be kept: what follows comes right after `position`, and what was before it may be incomplete. Tell the members."""

    def is_watched(self, room: str) -> bool:
        """Whether somebody here may hold a position of the room: its events are wanted, and where it stands must not be forgotten."""


class Nobody:
    """The receiver of a broker that was not attached: it wants nothing."""

    def deliver(self, event: LoggedEvent) -> None: ...

    def deliver_volatile(self, event: LoggedEvent) -> None: ...

    def resync(self, room: str, position: Position) -> None: ...

    def is_watched(self, room: str) -> bool:
        return False


NOBODY = Nobody()


class Broker(Protocol):
    """Gives every event of a room its position, keeps it for the recovery window, and hands it to every node.

    One room's events are delivered by rising offset. Errors: `BackendError`. The first step of its coroutines asks nothing of the current task:
    the road runs it without one.
    """

    def attach(self, receiver: Receiver) -> None:
        """From now on hand every event of the watched rooms to `receiver`. Called once, before `start`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def is_available(self) -> bool:
        """Whether it can take events at present."""

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        """Append and hand on, in one atomic step. One room's events get their positions in the order of the calls.

        The future is done at once where nothing has to be waited for. An error means: unknown whether it happened. Raised by the future:
        `IdempotencyConflict` (the id was used for another event name or data within the window), `Overloaded`, `ValidationError` (nothing that can
        be stored), `BackendError`.
        """

    def send_volatile(self, event: LoggedEvent) -> None:
        """Hand an event that takes no position to the other nodes, at most once; never waits, and says nothing where that fails."""

    async def position(self, room: str) -> Position:
        """Where the room's log ends: all up to there was delivered on this node, and of a watched room all after it will be.

        Offset 0: nothing yet, and the epoch is that of the first event to come, unless the broker forgets rooms before. Of a room that is watched,
        asking again is answered at once.
        """

    async def read_after(self, room: str, after: Position, limit: int) -> Page:
        """What comes right after a position, up to `limit`, none missing in between.

        Raises `UnrecoverablePosition` where that cannot be proven: another epoch, trimmed away, or ahead of the log.
        """

    async def read_before(self, room: str, before: Position | None, limit: int) -> Page:
        """What comes last before a position (None: before the end), up to `limit`; for history, so it may end where the log does."""


Key = tuple[str, str, str]
"""What one id is unique in: (room, user id or "" for the server, id)."""


class Batch(Struct, frozen=True):
    """What a store takes in one transaction: events, and where each of their rooms ends after them."""

    events: Sequence[LoggedEvent]
    hollow: frozenset[int]
    """Indices of `events` whose payload is not to be kept."""
    heads: dict[str, Position]


class Stored(Struct, frozen=True):
    """An event that the store has. `data` is None where its payload is not kept."""

    event: str
    data: bytes | None
    position: Position | None


class Refused(Exception):
    """The store takes no such batch: an id of it is there already, or a row is nothing that it can hold. Nothing of it was stored."""


class EventStore(Protocol):
    """Keeps the events of all rooms. Either one broker writes (`open`, `append`, `forget`), or several nodes do (`share`, `append_once`, `bury`).

    Errors: `StoreUnavailable`, and then the outcome of a write is unknown.
    """

    async def open(self) -> tuple[str, dict[str, Position]]:
        """Become the only writer. Returns the epoch of rooms that have none, and where every room ends.

        Raises `ConfigurationError` where another writer is there, or the store cannot be used as it is.
        """

    async def share(self) -> str:
        """Become one of the nodes that write, or make sure of being one still: where another writer was there in between, become one anew.

        Returns the name of the era. It is another one after a single writer was there, who continues no epoch of theirs: what the nodes remember of
        an earlier era is no continuity. Raises as `open` does; where it was shared before, `StoreUnavailable`.
        """

    async def close(self) -> None: ...

    async def append(self, batch: Batch) -> None:
        """Store a batch, all of it or nothing. Raises `Refused`."""

    async def append_once(self, events: Sequence[LoggedEvent], hollow: frozenset[int]) -> None:
        """Store events that have their positions, all or nothing; where a position is taken already, it was stored before, and stays as it is.

        An event whose id has another place in the room already is stored all the same, so that no place is missing; `find` gives the first one.
        `hollow`: as in `Batch`. Raises `Refused`.
        """

    async def bury(self, event: LoggedEvent, reason: str, now: int) -> None:
        """Store the place of an event that is refused, without its payload, and the event among the dead messages, with a reason; repeatable.

        `now`: ms since 1970. Raises `Refused` where even the place cannot be stored.
        """

    async def heads(self, rooms: Iterable[str]) -> dict[str, Position]:
        """Where rooms end, after every `append` so far, also one whose outcome was unknown; where it is shared, the last event that is stored.

        Rooms without an event are left out.
        """

    async def find(self, keys: Iterable[Key]) -> dict[Key, Stored]:
        """What is stored under ids; what is not is left out."""

    async def recent_ids(self, room: str, since: int) -> list[Remembered]:
        """The ids in a room's log since a time (ms since 1970), the newest first, 10,000 at most. `data` is None also where it would be too much."""

    def read_after(self, room: str, after: Position, limit: int) -> Coroutine[Any, Any, list[LoggedEvent]]:
        """The rows of one epoch after an offset, by rising offset; there may be gaps. One without a payload has empty `data`."""

    def read_before(self, room: str, before: Position, limit: int) -> Coroutine[Any, Any, list[LoggedEvent]]:
        """The last rows of one epoch before an offset, by rising offset."""

    async def forget(self, rooms: Iterable[str], epoch: str) -> None:
        """Drop the ends of rooms of which nothing is stored any more; from now on rooms without an end have this epoch."""
