"""The listening port: HTTP and WebSocket on one socket, and the life-cycle of an ASGI app that shares it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from email.utils import formatdate
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from ..clock import Clock, Timer
from ..errors import ConfigurationError, RealtimeError
from ..transport.base import CLOSE_TIMEOUT
from ..transport.entrance import Entrance
from ..transport.http import Gate, HttpProtocol
from .descriptors import limit_of_descriptors

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted."""
ACCEPTED_AT_ONCE = 4
"""Of these, how many asyncio's own loop accepts before it does anything else. Out of descriptors, it writes a trace for each; uvloop writes none."""
UNSENT_BYTES = 256 * 1024
"""That the kernel keeps of one connection before its peer has room for them; beyond, they are the outbox's, which is counted. Else it is 4 MB."""
UNTAKEN_MILLISECONDS = 60_000
"""For how long the kernel goes on sending what a peer does not take, also after the server has closed (RFC 5482; without it a quarter of an hour)."""


class Port:
    """Serves a gate's handshakes and an app's requests. `has_app`: the app is the user's own, with a lifespan and WebSocket routes of its own."""

    def __init__(self, *, gate: Gate, app: Any, has_app: bool, clock: Clock, tls: ssl.SSLContext | None) -> None:
        self._gate = gate
        self._has_app = has_app
        self._clock = clock
        self._tls = tls
        self._config = Config(
            app,
            ws="auto" if has_app else "none",
            lifespan="auto" if has_app else "off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
        )
        self._state = ServerState()
        self._lifespan: LifespanOn | None = None
        self._has_started_app = False
        self._entrance: Entrance | None = None
        self._server: asyncio.Server | None = None
        self._dating: Timer | None = None
        self.number = 0
        """The port that is bound; 0 before `open`."""

    async def bind(self, host: str, port: int, *, shared: bool = False) -> None:
        """Take the address, without listening yet. Raises `ConfigurationError` where it cannot be had, saying which.

        `shared`: beside other processes of this user that do the same (`SharedPort`).
        """
        self._config.load()
        loop = asyncio.get_running_loop()
        if self._has_app:
            self._lifespan = LifespanOn(self._config)
        state = self._lifespan.state if self._lifespan is not None else {}
        make = partial(HttpProtocol, self._gate, has_app=self._has_app, config=self._config, server_state=self._state, app_state=state)
        self._entrance = Entrance(
            self._gate, make, is_secure=self._tls is not None, descriptors=limit_of_descriptors(), connections=self._state.connections
        )
        try:
            self._server = await loop.create_server(
                self._entrance, host or None, port, backlog=ACCEPTED_AT_ONCE, reuse_port=shared or None, start_serving=False, **self._tls_options()
            )
        except OSError as error:
            raise ConfigurationError(
                f"port: {host}:{port} cannot be listened on ({error.strerror or error}); choose another, or 0 for a free one"
            ) from error
        self.number = self._server.sockets[0].getsockname()[1]
        if sys.platform == "linux":  # elsewhere it is not inherited by what is accepted
            for listening in self._server.sockets:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MILLISECONDS)

    async def open(self) -> None:
        """Start the app, and listen."""
        server = self._server
        assert server is not None, "bind() comes first"
        if self._lifespan is not None:
            await self._lifespan.startup()
            self._has_started_app = True
            if self._lifespan.should_exit:
                raise RealtimeError("The app did not start; its own error stands above.")
        self._date()
        await server.start_serving()
        for listening in server.sockets:  # for the loop, `backlog` is two things: how many the kernel keeps is said here
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(BACKLOG)

    def _tls_options(self) -> dict[str, Any]:
        """A handshake of TLS has the time of one of ours, and its end that of our close: else whoever says nothing keeps his descriptor for 90 s."""
        if self._tls is None:
            return {}
        return {"ssl": self._tls, "ssl_handshake_timeout": self._gate.http_limits.handshake_seconds, "ssl_shutdown_timeout": CLOSE_TIMEOUT}

    def stop_listening(self) -> None:
        """Take no further connections."""
        if self._server is not None:
            self._server.close()

    async def close(self, seconds: float) -> None:
        """End the HTTP connections, idle ones at once and busy ones within `seconds`, and the app."""
        self.stop_listening()
        if self._entrance is not None:
            self._entrance.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=seconds)
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._lifespan is not None and self._has_started_app:
            await self._lifespan.shutdown()
        self._lifespan = None
        if self._dating is not None:
            self._dating.cancel()
            self._dating = None
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def _date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(self._clock.now(), usegmt=True).encode())]
        self._dating = self._clock.call_later(1.0, self._date)
