"""What a node does that is cut off from the broker: it takes no clients, keeps those that it has for a while, and then sends them to the others."""

from __future__ import annotations

from ..backends.base import Broker
from ..clock import Clock, Timer
from ..logs import get_logger
from .handshake import Handshake
from .sockets import Sockets

logger = get_logger("aibos_realtime")

LOOK_EVERY = 0.5
PATIENCE = 30.0
"""Seconds without the broker after which clients are moved. Before that they stay, and only what they publish is refused."""
SPREAD = 10.0
"""Seconds over which they come back."""


class Availability:
    """Watches the broker of one of several nodes. Without it new connections are refused (503), for whoever balances to try the next node."""

    def __init__(self, *, broker: Broker, sockets: Sockets, handshake: Handshake, clock: Clock, patience: float = PATIENCE) -> None:
        self._broker = broker
        self._sockets = sockets
        self._handshake = handshake
        self._clock = clock
        self._patience = patience
        self._since: float | None = None
        self._has_moved = False
        self._timer: Timer | None = None

    def start(self) -> None:
        self._timer = self._clock.call_later(LOOK_EVERY, self._look)

    def stop(self) -> None:
        """Watch no longer. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._clock.call_later(LOOK_EVERY, self._look)
        now = self._clock.monotonic()
        is_available = self._handshake.is_open = self._broker.is_available
        if is_available:
            if self._has_moved:
                logger.info("the broker is back: clients are let in again")
            self._since, self._has_moved = None, False
        elif self._since is None:
            self._since = now
        elif now - self._since >= self._patience and not self._has_moved:
            self._has_moved = True
            logger.error("no broker for %g s: %d clients were sent to other nodes", self._patience, self._sockets.move(SPREAD))
