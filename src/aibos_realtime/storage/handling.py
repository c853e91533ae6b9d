"""One message and its handler: what the handler gets, and which verdict follows from what it does. Neither store nor loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any

from msgspec import Struct

from ..backends.queue import Taken, Verdict
from ..logs import get_logger
from ..options import Count, Options, Seconds
from ..protocol.backoff import Backoff
from ..protocol.codec import MALFORMED, decode_json

logger = get_logger("aibos_realtime.queue")

REASON_LENGTH = 500
"""Characters of an error that a dead letter keeps."""


class QueueMessage(Struct, frozen=True):
    """A message as a handler gets it. `attempt` is 1 at first; `enqueued_at` is in UTC."""

    data: Any
    id: str
    attempt: int
    enqueued_at: datetime
    key: str | None = None

    def __repr__(self) -> str:
        return f"QueueMessage(id={self.id!r}, attempt={self.attempt})"


QueueHandler = Callable[[QueueMessage], Awaitable[object] | object]
"""Handles one message. `def` or `async def`; runs on the event loop."""


class BackoffOptions(Options):
    """Attempt n + 1 comes uniformly within `min(limit, first · 2ⁿ⁻¹)` seconds after attempt n failed."""

    first: Seconds = 1.0
    limit: Seconds = 300.0


class ProcessOptions(Options):
    """See `MessageQueue.process`."""

    concurrency: Count = 1
    max_attempts: Count = 5
    visibility_timeout: Seconds = 30.0
    ordered: bool = False
    timeout: Seconds | None = None
    backoff: BackoffOptions = BackoffOptions()


class Handling:
    """A handler, and how often it may try. `max_message_bytes`: other programs may have sent what this one would not."""

    def __init__(self, queue: str, handler: QueueHandler, options: ProcessOptions, *, max_message_bytes: int, random: Callable[[], float]) -> None:
        self._queue = queue
        self._handler = handler
        self._options = options
        self._max_message_bytes = max_message_bytes
        self._random = random

    async def handle(self, taken: Taken) -> Verdict:
        """What is to become of a message, after its handler had it. Raises nothing but `CancelledError`, when this is cancelled itself."""
        if taken.attempt > self._options.max_attempts:
            reason = f"handed out {self._options.max_attempts} times without an outcome: its worker ended, or was cut off from the store"
            return self._bury(taken, reason)
        if len(taken.data) > self._max_message_bytes:
            return self._bury(taken, f"{len(taken.data)} bytes; at most {self._max_message_bytes} are allowed")
        try:
            data = decode_json(taken.data)
        except MALFORMED:
            return self._bury(taken, "the data is not valid JSON")
        message = QueueMessage(data, taken.id, taken.attempt, datetime.fromtimestamp(taken.enqueued_at, UTC), taken.key)
        try:
            result = self._handler(message)
            if isawaitable(result):
                async with asyncio.timeout(self._options.timeout):
                    await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._judge(taken, "the handler was cancelled")
        except Exception as error:
            logger.warning("queue %s: attempt %d at message %s failed", self._queue, taken.attempt, taken.id, exc_info=True)
            return self._judge(taken, f"{type(error).__name__}: {error}")
        return Verdict(taken, "done")

    def _judge(self, taken: Taken, reason: str) -> Verdict:
        """After a failed attempt."""
        if taken.attempt >= self._options.max_attempts:
            return self._bury(taken, reason)
        options = self._options.backoff
        backoff = Backoff(random=self._random, first=options.first, limit=options.limit)
        backoff.attempts = taken.attempt - 1
        return Verdict(taken, "retry", delay=backoff.next_delay())

    def _bury(self, taken: Taken, reason: str) -> Verdict:
        logger.warning("queue %s: message %s goes to the dead letters at attempt %d", self._queue, taken.id, taken.attempt)
        return Verdict(taken, "dead", reason=_storable(reason))


def _storable(text: str) -> str:
    """As much of a text as a dead letter keeps, without what databases refuse."""
    return text[:REASON_LENGTH].replace("\0", "").encode(errors="replace").decode()
