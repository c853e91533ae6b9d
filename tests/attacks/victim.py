"""The server that is attacked: the product with its own defaults, on the loop that it chooses, with the log that an operator sees.

Run in a process of its own by `arena.Field`; it says `listening` when it does. After SIGUSR1 it says `figures` and a JSON object: those of the node
(`admin.reports.NodeReport`); `worst_lag`, how late its loop was at most since the last time, in seconds, looked at every 5 ms; `reached`, what it has
opened or connected to since the last time; and `kept`, how much it keeps of whom and what.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from aibos_realtime import RealtimeServer, Socket
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.clock import SystemClock
from aibos_realtime.logs import FLOOD
from aibos_realtime.server import server as module_of_server

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


class Reached:
    """What the process opens and connects to, as the interpreter tells its audit hooks."""

    EVENTS = frozenset({"open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "exec"})

    def __init__(self) -> None:
        self._found: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.EVENTS:
            self._found.append(f"{event} {arguments[:2]}")

    def take(self) -> list[str]:
        """All since the last time."""
        found, self._found = self._found, []
        return found


class Shifted(SystemClock):
    """The machine's time, with a wall clock that is `ahead` by so many seconds."""

    __slots__ = ("_ahead",)

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> float:
        return time.time() + self._ahead


class Briefly(logging.Formatter):
    """Says `a trace of`, and of what, in place of a trace."""

    def formatException(self, ei: Any) -> str:
        return f"a trace of {ei[0].__name__}"


def main(options: dict[str, Any]) -> None:
    """`options`: those of `RealtimeServer`; `level`: of the log; `loop`: "asyncio" for that of the standard library; `files`: how many may be
    open; `failing`: handlers are meant to fail, and the log says of a trace only that it is there.

    Handlers: `block` holds the loop for `data` seconds, `fail` raises.
    """
    logging.basicConfig(level=options.pop("level", "INFO"), format="%(levelname)s %(name)s %(message)s")
    if options.pop("failing", False):
        logging.getLogger().handlers[0].setFormatter(Briefly("%(levelname)s %(name)s %(message)s"))
    if options.pop("loop", None) == "asyncio":
        module_of_server.new_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    if (files := options.pop("files", None)) is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    clock = Shifted(options.pop("ahead", 0.0))
    groups = {"persistence": {"database": {"url": "memory://"}}} | options
    server = RealtimeServer(host="127.0.0.1", clock=clock, authentication={"jwt_secret": SECRET} | groups.pop("authentication", {}), **groups)

    @server.event("block")
    async def block(socket: Socket, data: float) -> None:
        time.sleep(data)  # noqa: ASYNC251 - that is what it is for

    @server.event("fail")
    async def fail(socket: Socket, data: object) -> None:
        raise RuntimeError(f"on purpose, and with what it was given: {data}")

    server.run(drain=0.5, on_started=lambda: _started(server))


def _started(server: RealtimeServer) -> None:
    say = _speaker(server, Lag(), Reached())
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, say)
    print("listening", flush=True)


def _kept(server: RealtimeServer) -> dict[str, int]:
    """How much there is of what strangers and users make it keep."""
    gate, broker = server._parts.handshake, server.broker
    return {
        "failed_authentications": server.metrics.authentications_failed,
        "addresses": len(gate._of_address),
        "failing_addresses": len(gate._failures),
        "connected_addresses": len(gate._connections),
        "rooms": len(server.rooms),
        "logs": len(broker._logs) if isinstance(broker, MemoryBroker) else 0,
        "left_out": FLOOD.left_out,
    }


def _speaker(server: RealtimeServer, lag: Lag, reached: Reached) -> Callable[[], None]:
    def say() -> None:
        figures = server._operation.figures.report().to_wire() | {"worst_lag": lag.take(), "reached": reached.take(), "kept": _kept(server)}
        print("figures", json.dumps(figures), flush=True)

    return say
