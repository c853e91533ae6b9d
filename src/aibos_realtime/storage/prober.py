"""Whether a node still hears what it follows: it sends probes through the shared log, and listens for them.

A connection that a middlebox or the server dropped without a word shows nothing else: no error, only silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..backends.shared_log import SharedLog
from ..clock import Clock, Timer
from ..errors import BackendError
from ..logs import get_logger

logger = get_logger("aibos_realtime.log")

EVERY, EVERY_WHEN_DOWN = 1.0, 0.25
LIMIT = 5.0
"""Seconds after which a probe that was not heard makes the node hear everything anew."""


class Prober:
    """Per shard the oldest probe that was not heard counts. `on_answered` is called when the log answers, after it did not."""

    def __init__(self, log: SharedLog, *, on_answered: Callable[[], None] = lambda: None, clock: Clock) -> None:
        self._log = log
        self._on_answered = on_answered
        self._clock = clock
        self._sent: dict[int, tuple[str, float]] = {}
        self._probing: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._is_running = False
        self._number = 0
        self.is_answered = False
        """Whether the log took the last probes."""
        self.lag = 0.0
        """Seconds from the sending of the last probe that was heard to its hearing."""

    def start(self) -> None:
        self._is_running = True
        self._begin()

    async def stop(self) -> None:
        self._is_running = self.is_answered = False
        self._sent.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    def heard(self, shard: int, token: str) -> None:
        """A probe came back."""
        sent = self._sent.pop(shard, None)
        if sent is not None and sent[0] == token:
            self.lag = self._clock.monotonic() - sent[1]

    @property
    def delay(self) -> float:
        """Seconds that the last probe took, or for which an older one has been on its way, if that is longer."""
        now = self._clock.monotonic()
        return max([self.lag, *(now - at for _, at in self._sent.values())])

    def forget(self) -> None:
        """The probes that are on their way may be lost, which is known: that they are not heard says nothing."""
        self._sent.clear()

    def _begin(self) -> None:
        self._probing = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.probe()
        except Exception:
            logger.exception("probing the shared log failed in itself")
        finally:
            self._probing = None
            if self._is_running:
                self._timer = self._clock.call_later(EVERY if self.is_answered else EVERY_WHEN_DOWN, self._begin)

    async def probe(self) -> None:
        """Look whether the probes before were heard, and send the next ones."""
        answers = await asyncio.gather(*(self._send(shard) for shard in range(self._log.shards)))
        now = self._clock.monotonic()
        is_deaf = any(now - at > LIMIT for _, at in self._sent.values())
        was_answered, self.is_answered = self.is_answered, None not in answers
        if was_answered and not self.is_answered:
            logger.error("the log that the nodes share does not answer; publishing is refused until it does")
        elif self.is_answered and not was_answered:
            logger.info("the log that the nodes share answers")
            self._on_answered()
        if is_deaf or False in answers:
            if self._log.is_connected:
                logger.warning("this node had gone deaf: it hears the shared log anew")
            self._sent.clear()
            self._log.reconnect()

    async def _send(self, shard: int) -> bool | None:
        """Whether it will be heard, as far as is known; None: the log did not take it."""
        self._number += 1
        token = str(self._number)
        was_connected = self._log.is_connected
        if shard not in self._sent:
            self._sent[shard] = (token, self._clock.monotonic())
        try:
            return await self._log.probe(shard, token) or not (was_connected and self._log.is_connected)
        except BackendError:
            if (sent := self._sent.get(shard)) is not None and sent[0] == token:
                del self._sent[shard]
            return None
