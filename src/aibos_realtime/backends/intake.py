"""The ports to what the log acknowledged and the store does not have yet, and to the right to take it there.

What takes it there is `storage.drain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from .base import LoggedEvent


class IntakeEntry(Struct, frozen=True):
    """An event that the store is to have. `event` is None for what is no entry of ours. `keep`: False, store its place without its payload."""

    id: str
    event: LoggedEvent | None
    keep: bool = True


class Intake(Protocol):
    """What waits for the store, in `shards` lines, each in the order of the log. Errors: `BrokerUnavailable`."""

    shards: int

    async def read(self, shard: int, after: str | None, count: int) -> Sequence[IntakeEntry]:
        """The oldest entries after one, or of all; at most `count`."""

    async def drop(self, shard: int, up_to: str) -> None:
        """The store has everything up to an entry, this included: it goes, and who waits for that is told. Repeatable."""

    async def count(self) -> int:
        """How many entries wait, in all lines together."""

    async def wait(self, timeout: float) -> None:
        """Return when somebody waits for the store to have something, and after `timeout` seconds at the latest. Cancelling is safe."""


class Lease(Protocol):
    """A right that one of several nodes has at a time, as long as it renews it. Errors: `BrokerUnavailable`."""

    ttl: float
    """Seconds after the last `hold` for which no other node gets it."""

    async def hold(self) -> bool:
        """Get it, or renew it, in one round trip; False: another node has it."""

    async def release(self) -> None:
        """Give it back, if it is ours, for another node to have it at once."""
