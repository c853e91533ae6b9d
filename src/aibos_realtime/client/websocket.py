"""The WebSocket under a `Link`: that of the `websockets` library, with bounds against a server that is broken or means harm.

It holds three things to an end that the library leaves to the server: an answer that is none, a close, and pings whose pongs are not read.
What the messages say, and what comes after the end, is not known here.
"""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection, connect

CLOSE_TIMEOUT = 2.0
"""Seconds for a peer to answer our close, or to end the connection after its own."""
UNREAD_PONGS = 64 * 1024
"""Bytes of pongs that may wait for a server to read them."""


class BoundedConnection(ClientConnection):
    """One connection. What breaks a bound ends it at once, and the reader hears of that as of any other loss."""

    _unread = 0
    _ending: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        waiting = self.transport.get_write_buffer_size()
        super().data_received(data)
        # Nothing but pongs is written while data is taken; where the peer reads them, none of them waits.
        self._unread += max(0, self.transport.get_write_buffer_size() - waiting)
        if self.protocol.handshake_exc is not None or self._unread > UNREAD_PONGS:
            self.transport.abort()
        elif self._ending is None and self.protocol.close_expected():
            self._ending = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)


class Connect(connect):
    """Dials, and goes where it was sent: a redirect is an answer like any other that is no WebSocket.

    The library would follow it, to any host, and what a client sends on the connection, a renewed token among it, would go there.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc
