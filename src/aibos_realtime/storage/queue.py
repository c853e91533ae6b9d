"""`MessageQueue`: messages that some program sends and another one handles, at least once. It is no log of events and no room."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from msgspec import Struct
from pydantic import Field, model_validator

from ..backends.queue import QueueDraft, QueueLimits, QueueStats, QueueStore, Sent, StoredLetter
from ..backends.redis.options import RedisOptions
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import BackendError, ConfigurationError, IdempotencyConflict, MessageTooLarge, QueueError, QueueFull, ValidationError
from ..logs import get_logger
from ..options import Count, Options, Seconds, shown
from ..protocol.codec import MALFORMED, decode_json
from ..protocol.limits import is_name
from ..protocol.publishing import check_id, encode_data
from .batch import Batches
from .handling import ProcessOptions, QueueHandler
from .stores import make_store
from .worker import GRACE, LAST_WORDS, Worker

logger = get_logger("aibos_realtime.queue")

H = TypeVar("H", bound=QueueHandler)

NAMES = "allowed are 1–128 letters, digits, and _ . : @ / -"
MAX_DELAY = 366 * 86_400.0
MAX_NAMES = 1000
"""Queues that one object keeps state of, where any name is allowed."""


class QueueOptions(Options):
    """One queue. `max_size`: unfinished messages; `ttl`: seconds after which a message is not handled any more; None = no limit.

    `max_attempts`: how often a message is tried. `max_dead`: dead letters kept; past that the oldest ones go, and are counted.
    """

    max_size: Count | None = 100_000
    ttl: Seconds | None = None
    max_attempts: Count = 5
    max_dead: Count = 10_000


class MessageQueueOptions(Options):
    """See `MessageQueue`."""

    redis: RedisOptions | None = None
    url: str | None = Field(None, repr=False)
    queues: dict[str, QueueOptions] = Field(default_factory=dict)
    max_message_bytes: Count = 256 * 1024
    idempotency_window: Seconds = 300.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.redis is not None and self.url is not None:
            raise ValueError("redis and url were both given; allowed is one of them")
        for name in self.queues:
            if not is_name(name):
                raise ValueError(f"queues: {shown(name)} is no name of a queue; {NAMES}")
        return self


class QueueReceipt(Struct, frozen=True):
    """The message is kept. `duplicate`: it was sent before under the same idempotency key, and `id` is that of the first."""

    id: str
    duplicate: bool = False


class DeadLetter(Struct, frozen=True):
    """A message that was given up. `data` is None where it is not JSON. `attempts`: how often it was handed out. Times are in UTC."""

    id: str
    data: Any
    attempts: int
    reason: str
    enqueued_at: datetime
    buried_at: datetime
    key: str | None
    place: str
    """For `before`, to read the next page."""

    def __repr__(self) -> str:
        return f"DeadLetter(id={self.id!r}, attempts={self.attempts}, reason={self.reason!r})"


class MessageQueue:
    """Queues by name, in Redis, a database or memory.

    `redis`: `{"url": …, "db": …, "prefix": …}`; or `url`: "redis://…", "sqlite:///file.db" (default: `sqlite:///realtime.db`), "postgresql://…",
    "memory://". `queues`: `{name: {"max_size": 10_000, "ttl": 3600, "max_attempts": 5, "max_dead": 10_000}}`; where any is declared, only these names
    and those that have a handler can be used. `max_message_bytes`: of one message as JSON. `idempotency_window`: seconds.

    Messages are delivered at least once: one is gone only after its handler returned, and comes again where that was not learnt. Nothing is opened at
    construction; sending opens what it needs, and `start` (or `async with`) begins to handle messages.
    Raises `ConfigurationError` naming `queue.…`.
    """

    def __init__(
        self,
        *,
        redis: RedisOptions | Mapping[str, Any] | None = None,
        url: str | None = None,
        queues: Mapping[str, QueueOptions | Mapping[str, Any]] | None = None,
        max_message_bytes: int = 256 * 1024,
        idempotency_window: float | timedelta = 300.0,
        store: QueueStore | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
    ) -> None:
        given = {"redis": redis, "url": url, "queues": queues or {}, "max_message_bytes": max_message_bytes, "idempotency_window": idempotency_window}
        self.options = MessageQueueOptions.parse("queue", given)
        self._store = store if store is not None else make_store(self.options.redis, self.options.url, clock)
        self._clock = clock
        self._random = random
        self._queues = dict(self.options.queues)
        self._batches: dict[str, Batches[QueueDraft, Sent | QueueFull | IdempotencyConflict]] = {}
        self._make_worker: dict[str, Callable[[], Worker]] = {}
        self._workers: list[Worker] = []
        self._is_open = False
        self._is_started = False
        self._changing = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """The queues that were declared or have a handler."""
        return sorted(self._queues)

    # — life —

    async def start(self) -> None:
        """Connect, and begin to handle messages. Idempotent. Raises `BackendError` and `ConfigurationError`; then nothing has begun.

        During a `stop` it waits for the end of that, and begins anew.
        """
        async with self._changing:
            await self._connect()
            if not self._is_started:
                self._is_started = True
                for name in self._make_worker:
                    self._begin(name)

    async def stop(self, *, drain: float | timedelta = 30.0) -> None:
        """Take no more messages, let running handlers finish for up to `drain` seconds, give back what is not begun, and disconnect. Idempotent.

        A handler that takes longer is cancelled, and its message handed out again without counting the attempt. Sends that are on their way are
        finished before. Not to be called by a handler. Cancelling this ends the handlers at once.

        When the store does not answer, this ends within ten seconds after the drain all the same: what was not settled is handled again when its
        lease has run out, and sends that are on their way raise `BackendError`.
        """
        seconds = drain.total_seconds() if isinstance(drain, timedelta) else drain
        async with self._changing:
            self._is_started = False
            workers, self._workers = self._workers, []
            end = asyncio.get_running_loop().time() + seconds + LAST_WORDS
            try:
                await _all(worker.stop(seconds) for worker in workers)
                await self._finish_sends(end)
            finally:
                await self._disconnect()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _open(self) -> None:
        if not self._is_open:
            async with self._changing:
                await self._connect()

    async def _connect(self) -> None:
        if not self._is_open:
            await self._store.open()
            self._is_open = True

    async def _finish_sends(self, end: float) -> None:
        """Until `end`, by the loop's clock."""
        try:
            async with asyncio.timeout_at(end):
                await _all(batches.drain() for batches in self._batches.values())
        except TimeoutError:
            for batches in self._batches.values():
                batches.give_up(BackendError("The queue was stopped before its store answered: whether the message was taken is unknown."))

    async def _disconnect(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                async with asyncio.timeout(GRACE):
                    await self._store.close()
            except TimeoutError:
                logger.warning("the store of the queues did not let go within %g seconds, and was left", GRACE)

    # — sending —

    async def send(
        self, name: str, data: Any, *, delay: float | timedelta | None = None, idempotency_key: str | None = None, key: str | None = None
    ) -> QueueReceipt:
        """Put a message into a queue; it is kept when this returns.

        `data`: what JSON can express. `delay`: seconds before it may be handled. `idempotency_key`: sending again under the same one within five
        minutes is one message, and gives its id. `key`: what it belongs to, for handlers that are `ordered`.

        Raises `QueueError` (unknown queue), `QueueFull`, `MessageTooLarge`, `ValidationError`, `IdempotencyConflict`, `Overloaded` (too many
        sends wait) and `BackendError`. After a `BackendError`, and when this is cancelled, it is unknown whether the message was taken: sending
        it again under the same `idempotency_key` is safe.
        """
        options = self._options_of(name)
        draft = QueueDraft(
            secrets.token_urlsafe(12),
            self._encode(data),
            _checked("key", key),
            _seconds(delay),
            options.ttl,
            _checked("idempotency_key", idempotency_key),
        )
        if not self._is_open:
            await self._open()
        sent = await self._batches_of(name).add(draft)
        if isinstance(sent, Exception):
            raise sent
        return QueueReceipt(sent.id, sent.duplicate)

    def _encode(self, data: Any) -> bytes:
        text = encode_data(data, None)
        if len(text) > self.options.max_message_bytes:
            raise MessageTooLarge(f"The message has {len(text)} bytes; at most {self.options.max_message_bytes} are allowed.")
        return text

    def _batches_of(self, name: str) -> Batches[QueueDraft, Sent | QueueFull | IdempotencyConflict]:
        batches = self._batches.get(name)
        if batches is None:
            if len(self._batches) >= MAX_NAMES:
                self._batches = {name: batches for name, batches in self._batches.items() if batches.is_busy}
            work = partial(self._store.send, name, limits=self._limits_of(name))
            batches = self._batches[name] = Batches(work, weigh=lambda draft: len(draft.data), name=f"queue {name}: send")
        return batches

    # — handling —

    @overload
    def process(self, name: str, handler: None = None, **options: Any) -> Callable[[H], H]: ...

    @overload
    def process(self, name: str, handler: H, **options: Any) -> H: ...

    def process(self, name: str, handler: Any = None, **options: Any) -> Any:
        """Have messages of a queue handled; without a handler, a decorator that does. Begins at `start`, or at once after that.

        `concurrency` (1): messages at once. `max_attempts` (the queue's, 5): then a message goes to the dead letters. `visibility_timeout` (30):
        seconds after which a worker that gives no sign of life loses its messages to another one. `ordered` (False): messages of one key one after
        the other, in the order of sending, also across retries and workers; every worker of the queue has to say so. `timeout` (None): seconds
        that a handler has. `backoff`: `{"first": 1, "limit": 300}`: seconds before the second attempt at most, doubling up to `limit`.

        The handler gets a `QueueMessage`. It may be `def` or `async def`, and runs on the event loop: what blocks belongs into a thread
        (`asyncio.to_thread`). When it returns the message is done; when it raises, the message is tried again later.
        Raises `ConfigurationError` for a wrong option, and for a second handler of one queue.
        """
        if not is_name(name):
            raise ConfigurationError(f"process: {str(name)[:128]!r} is no name of a queue; {NAMES}")
        declared = self._queues.get(name, QueueOptions())
        parsed = ProcessOptions.parse(f"process({name!r})", {"max_attempts": declared.max_attempts, **options})

        def register(handler: H) -> H:
            if not callable(handler):
                raise ConfigurationError(f"process({name!r}): a function is expected, not {type(handler).__name__}")
            if name in self._make_worker:
                raise ConfigurationError(f"process({name!r}): the queue has a handler; allowed is one, and `concurrency` for more at once")
            self._queues.setdefault(name, declared)
            self._make_worker[name] = partial(
                Worker,
                name,
                handler,
                parsed,
                store=self._store,
                limits=self._limits_of(name),
                max_message_bytes=self.options.max_message_bytes,
                clock=self._clock,
                random=self._random,
            )
            if self._is_started:
                self._begin(name)
            return handler

        return register if handler is None else register(handler)

    def _begin(self, name: str) -> None:
        worker = self._make_worker[name]()
        self._workers.append(worker)
        worker.start()

    # — looking and repairing —

    async def stats(self, name: str) -> QueueStats:
        """How a queue stands. Raises `QueueError` (unknown queue) and `BackendError`."""
        self._options_of(name)
        await self._open()
        return await self._store.stats(name)

    async def stored_names(self) -> list[str]:
        """The queues that have anything in the store, whoever sent it. May look through the whole store."""
        await self._open()
        return await self._store.names()

    async def dead_letters(self, name: str, limit: int = 50, *, before: str | None = None) -> list[DeadLetter]:
        """Messages that were given up, the latest first. `before`: the `place` of the last one on the page before.

        Raises `QueueError` (unknown queue), `ValidationError` and `BackendError`.
        """
        self._options_of(name)
        if not 1 <= limit <= 1000:
            raise ValidationError(f"limit: {limit} was given; allowed is 1–1000")
        await self._open()
        return [_as_dead_letter(letter) for letter in await self._store.dead_letters(name, limit, before)]

    async def requeue(self, name: str, ids: Iterable[str] | None = None) -> int:
        """Send dead letters again, under their ids and with all attempts before them; how many. `ids`: which; None: all."""
        options = self._options_of(name)
        if isinstance(ids, str):
            raise ValidationError("ids: a list of ids is expected, not one text")
        await self._open()
        return await self._store.requeue(name, None if ids is None else list(ids), self._limits(options))

    async def purge(self, name: str, *, dead: bool = False) -> int:
        """Remove every unfinished message, or (`dead`) every dead letter, for good; how many. Handlers that are running go on."""
        self._options_of(name)
        await self._open()
        return await self._store.purge(name, dead=dead)

    # — inside —

    def _options_of(self, name: str) -> QueueOptions:
        options = self._queues.get(name)
        if options is None:
            if self.options.queues:
                raise QueueError(f"unknown queue {str(name)[:128]!r}; known are: {', '.join(self.names) or 'none'}")
            if not is_name(name):
                raise QueueError(f"{str(name)[:128]!r} is no name of a queue; {NAMES}")
            return QueueOptions()
        return options

    def _limits_of(self, name: str) -> QueueLimits:
        return self._limits(self._options_of(name))

    def _limits(self, options: QueueOptions) -> QueueLimits:
        return QueueLimits(options.max_size, options.ttl, options.max_dead, self.options.idempotency_window)


def _seconds(delay: float | timedelta | None) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay or 0.0
    if not 0 <= seconds <= MAX_DELAY:
        raise ValidationError(f"delay: {seconds} was given; allowed are 0–{MAX_DELAY:g} seconds")
    return seconds


def _checked(option: str, text: str | None) -> str | None:
    if text is not None:
        check_id(option, text)
    return text


def _as_dead_letter(letter: StoredLetter) -> DeadLetter:
    try:
        data = decode_json(letter.data)
    except MALFORMED:
        data = None
    enqueued, buried = datetime.fromtimestamp(letter.enqueued_at, UTC), datetime.fromtimestamp(letter.buried_at, UTC)
    return DeadLetter(letter.id, data, letter.attempts, letter.reason, enqueued, buried, letter.key, letter.place)


async def _all(works: Iterable[Any]) -> None:
    await asyncio.gather(*works)
