"""The port to a log that several nodes share: it gives every event its position and tells every node of it, though not always.

What is heard may be missing, doubled or late: whoever needs each event once and in order (`storage.shared_broker`) compares positions
and reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from ..protocol.messages import Position
from .base import Draft, LoggedEvent


class Append(Struct, frozen=True):
    """An event to be appended. `seen`: positions of its room that this node knows of; the log must not stand before one of them."""

    draft: Draft
    timestamp: int
    seen: Sequence[Position] = ()


class Appended(Struct, frozen=True):
    """What became of one `Append`.

    appended: it has its position. again: this id has one already; `is_same`: it was for the same event and data. begin: the room has no epoch, or the
    log may have lost some of it: `end`, and perhaps `begin`, come first. full: too much waits for the store. `entry`: its place in what waits for the
    store; "" for none; `life`: of the memory in which it has that place, for after a loss of memory other events may stand there. refused: it is too
    large with its audience, or nothing that can be kept.
    """

    status: Literal["appended", "again", "begin", "full", "refused"]
    position: Position | None = None
    entry: str = ""
    life: str = ""
    is_same: bool = True


class End(Struct, frozen=True):
    """Where a room ends. `position`: None where it has no epoch, or lacks something that was seen: `begin` is needed.

    `doubt`: the log was started anew, or another server took over, so it may have lost what came after `position`; for so many seconds other nodes
    may still say that they saw more.
    """

    position: Position | None = None
    doubt: float | None = None


class Remembered(Struct, frozen=True):
    """An id that was published lately, and where."""

    user_id: str
    id: str
    event: str
    data: bytes | None
    position: Position


class Stretch(Struct, frozen=True):
    """Events of one room as they were kept at one moment, by rising offset, and where the room ended then (None: it has no epoch).

    They are those of the offsets from `first` to `last`, none missing; `last` before `first`: nothing of what was asked for is kept here.
    `at`: the id of the event at the position after which was read, where it is kept. `is_stored`: they come from the store, and one whose payload is
    not kept has empty `data`. `is_cut`: there is more, which would be too many bytes at once.
    """

    head: Position | None
    events: list[LoggedEvent]
    first: int = 1
    last: int = 0
    at: str | None = None
    is_stored: bool = False
    is_cut: bool = False


class Listener(Protocol):
    """Who hears what the log tells."""

    def heard(self, event: LoggedEvent) -> None: ...

    def heard_volatile(self, event: LoggedEvent) -> None: ...

    def heard_notice(self, room: str, payload: bytes) -> None:
        """What the directory of rooms has to tell the nodes of a room."""

    def heard_probe(self, shard: int, token: str) -> None: ...

    def heard_committed(self, shard: int, life: str, entry: str) -> None:
        """The store has everything up to this entry of this life."""

    def followed(self, rooms: Sequence[str]) -> None:
        """From here on these rooms are heard: what came before may not have been. Told again after every interruption."""

    def interrupted(self) -> None:
        """Some rooms are not heard at present; `followed` will come."""


class SharedLog(Protocol):
    """Rooms are spread over `shards`, each with an order of its own. Errors: `BrokerUnavailable`, and then the outcome is unknown."""

    shards: int

    @property
    def is_connected(self) -> bool:
        """Whether all that is followed is heard."""

    def shard(self, room: str) -> int: ...

    def attach(self, listener: Listener) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def append(self, shard: int, events: Sequence[Append], *, is_awaited: bool) -> list[Appended]:
        """Append what can be, in this order, and tell the nodes; all in one step. `is_awaited`: somebody waits for the store to have it."""

    async def age(self, shard: int) -> float:
        """Seconds since the log may last have lost some of this shard, as far as it knows: what it does not know since then never was."""

    async def end(self, room: str, seen: Sequence[Position], *, is_settled: bool = False) -> End:
        """Where a room ends, if it has all that was seen. `is_settled`: the time for doubt has passed, and the store did not know of more."""

    async def begin(self, room: str, epoch: str, seen: Sequence[Position], ids: Sequence[Remembered]) -> Position:
        """Begin a new epoch, unless another node was first. `ids`: what was published lately. Returns where the room ends now."""

    async def enter_era(self, era: str) -> None:
        """From now on rooms begin new epochs, unless their last one was begun in this era: in another one, something else may have written to the
        store."""

    async def heads(self, shard: int, rooms: Sequence[str]) -> list[Position | None]:
        """Where rooms end; None for one without an epoch."""

    async def read_after(self, room: str, after: Position, limit: int) -> Stretch:
        """The events right after a position, at most `limit` and up to the first that is missing; nothing where another epoch is the present one."""

    async def read_before(self, room: str, before: int | None, limit: int) -> Stretch:
        """The last events before an offset of the present epoch (None: before the end), at most `limit`."""

    def follow(self, room: str) -> asyncio.Future[None]:
        """Hear a room's events; done when they are heard."""

    def unfollow(self, room: str) -> None: ...

    def send_volatile(self, event: LoggedEvent) -> None: ...

    async def probe(self, shard: int, token: str) -> bool:
        """Send something to oneself, to be heard as `heard_probe`. False: it is known already that it will not be."""

    async def committed(self, shard: int) -> tuple[str, str]:
        """The present life, and the last of its entries that the store is known to have; "" for none."""

    def reconnect(self) -> None:
        """Hear everything anew: it was found that something is not heard."""
