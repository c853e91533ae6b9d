"""The files of the dashboard and the browser client, as an ASGI app."""

from __future__ import annotations

from ..transport.asgi import Receive, Scope, Send


class Site:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError
