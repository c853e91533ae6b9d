"""How long to wait before the next attempt: full jitter, so that a thousand clients do not come back in step.

Delay n is uniform over 0 … min(`limit`, `first` · 2ⁿ) seconds. Only a connection that lived for `stable_after` seconds starts the row anew:
a bare handshake that is closed at once does not. Draws no random number and reads no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable

LIMIT = 20.0
STABLE_AFTER = 5.0


class Backoff:
    """The delays of one client. `random` gives numbers in 0 ≤ x < 1; every value of time is seconds."""

    __slots__ = ("_connected_at", "_first", "_limit", "_random", "_stable_after", "attempts")

    def __init__(self, *, random: Callable[[], float], first: float = 5.0, limit: float = LIMIT, stable_after: float = STABLE_AFTER) -> None:
        self._random = random
        self._first = first
        self._limit = max(limit, first)
        self._stable_after = stable_after
        self._connected_at: float | None = None
        self.attempts = 0
        """Delays given since the last stable connection."""

    @property
    def ceiling(self) -> float:
        """The upper end of the next delay."""
        # The exponent is bounded: 2.0 ** 1024 would raise after months of failures.
        return min(self._limit, self._first * 2.0 ** min(self.attempts, 60))

    def next_delay(self, at_least: float = 0.0) -> float:
        """The delay before the next attempt. `at_least`: what the server asked for (`Retry-After`), to which the jitter is added."""
        delay = at_least + self._random() * self.ceiling
        self.attempts += 1
        return delay

    def planned_delay(self, low: float, high: float) -> float:
        """A delay within the bounds that a server announced before it closed. It counts as an attempt.

        Without a stable connection since the last delay it is spread as widely as any other: a server that closes each connection at once, and says
        to come back at once, is not asked without a pause.
        """
        width = high - low if self.attempts == 0 else max(high - low, self.ceiling)
        self.attempts += 1
        return low + self._random() * width

    def connected(self, now: float) -> None:
        """A connection is established; it still has to prove that it lasts."""
        self._connected_at = now

    def lost(self, now: float) -> bool:
        """The connection ended. Whether it was a stable one, in which case the row starts anew."""
        since, self._connected_at = self._connected_at, None
        if since is None or now - since < self._stable_after:
            return False
        self.attempts = 0
        return True
