"""The answers of one HTTP connection: that whoever is gone gets none, and whoever takes none is cut. uvicorn's protocol, with what it leaves open.

What may be asked, and in which form, is the business of `http`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .draining import Draining


class AnsweringProtocol(HttpToolsProtocol):
    """`answer_seconds`: see `Draining`."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, answer_seconds: float | None) -> None:
        super().__init__(config, server_state, app_state, asyncio.get_running_loop())
        self._draining = Draining(answer_seconds)
        self._answered: RequestResponseCycle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._draining.end()
        self.pipeline.clear()
        if self._answered is not None:  # uvicorn tells the last request that came, which is another one where they were sent ahead
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._draining.watch(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._draining.watch(self.transport)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._draining.watch(self.transport)

    def close(self) -> None:
        """Let the connection end once everything is out, if the peer takes it."""
        self.transport.close()
        self._draining.watch(self.transport)

    timeout_keep_alive_handler = close

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)
