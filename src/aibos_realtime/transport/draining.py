"""How long a peer may leave unread what was written to it: for HTTP, whose answers have no outbox. Not how much may be written."""

from __future__ import annotations

import asyncio

LEAST_BYTES = 64 * 1024


class Draining:
    """Cuts a connection whose peer takes neither all that waits for it nor `LEAST_BYTES` of it within so many seconds. None = never.

    A stream that is closed ends only once its bytes are out: without this, a peer that reads nothing keeps it, and its descriptor, for ever.
    """

    __slots__ = ("_seconds", "_timer", "_waiting")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0

    def watch(self, stream: asyncio.Transport) -> None:
        """Begin anew, if much waits, or the stream is closed with anything left."""
        self.end()
        waiting = stream.get_write_buffer_size()
        if self._seconds is not None and (waiting >= LEAST_BYTES or (waiting and stream.is_closing())):
            self._waiting = waiting
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look, stream)

    def end(self) -> None:
        """The stream is lost. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, stream: asyncio.Transport) -> None:
        if stream.get_write_buffer_size() > max(0, self._waiting - LEAST_BYTES):
            stream.abort()
        else:
            self.watch(stream)
