"""The port to what keeps queues: what a queue's store takes, what it gives back, and what it promises.

A store knows neither handlers nor tasks: it hands messages out for a time and hears what became of them. Who decides that is `storage.worker`.
Constructors: `MemoryQueue(clock=…)`, `SqlQueue(url or Database)`, `RedisQueue(RedisOptions)`; none of them opens anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from ..errors import IdempotencyConflict, QueueFull

IDEMPOTENCY_WINDOW = 300.0
"""Seconds for which an idempotency key is one message."""


class QueueLimits(Struct, frozen=True):
    """What bounds one queue. The store keeps none of it: every call brings its own."""

    max_size: int | None = None
    """Unfinished messages (waiting, delayed and in flight) from which `send` refuses. None: no bound."""
    ttl: float | None = None
    """Seconds from its sending after which a message that carries no expiry of its own is not handled any more."""
    max_dead: int = 10_000
    """Dead letters; past that the oldest ones are dropped and counted."""
    idempotency_window: float = IDEMPOTENCY_WINDOW


class QueueDraft(Struct, frozen=True):
    """A message on its way into a queue. `data`: JSON text. `id`: unique, chosen by the sender's side. `delay`, `ttl`: seconds."""

    id: str
    data: bytes
    key: str | None = None
    """What it belongs to: messages of one key are handled in order where a worker asks for that."""
    delay: float = 0.0
    ttl: float | None = None
    idempotency_key: str | None = None


class Sent(Struct, frozen=True):
    """A message is in the queue. `duplicate`: it was already, under this id, by its idempotency key."""

    id: str
    duplicate: bool = False


class Taken(Struct, frozen=True):
    """A message that is handed out until its lease runs out."""

    lease: str
    """The store's own name of this handing out, and of no other one, be it of the same message at the same attempt; opaque."""
    attempt: int
    """How often it was handed out, this time included, given-back ones excluded. 1 at first."""
    id: str
    data: bytes
    """JSON text as it was sent; what another program put there is not checked yet, and may be empty."""
    enqueued_at: float
    """Unix time in seconds."""
    key: str | None = None


class Verdict(Struct, frozen=True):
    """What became of a message that was taken.

    "done": handled, and gone for good. "retry": to be handed out again after `delay` seconds; the attempt counts. "release": to be handed out
    again at once, in its old place; the attempt does not count. "dead": to the dead letters, with `reason`.
    """

    taken: Taken
    kind: Literal["done", "retry", "release", "dead"]
    delay: float = 0.0
    reason: str = ""


class StoredLetter(Struct, frozen=True):
    """A dead letter. `place`: where it stands among the others, for the next page; opaque. Times are unix time in seconds."""

    place: str
    id: str
    data: bytes
    attempts: int
    reason: str
    enqueued_at: float
    buried_at: float
    key: str | None = None


class QueueStats(Struct, frozen=True):
    """How one queue stands."""

    depth: int
    """Messages that wait for a worker, those held back behind an earlier one of their key included."""
    in_flight: int
    """Messages that are handed out; also those whose lease ran out and that nobody took over yet."""
    delayed: int
    """Messages whose time has not come: sent with a delay, or waiting for another attempt."""
    dead: int
    """Dead letters."""
    oldest_age: float | None
    """Seconds since the oldest message that is waiting or in flight was sent; None when there is none."""
    expired: int = 0
    """Messages that were not handled within their time, since the last purge."""
    dropped: int = 0
    """Dead letters that made room for younger ones, since the last purge."""


class QueueStore(Protocol):
    """Keeps the messages of any number of queues, named by `queue`; one that nobody sent to is an empty one.

    All times are measured by the store's own clock, the same for every process. Every method raises `BrokerUnavailable` or `StoreUnavailable`
    (retryable, the driver's error as its cause) within some seconds when the service behind is away; then it is unknown whether the call took
    effect. Cancelling leaves the store usable and, but for `wait`, the outcome unknown.
    """

    async def open(self) -> None:
        """Connect and check that the service is fit for its task. Idempotent. Raises `ConfigurationError` where it is not."""

    async def close(self) -> None:
        """Let go of everything. Idempotent; `open` may follow."""

    async def send(self, queue: str, drafts: Sequence[QueueDraft], limits: QueueLimits) -> list[Sent | QueueFull | IdempotencyConflict]:
        """Put messages in, in their order and in one atomic step; for each what came of it, an error being returned in its place, not raised.

        An `idempotency_key` that was used within `limits.idempotency_window` gives the first message's id as a duplicate where data and key are
        the same, whatever has become of that message, and `IdempotencyConflict` where they are not. This is looked at before the size is.
        `QueueFull`: there are `limits.max_size` unfinished messages, expired ones that are not in flight not counted. Nothing is ever trimmed.
        """

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        """Hand out up to `limit` messages for `visibility` seconds each. Never waits for messages to come.

        First those whose delay is over and those whose lease ran out, then new ones in the order of sending. A message that expired (by its own
        `ttl`, else by `limits.ttl`) is removed and counted, whether new or waiting for another attempt.
        Of two callers, whichever process they are in, one gets it.

        `ordered`: of each key at most one message is handed out at a time, and none while an earlier one of its key is unfinished: neither while
        that waits for another attempt, nor while its lease has run out. One that was sent with a delay takes its place when that is over.
        Messages without a key, and other keys, go on. Holds where every worker of the queue asks for it.
        """

    async def wait(self, queue: str, timeout: float) -> None:
        """Return when there may be something that the last `take` of this object did not see, and at the latest after `timeout` seconds.

        Soon after a message was sent by any process; at the end of a delay or lease that the last `take` or `settle` knew of. May return for
        nothing. Changes nothing, so cancelling is safe.
        """

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        """Say what became of messages, in one atomic step; for each whether it counted.

        False: the message is no longer in the caller's hands (another took it over after the lease ran out, a purge, the same verdict said
        before); then nothing changes. A lease that ran out counts still, as long as nobody took the message over. So repeating a call whose
        outcome is unknown is safe.
        """

    async def extend(self, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        """Have leases last for `visibility` seconds from now; for each whether the message is still in the caller's hands, as in `settle`."""

    async def stats(self, queue: str) -> QueueStats: ...

    async def names(self) -> list[str]:
        """The queues that have anything in this store, dead letters included, sorted. May look through the whole store: not for every day."""

    async def dead_letters(self, queue: str, limit: int, before: str | None = None) -> list[StoredLetter]:
        """Dead letters, the latest buried first; `before`: the `place` of the last one on the page before."""

    async def requeue(self, queue: str, ids: Sequence[str] | None, limits: QueueLimits) -> int:
        """Move dead letters (by their message ids; None: all that there are) back, the longest dead first; how many were found and moved.

        They keep id, data and key, begin with attempt 1, count as sent now, and expire after `limits.ttl`. `max_size` does not bind them.
        """

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Remove every unfinished message and reset the counters, or (`dead`) remove every dead letter; how many were removed.

        Messages in flight go too: what their handlers say afterwards counts for nothing. Idempotency keys stay for their time.
        """
