"""The server inside another ASGI app: `app.mount("/realtime", server.asgi())`, on any ASGI server."""

from __future__ import annotations

from inspect import isawaitable
from typing import Protocol

from ..errors import ConnectionLimitExceeded
from ..pipeline.throttle import LimitOptions
from ..protocol.close_codes import CloseCode, default_reason
from ..transport.asgi import AsgiTransport, Receive, Scope, Send
from ..transport.http import Refusal, UpgradeRequest, refusal_body
from .handshake import Arrival, Handshake
from .http import HttpApp
from .sockets import Sockets
from .upgrade import Upgrade


class Openable(Protocol):
    """A server, as far as its life is concerned."""

    async def open(self) -> None: ...

    async def stop(self) -> None: ...


class AsgiApp:
    """The server as an ASGI app: HTTP, WebSocket, and `lifespan` where it stands alone.

    The server's parts, but no port, are started by the lifespan, or by the first connection where no lifespan came.
    """

    def __init__(self, *, server: Openable, handshake: Handshake, sockets: Sockets, http: HttpApp, limits: LimitOptions) -> None:
        self.server = server
        self._handshake = handshake
        self._sockets = sockets
        self._http = http
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.server.open()
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.server.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.server.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        client = scope.get("client") or ("", 0)
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"
        secure = scope.get("scheme") == "wss"
        request = UpgradeRequest("GET", path, scope.get("query_string", b""), "1.1", list(scope["headers"]), str(client[0]), secure, is_raw=False)
        upgrade = Upgrade(request)
        outcome = self._handshake.admit(upgrade)
        if isawaitable(outcome):
            outcome = await outcome
        if isinstance(outcome, Refusal):
            await _refuse(scope, send, outcome)
            return
        await send({"type": "websocket.accept", "subprotocol": outcome.subprotocol if upgrade.subprotocol() is not None else None})
        await self._carry(outcome, receive, send)

    async def _carry(self, arrival: Arrival, receive: Receive, send: Send) -> None:
        limits = self._limits
        transport = AsgiTransport(receive, send, arrival.address, max_message=limits.message_bytes, soft_limit=limits.outbox_soft_bytes)
        try:
            self._sockets.welcome(arrival, transport)
        except ConnectionLimitExceeded:  # the last place went while the other server was accepting
            transport.close(CloseCode.OVERLOADED, default_reason(CloseCode.OVERLOADED))
        await transport.run()


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """With the server's own status and words where the ASGI server can say them (extension `websocket.http.response`), else as a plain 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in refusal.headers]
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": [(b"content-type", b"application/json"), *headers]})
    await send({"type": "websocket.http.response.body", "body": refusal_body(refusal)})
