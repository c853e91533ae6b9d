"""What is known of each shard of what waits for the store, and how what they bring is cut into transactions. It reads and stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..backends.base import LoggedEvent
from ..backends.intake import IntakeEntry
from ..protocol.backoff import Backoff
from .batch import MAX_BATCH

BATCH_BYTES = 4 * 1024 * 1024
"""Of payloads in one transaction."""


class Line:
    """What is known of one shard. `count`: how many entries to read; `age`: seconds since the oldest one that was there was published.

    `is_working`: some of it is on its way to the store.
    """

    __slots__ = ("age", "backoff", "count", "is_working", "shard")

    def __init__(self, shard: int, count: int, backoff: Backoff) -> None:
        self.shard = shard
        self.count = count
        self.age = 0.0
        self.backoff = backoff
        self.is_working = False

    def adapt(self, taken: int, size: int, most: int) -> None:
        """Read less where it was too much, and more where there is more."""
        if size > most:
            self.count = max(1, self.count // 2)
        elif taken == self.count:
            self.count = min(self.count * 2, MAX_BATCH)


def weigh(entries: Sequence[IntakeEntry]) -> int:
    return sum(len(entry.event.data) for entry in entries if entry.event is not None)


def cut(entries: Sequence[IntakeEntry]) -> Iterator[list[tuple[LoggedEvent, bool]]]:
    """The events, and whether their payloads are kept, in stretches of a bounded number and weight."""
    batch: list[tuple[LoggedEvent, bool]] = []
    size = 0
    for entry in entries:
        if entry.event is None:
            continue
        size += len(entry.event.data)
        if batch and (len(batch) == MAX_BATCH or size > BATCH_BYTES):
            yield batch
            batch, size = [], len(entry.event.data)
        batch.append((entry.event, entry.keep))
    if batch:
        yield batch
