"""How much of everything: the limits that are counted, and the buckets that count them."""

from __future__ import annotations

from collections import deque

from pydantic import Field

from ..options import Count, Options, Seconds
from ..protocol import limits as wire

Rate = float


class LimitOptions(Options):
    """Every limit, by default on; None = off.

    Rates are per second with a burst, which is twice the rate where it is not given (an address: five times).
    """

    messages_per_second: Rate | None = Field(50, gt=0)
    messages_burst: Count | None = None
    publishes_per_second: Rate | None = Field(10, gt=0)
    """Per connection; a user of the role `service` has none."""
    publishes_burst: Count | None = None
    control_frames_per_second: Rate | None = Field(10, gt=0)
    handshakes_per_second: Rate | None = Field(200, gt=0)
    handshakes_per_second_per_address: Rate | None = Field(10, gt=0)
    handshakes_burst_per_address: Count | None = None
    failed_authentications_per_minute: Rate | None = Field(5, gt=0)
    """Per address; past it, the refusal itself comes a second later."""
    connections_per_user: Count | None = 20
    connections_per_address: Count | None = 100
    rooms_per_connection: Count | None = 128
    requests_waiting: Count | None = 256
    """Of one connection, behind one that is being handled; past it, reading stops until it is answered."""
    message_bytes: Count | None = 64 * 1024
    fragments: Count | None = 256
    broadcast_bytes: Count | None = wire.BROADCAST_BYTES
    outbox_soft_bytes: Count = 256 * 1024
    outbox_bytes: Count | None = 1024 * 1024
    outbox_seconds: Seconds | None = 10.0
    handshake_seconds: Seconds | None = 10.0
    authentication_seconds: Seconds | None = 10.0
    answer_seconds: Seconds | None = 30.0
    """For a peer to take an HTTP answer, or 64 KiB of it."""
    url_bytes: Count = 8 * 1024
    header_fields: Count = 64
    header_bytes: Count = 8 * 1024
    headers_bytes: Count = 16 * 1024


class Bucket:
    """A token bucket: `rate` per second, at most `burst` at once. `now` is monotonic seconds."""

    __slots__ = ("at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self.at = now

    def spend(self, now: float) -> float:
        """Take one: 0 when there was one, else the seconds until there is."""
        if now > self.at:
            self.level = min(self.burst, self.level + (now - self.at) * self.rate)
            self.at = now
        level = self.level
        if level >= 1.0:
            self.level = level - 1.0
            return 0.0
        return (1.0 - level) / self.rate

    def is_full(self, now: float) -> bool:
        """Whether nothing has been taken that is not back: such a bucket need not be remembered."""
        return self.level + (now - self.at) * self.rate >= self.burst


def bucket(rate: float | None, burst: float | None, now: float, factor: float = 2.0) -> Bucket | None:
    """A bucket for an option pair; None where the limit is off."""
    return None if rate is None else Bucket(rate, max(1.0, rate * factor if burst is None else burst), now)


class Strikes:
    """Counts offences within a sliding window."""

    __slots__ = ("_limit", "_times", "_window")

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._times: deque[float] | None = None

    def is_out(self, now: float) -> bool:
        """Count one more; True when that makes the limit."""
        times = self._times
        if times is None:
            times = self._times = deque()
        times.append(now)
        while times[0] <= now - self._window:
            times.popleft()
        return len(times) >= self._limit


class Pace:
    """The buckets of one connection. It exists from the connection's first message on, and what few of them ever need from its first use on."""

    __slots__ = ("_bad", "_control", "_options", "_refused", "excused", "messages", "publishes")

    def __init__(self, options: LimitOptions, now: float) -> None:
        self._options = options
        self.messages = bucket(options.messages_per_second, options.messages_burst, now)
        self.publishes = bucket(options.publishes_per_second, options.publishes_burst, now)
        self._control: Bucket | None = None
        self._bad: Strikes | None = None
        self._refused: Strikes | None = None
        self.excused = 0
        """The number of this node's standstill that was made up for last."""

    def excuse(self, number: int, seconds: float) -> None:
        """Make up for a standstill of this node: the buckets get what would have been taken from them meanwhile."""
        self.excused = number
        for found in (self.messages, self.publishes):
            if found is not None:
                found.level += found.rate * seconds

    @property
    def control(self) -> Bucket | None:
        """Of control frames."""
        if self._control is None:
            self._control = bucket(self._options.control_frames_per_second, None, 0.0)
        return self._control

    @property
    def bad(self) -> Strikes:
        """Messages that were none of the protocol."""
        if self._bad is None:
            self._bad = Strikes(20, 10.0)
        return self._bad

    @property
    def refused(self) -> Strikes:
        """Requests beyond a rate."""
        if self._refused is None:
            self._refused = Strikes(50, 10.0)
        return self._refused


SWEEP_EVERY = 10.0
"""Seconds between two looks for buckets that are full again: a flood of new keys must not pay for one each."""


class Buckets:
    """One bucket per key (an address), forgotten once it is full again and another one comes. At most `capacity` keys; past that the oldest goes."""

    def __init__(self, rate: float | None, burst: float | None, *, factor: float = 5.0, capacity: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._factor = factor
        self._capacity = capacity
        self._buckets: dict[str, Bucket] = {}
        self._swept = 0.0

    def __len__(self) -> int:
        return len(self._buckets)

    def spend(self, key: str, now: float) -> float:
        """Take one from the key's bucket: 0, or the seconds to wait."""
        found = self._buckets.get(key)
        if found is None:
            made = bucket(self._rate, self._burst, now, self._factor)
            if made is None:
                return 0.0
            if now >= self._swept + SWEEP_EVERY:
                self.forget(now)
            if len(self._buckets) >= self._capacity:
                del self._buckets[next(iter(self._buckets))]
            found = self._buckets[key] = made
        return found.spend(now)

    def forget(self, now: float) -> None:
        """Drop the buckets that are full."""
        self._swept = now
        self._buckets = {key: found for key, found in self._buckets.items() if not found.is_full(now)}
