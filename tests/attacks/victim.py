"""The server that is attacked: the product with its own defaults, on the loop that it chooses, with the log that an operator sees.

Run in a process of its own by `arena.Field`; it says `listening` when it does. After SIGUSR1 it says `figures` and a JSON object: those of the node
(`admin.reports.NodeReport`), and `worst_lag`, how late its loop was at most since the last time, in seconds, looked at every 5 ms.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Callable
from typing import Any

from aibos_realtime import RealtimeServer, Socket

SECRET = "a secret of the attacked server alone, of 32 bytes or more"
LOOK_EVERY = 0.005


class Lag:
    """How late the loop was."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst = 0.0
        self._plan(time.perf_counter())

    def _plan(self, now: float) -> None:
        self._due = now + LOOK_EVERY
        self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        self._worst = max(self._worst, now - self._due)
        self._plan(now)

    def take(self) -> float:
        """The worst since the last time."""
        worst, self._worst = max(self._worst, time.perf_counter() - self._due), 0.0
        return worst


def main(options: dict[str, Any]) -> None:
    """`options`: those of `RealtimeServer`. Handlers: `block` holds the loop for `data` seconds, `fail` raises."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    groups = {"persistence": {"database": {"url": "memory://"}}} | options
    server = RealtimeServer(host="127.0.0.1", authentication={"jwt_secret": SECRET} | groups.pop("authentication", {}), **groups)

    @server.event("block")
    async def block(socket: Socket, data: float) -> None:
        time.sleep(data)  # noqa: ASYNC251 - that is what it is for

    @server.event("fail")
    async def fail(socket: Socket, data: object) -> None:
        raise RuntimeError(f"on purpose, and with what it was given: {data}")

    server.run(drain=0.5, on_started=lambda: _started(server))


def _started(server: RealtimeServer) -> None:
    say = _speaker(server, Lag())
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, say)
    print("listening", flush=True)


def _speaker(server: RealtimeServer, lag: Lag) -> Callable[[], None]:
    def say() -> None:
        figures = server._operation.figures.report().to_wire() | {"worst_lag": lag.take()}
        print("figures", json.dumps(figures), flush=True)

    return say
