"""Whose turn it is: peers that send, or are to be sent, more than is done at once go on one after another, one in each round of the event loop.

So the rounds stay short however many there are, and whoever asks for little is heard between any two of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary, WeakSet

Act = Callable[[], None]


def _nothing() -> None: ...


class Turns:
    """Those of one event loop, from whose thread alone they are used; see `running_turns`."""

    def __init__(self) -> None:
        self._waiting: deque[Act] = deque()

    def wait(self, act: Act) -> None:
        """Call `act` once, in a later round, after all that wait already."""
        self._waiting.append(act)
        if len(self._waiting) == 1:
            _crowd.add(self)
            asyncio.get_running_loop().call_soon(self._next)

    async def come(self) -> None:
        """Wait for a turn; where nobody else has one in this round, it has come. Cancelling is safe."""
        if not self._waiting:
            self.wait(_nothing)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wait(lambda: None if turn.done() else turn.set_result(None))
        await turn

    def _next(self) -> None:
        act = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            _crowd.discard(self)
        act()


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
