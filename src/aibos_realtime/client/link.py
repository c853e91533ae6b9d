"""One WebSocket to one server, from dialling to its end. It knows nothing of rooms, and never tries twice."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed as WebSocketClosed
from websockets.typing import Subprotocol

from ..clock import Clock
from ..errors import ProtocolError
from ..protocol.messages import SUBPROTOCOL, ServerMessage
from .deadline import deadline
from .failures import explain_dial, explain_loss
from .options import ClientOptions, name_server
from .websocket import CLOSE_TIMEOUT, BoundedConnection, Connect
from .wire import JsonWire, Wire, make_wire

_EARLY = 100
"""Messages that may come before `connected`."""

# At level DEBUG the WebSocket library writes down headers and payloads, the token among them.
_silent = logging.getLogger("aibos_realtime.client.websocket")
_silent.setLevel(logging.CRITICAL)


class Link:
    """An open connection whose server has said `connected`: `greeting` is the data of that, `early` what came before it."""

    __slots__ = ("_socket", "early", "greeting", "server", "url", "wire")

    def __init__(self, socket: ClientConnection, wire: Wire, url: str) -> None:
        self._socket = socket
        self.wire = wire
        self.url = url
        self.server = name_server(url)
        self.greeting: Any = None
        self.early: list[tuple[ServerMessage, int]] = []

    async def greet(self, max_bytes: int) -> None:
        """Wait for `connected`; up to `max_bytes` may come before it. Raises `ProtocolError`, `ConnectionClosed`."""
        held = 0
        while len(self.early) < _EARLY and held <= max_bytes:
            message, size = await self.receive()
            if message.event == "connected" and message.room is None:
                self.greeting = message.data
                return
            self.early.append((message, size))
            held += size
        raise ProtocolError(f"{self.server} never said that the connection is ready.", retryable=True)

    async def receive(self) -> tuple[ServerMessage, int]:
        """The next message and the size of its frame in bytes. Cancelling loses none. Raises `ConnectionClosed`, `ProtocolError`."""
        try:
            payload = await self._socket.recv()
        except WebSocketClosed as error:
            raise explain_loss(error) from error
        return self.wire.decode(payload), len(payload)

    async def send(self, payload: bytes) -> None:
        """Write one message; waits while the peer reads too slowly. Raises `ConnectionClosed`."""
        try:
            await self._socket.send(payload, text=self.wire.is_text)
        except WebSocketClosed as error:
            raise explain_loss(error) from error

    async def ping(self) -> None:
        """Ping, and wait for the pong. Raises `ConnectionClosed`."""
        try:
            await (await self._socket.ping())
        except WebSocketClosed as error:
            raise explain_loss(error) from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye; a peer that does not answer within 2 seconds, or does not even read, is left."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._socket.close(code, reason)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Leave at once, without a word."""
        self._socket.transport.abort()


async def dial(url: str, token: str | None, options: ClientOptions, context: ssl.SSLContext | None, clock: Clock) -> Link:
    """Connect and wait until the server is ready, `options.connect_timeout` seconds in all. Raises what `failures.explain_dial` knows."""
    server = name_server(url)
    socket: ClientConnection | None = None
    try:
        async with deadline(clock, options.connect_timeout):
            socket = await open_socket(url, token, options, context)
            wire = make_wire(options.codec)
            link = Link(socket, wire if socket.subprotocol == wire.subprotocol else JsonWire(), url)
            await link.greet(options.inbox_bytes)
            return link
    except ProtocolError as error:
        _abort(socket)
        message = f"{server} answers, but does not speak {SUBPROTOCOL}: check the port and the path."
        raise explain_dial(ProtocolError(message, retryable=True), server, options.connect_timeout, clock.now()) from error
    except Exception as error:
        _abort(socket)
        explained = explain_dial(error, server, options.connect_timeout, clock.now())
        if explained is error:
            raise
        raise explained from error
    except BaseException:
        _abort(socket)
        raise


async def open_socket(url: str, token: str | None, options: ClientOptions, context: ssl.SSLContext | None) -> ClientConnection:
    """The handshake, and no word yet. It has no deadline of its own. Raises what `failures.explain_dial` knows."""
    names = [make_wire(options.codec).subprotocol, SUBPROTOCOL]
    tls: dict[str, Any] = {} if context is None or not url.startswith("wss:") else {"ssl": context}
    return await Connect(
        url,
        subprotocols=[Subprotocol(name) for name in dict.fromkeys(names)],
        additional_headers=None if token is None else {"Authorization": f"Bearer {token}"},
        compression=options.compression,
        max_size=options.max_message_bytes,
        open_timeout=None,  # `dial` has one deadline for all of it
        ping_interval=None,  # `reconnect` pings, by the client's own clock
        close_timeout=CLOSE_TIMEOUT,
        logger=_silent,
        create_connection=BoundedConnection,
        **tls,
    )


def _abort(socket: ClientConnection | None) -> None:
    if socket is not None:
        socket.transport.abort()
