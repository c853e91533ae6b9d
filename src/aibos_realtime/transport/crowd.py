"""What becomes of new connections when a process has few file descriptors left: whoever asks for nothing makes place for who has just come.

Not here: how many WebSockets there may be, which is less than there are descriptors (`server.descriptors`), so that others still find one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any, Protocol

from ..logs import get_logger
from .http import Refusal, refusal_response

logger = get_logger("aibos_realtime")

FULL = Refusal(503, "overloaded", "This server has no place for further connections.", (("Retry-After", "5"),))
LOOKED_AT = 100
"""HTTP connections that are looked at for one that asks for nothing."""


class Silent(Protocol):
    """A connection that has not said anything yet."""

    def turn_away(self) -> None: ...


class Crowd:
    """`descriptors`: as many as the process may have. `silent`: who has said nothing, the oldest first; `connections`: those of HTTP
    (`http.HttpProtocol`, as uvicorn counts them). `count()`: how many descriptors are taken, whoever has them.
    """

    def __init__(self, descriptors: int, silent: Collection[Silent], connections: Collection[Any], count: Callable[[], int] | None = None) -> None:
        self.begins = int(0.9 * descriptors)
        """From so many descriptors on, another one is to be given back for each."""
        self.ends = int(0.95 * descriptors)
        """From so many on, who comes when there is none to be given back is refused."""
        self._silent = silent
        self._connections = connections
        self._count = count or count_descriptors
        self._at_most = self._count()
        """No more were taken by what is known here: those of the last count, and one for each connection since."""

    def has_place(self, stream: asyncio.Transport) -> bool:
        """Whether a connection that was just accepted may stay; False: it has been answered 503, and is closed."""
        self._at_most += 1
        if self._at_most < self.begins:
            return True
        self._at_most = taken = self._count()
        if taken < self.begins:
            return True
        logger.warning("nearly all file descriptors are taken (%d): connections that ask for nothing are closed", taken)
        if self._give_back() or taken < self.ends:
            return True
        stream.write(refusal_response(FULL))
        stream.close()
        return False

    def _give_back(self) -> bool:
        for silent in self._silent:
            silent.turn_away()
            return True
        for connection in islice(self._connections, LOOKED_AT):
            stream = connection.transport
            if (connection.cycle is None or connection.cycle.response_complete) and stream is not None and not stream.is_closing():
                stream.abort()
                return True
        return False


def count_descriptors() -> int:
    """How many this process has open."""
    try:
        return os.stat(_OF_PROCESS).st_size or len(os.listdir(_OF_PROCESS))  # Linux tells the number as the size, from 6.2 on
    except OSError:  # no Linux
        return len(os.listdir("/dev/fd"))


_OF_PROCESS = "/proc/self/fd"
