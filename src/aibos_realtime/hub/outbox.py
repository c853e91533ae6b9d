"""The outgoing buffer of a socket that is behind.

A socket that keeps up has none: it writes to its transport, and nothing is counted. Only when the transport says that bytes pile up, an `Outbox`
takes the writes over, counts them, and knows how old the oldest unsent byte is. Since no write is ever refused here, order is the transport's.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from ..transport.base import Transport


class OutboxLimits(Struct, frozen=True):
    """Bytes and seconds, the transport's own buffer included. None = off."""

    soft: int = 256 * 1024
    """Past this, volatile events are dropped and reading from the peer stops."""
    hard: int | None = 1024 * 1024
    """Past this, the peer is closed (4008)."""
    age: float | None = 10.0
    """When the oldest byte is older than this, the peer is closed (4008)."""


class Outbox:
    """Counts what a slow socket has been sent. `now` is monotonic seconds."""

    __slots__ = ("_limits", "_marks", "_taken", "_transport")

    def __init__(self, transport: Transport, limits: OutboxLimits, now: float) -> None:
        self._transport = transport
        self._limits = limits
        self._taken = transport.buffered()
        self._marks = deque([(now, self._taken)])

    def took(self, size: int) -> bool:
        """Count bytes just written; False when they are more than the hard limit allows."""
        self._taken += size
        return self._limits.hard is None or self._transport.buffered() <= self._limits.hard

    def has_room(self) -> bool:
        """Whether a volatile event may still be sent."""
        return self._transport.buffered() <= self._limits.soft

    def is_too_old(self, now: float) -> bool:
        """Whether the oldest unsent byte is past its age. Call it about once a second: that is how fine the age is known."""
        sent = self._taken - self._transport.buffered()
        marks = self._marks
        if marks[-1][1] != self._taken:
            marks.append((now, self._taken))
        while len(marks) > 1 and marks[0][1] <= sent:
            marks.popleft()
        return self._limits.age is not None and sent < marks[0][1] and now - marks[0][0] > self._limits.age
