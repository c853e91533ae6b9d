"""Whose turn it is: peers that send, or are to be sent, more than is done at once go on one after another, for a millisecond in each round of the
event loop.

So the rounds stay short however many there are, and whoever asks for little is heard between any two of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from weakref import WeakKeyDictionary, WeakSet

Act = Callable[[], None]

SHARE = 0.001
"""Seconds of a round: nobody else's turn begins after them. One turn there is in each round, however long it takes."""


class Turns:
    """Those of one event loop, from whose thread alone they are used; see `running_turns`."""

    def __init__(self) -> None:
        self._waiting: deque[Act] = deque()
        self._has_next = False
        self._is_over = False
        """Nobody else goes on in this round."""

    def wait(self, act: Act) -> None:
        """Call `act` once, in a later round, after all that wait already."""
        self._waiting.append(act)
        self._call_next()

    def take(self, act: Act) -> None:
        """Call `act` once: now, where nobody else has a turn in this round; else as `wait` does."""
        if self._has_next:
            self.wait(act)
        else:
            self._call_next()
            act()

    async def come(self) -> None:
        """Wait for a turn; where nobody else has one in this round, it has come. Nobody else goes on in its round. Cancelling is safe."""
        if not self._has_next:
            self._call_next()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            if not turn.done():
                turn.set_result(None)
                self._is_over = True

        self.wait(begin)
        await turn

    def _call_next(self) -> None:
        if not self._has_next:
            self._has_next = True
            _crowd.add(self)
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_over, end = False, perf_counter() + SHARE
        try:
            while self._waiting and not self._is_over:
                self._waiting.popleft()()
                self._is_over = self._is_over or perf_counter() >= end
        finally:
            self._has_next = False
            _crowd.discard(self)
            if self._waiting:
                self._call_next()


_found: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()
_crowd: WeakSet[Turns] = WeakSet()
"""Those with somebody who waits."""


def has_crowd() -> bool:
    """Whether anybody waits, on any loop of this process."""
    return len(_crowd) > 0


def running_turns() -> Turns:
    """The same for everybody on the loop that runs."""
    loop = asyncio.get_running_loop()
    found = _found.get(loop)
    if found is None:
        found = _found[loop] = Turns()
    return found
