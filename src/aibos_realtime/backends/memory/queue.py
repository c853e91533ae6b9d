"""Queues inside the process: for tests, and for what may end with the process."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import IdempotencyConflict, QueueFull
from ..queue import QueueDraft, QueueLimits, QueueStats, Sent, StoredLetter, Taken, Verdict


class Entry:
    """An unfinished message. `until`: when its delay or lease is over, by the monotonic clock; None while it only waits for its turn."""

    __slots__ = ("attempts", "draft", "is_leased", "number", "sent", "started", "takes", "until")

    def __init__(self, number: int, draft: QueueDraft, sent: float, started: float) -> None:
        self.number = number
        self.draft = draft
        self.sent = sent
        self.started = started
        self.attempts = 0
        self.takes = 0
        """As `attempts`, but what is given back counts too: names the handing out."""
        self.is_leased = False
        self.until: float | None = None

    def is_expired(self, now: float, ttl: float | None) -> bool:
        own = self.draft.ttl if self.draft.ttl is not None else ttl
        return own is not None and self.started + own <= now


class Queue:
    """The state of one queue. Times are those of the monotonic clock."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.ready: list[int] = []
        """Heap of numbers: what may be taken, in the order of sending. May name finished ones."""
        self.planned: list[tuple[float, int]] = []
        """Heap of (until, number): ends of delays and leases. May name what has changed since."""
        self.holders: dict[str, int] = {}
        """By key, the one message of it that is handed out, or waits for another attempt."""
        self.lines: dict[str, list[int]] = {}
        """By key, a heap of those that wait for its holder. May name finished ones."""
        self.keys: OrderedDict[str, tuple[float, bytes, str]] = OrderedDict()
        """By idempotency key: until when, of which content, under which id; in the order of expiry."""
        self.dead: deque[StoredLetter] = deque()
        self.expired = 0
        self.dropped = 0
        self.changed = asyncio.Event()

    def plan(self, entry: Entry, until: float) -> None:
        entry.until = until
        heapq.heappush(self.planned, (until, entry.number))

    def queue_up(self, entry: Entry) -> None:
        entry.until = None
        heapq.heappush(self.ready, entry.number)

    def next_planned(self) -> float | None:
        """When the next delay or lease is over."""
        while self.planned:
            until, number = self.planned[0]
            entry = self.entries.get(number)
            if entry is not None and entry.until == until:
                return until
            heapq.heappop(self.planned)
        return None

    def next_ready(self) -> Entry | None:
        """The first message that waits for its turn; it stays in its place."""
        while self.ready:
            entry = self.entries.get(self.ready[0])
            if entry is not None and entry.until is None:
                return entry
            heapq.heappop(self.ready)
        return None

    def candidates(self, now: float) -> Iterator[Entry]:
        """What may be handed out: delays and leases that are over, then the others in order."""
        while (until := self.next_planned()) is not None and until <= now:
            yield self.entries[heapq.heappop(self.planned)[1]]
        while (entry := self.next_ready()) is not None:
            heapq.heappop(self.ready)
            yield entry

    def has_place(self, entry: Entry) -> bool:
        """Whether a message may be handed out as the one of its key; if not it stands in line from now on."""
        key = entry.draft.key
        if key is None:
            return True
        if self.holders.setdefault(key, entry.number) == entry.number:
            return True
        entry.until = None
        heapq.heappush(self.lines.setdefault(key, []), entry.number)
        return False

    def remove(self, entry: Entry) -> None:
        """Forget a message; the next one of its key may go."""
        del self.entries[entry.number]
        key = entry.draft.key
        if key is None or self.holders.get(key) != entry.number:
            return
        line = self.lines.get(key, [])
        while line:
            following = self.entries.get(heapq.heappop(line))
            if following is not None:
                self.holders[key] = following.number
                self.queue_up(following)
                return
        del self.holders[key]
        self.lines.pop(key, None)

    def tell(self) -> None:
        """Wake everybody who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryQueue:
    """See `queue.QueueStore`. Everything happens on the spot, so nothing races."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._numbers = itertools.count(1)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def _queue(self, name: str) -> Queue:
        state = self._queues.get(name)
        if state is None:
            state = self._queues[name] = Queue()
        return state

    async def send(self, queue: str, drafts: Sequence[QueueDraft], limits: QueueLimits) -> list[Sent | QueueFull | IdempotencyConflict]:
        state = self._queue(queue)
        sent = [self._send(state, draft, limits) for draft in drafts]
        state.tell()
        return sent

    def _send(self, state: Queue, draft: QueueDraft, limits: QueueLimits) -> Sent | QueueFull | IdempotencyConflict:
        now = self._clock.monotonic()
        while state.keys and next(iter(state.keys.values()))[0] <= now:
            state.keys.popitem(last=False)
        content = hashlib.sha256(repr(draft.key).encode() + draft.data).digest()
        if draft.idempotency_key is not None and (known := state.keys.get(draft.idempotency_key)) is not None:
            return Sent(known[2], duplicate=True) if known[1] == content else IdempotencyConflict()
        if limits.max_size is not None and len(state.entries) >= limits.max_size:
            self._remove_expired(state, limits, now)
            if len(state.entries) >= limits.max_size:
                return QueueFull()
        if draft.idempotency_key is not None:
            state.keys[draft.idempotency_key] = (now + limits.idempotency_window, content, draft.id)
            state.keys.move_to_end(draft.idempotency_key)
        entry = Entry(next(self._numbers), draft, self._clock.now(), now)
        state.entries[entry.number] = entry
        if draft.delay > 0:
            state.plan(entry, now + draft.delay)
        else:
            state.queue_up(entry)
        return Sent(draft.id)

    def _remove_expired(self, state: Queue, limits: QueueLimits, now: float) -> None:
        for entry in [entry for entry in state.entries.values() if not entry.is_leased and entry.is_expired(now, limits.ttl)]:
            state.expired += 1
            state.remove(entry)

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        state, now = self._queue(queue), self._clock.monotonic()
        taken: list[Taken] = []
        candidates = state.candidates(now)
        while len(taken) < limit and (entry := next(candidates, None)) is not None:
            entry.is_leased = False
            if entry.is_expired(now, limits.ttl):
                state.expired += 1
                state.remove(entry)
            elif not ordered or state.has_place(entry):
                entry.attempts += 1
                entry.takes += 1
                entry.is_leased = True
                state.plan(entry, now + visibility)
                taken.append(_as_taken(entry))
        return taken

    async def wait(self, queue: str, timeout: float) -> None:
        state, now = self._queue(queue), self._clock.monotonic()
        planned = state.next_planned()
        delay = timeout if planned is None else min(timeout, planned - now)
        if state.next_ready() is not None or delay <= 0:
            return
        changed = state.changed
        timer = self._clock.call_later(delay, state.tell)
        try:
            await changed.wait()
        finally:
            timer.cancel()

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        state = self._queue(queue)
        counted = [self._settle(state, verdict, limits) for verdict in verdicts]
        state.tell()
        return counted

    def _settle(self, state: Queue, verdict: Verdict, limits: QueueLimits) -> bool:
        entry = self._held(state, verdict.taken)
        if entry is None:
            return False
        entry.is_leased = False
        if verdict.kind == "retry":
            state.plan(entry, self._clock.monotonic() + verdict.delay)
        elif verdict.kind == "release":
            entry.attempts -= 1
            state.queue_up(entry)
        else:
            state.remove(entry)
        if verdict.kind == "dead":
            taken = verdict.taken
            place = f"{next(self._numbers):020d}"
            buried = self._clock.now()
            state.dead.append(StoredLetter(place, taken.id, taken.data, entry.attempts, verdict.reason, entry.sent, buried, taken.key))
            while len(state.dead) > limits.max_dead:
                state.dead.popleft()
                state.dropped += 1
        return True

    @staticmethod
    def _held(state: Queue, taken: Taken) -> Entry | None:
        """The message, if this handing out of it is the current one."""
        number, _, takes = taken.lease.partition(".")
        entry = state.entries.get(int(number))
        return entry if entry is not None and entry.is_leased and entry.takes == int(takes) else None

    async def extend(self, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        state, until = self._queue(queue), self._clock.monotonic() + visibility
        entries = [self._held(state, one) for one in taken]
        for entry in entries:
            if entry is not None:
                state.plan(entry, until)
        return [entry is not None for entry in entries]

    async def stats(self, queue: str) -> QueueStats:
        state, now = self._queue(queue), self._clock.monotonic()
        in_flight = sum(entry.is_leased for entry in state.entries.values())
        delayed = sum(entry.until is not None and entry.until > now and not entry.is_leased for entry in state.entries.values())
        started = [entry.started for entry in state.entries.values() if entry.is_leased or entry.until is None or entry.until <= now]
        oldest_age = now - min(started) if started else None
        depth = len(state.entries) - in_flight - delayed
        return QueueStats(depth, in_flight, delayed, len(state.dead), oldest_age, state.expired, state.dropped)

    async def names(self) -> list[str]:
        return sorted(name for name, state in self._queues.items() if state.entries or state.dead)

    async def dead_letters(self, queue: str, limit: int, before: str | None = None) -> list[StoredLetter]:
        letters = (letter for letter in reversed(self._queue(queue).dead) if before is None or letter.place < before)
        return list(itertools.islice(letters, limit))

    async def requeue(self, queue: str, ids: Sequence[str] | None, limits: QueueLimits) -> int:
        state = self._queue(queue)
        wanted = None if ids is None else set(ids)
        found = [letter for letter in state.dead if wanted is None or letter.id in wanted]
        state.dead = deque(letter for letter in state.dead if wanted is not None and letter.id not in wanted)
        for letter in found:
            draft = QueueDraft(letter.id, letter.data, letter.key, ttl=limits.ttl)
            entry = Entry(next(self._numbers), draft, self._clock.now(), self._clock.monotonic())
            state.entries[entry.number] = entry
            state.queue_up(entry)
        state.tell()
        return len(found)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        state = self._queue(queue)
        if dead:
            count = len(state.dead)
            state.dead.clear()
            return count
        fresh = Queue()
        fresh.keys, fresh.dead = state.keys, state.dead
        self._queues[queue] = fresh
        state.tell()
        return len(state.entries)


def _as_taken(entry: Entry) -> Taken:
    draft = entry.draft
    return Taken(f"{entry.number}.{entry.takes}", entry.attempts, draft.id, draft.data, entry.sent, draft.key)
