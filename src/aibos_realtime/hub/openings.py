"""Rooms to be there before something is published to them: what is published meanwhile waits, in order. How a room is made others know."""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from ..clock import Clock
from ..errors import BrokerUnavailable

KNOWN_FOR = 10.0
"""Seconds for which a room counts as being there."""
KNOWN = 10_000

T = TypeVar("T")

Proceed = Callable[[Exception | None], None]


class Openings:
    """`make(room_id)` makes a room, or sees that it is there."""

    def __init__(self, make: Callable[[str], Awaitable[None]], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._known: OrderedDict[str, float] = OrderedDict()
        self._waiting: dict[str, list[Proceed]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def wait(self, room_id: str, proceed: Proceed) -> None:
        """Call when the room is there, with None, or with the error for which it is not; those who wait for one room in the order of their calls."""
        waiting = self._waiting.get(room_id)
        if waiting is None:
            waiting = self._waiting[room_id] = []
            task = asyncio.get_running_loop().create_task(self._open(room_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append(proceed)

    def is_open(self, room_id: str) -> bool:
        """Whether a room is known to be there, and nobody waits for it."""
        return self._known.get(room_id, 0.0) > self._clock.monotonic() and room_id not in self._waiting

    def is_awaited(self, room_id: str) -> bool:
        return room_id in self._waiting

    def forget(self, room_id: str) -> None:
        """The room is gone."""
        self._known.pop(room_id, None)

    async def stop(self) -> None:
        """Whoever waits is given up."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for room_id in list(self._waiting):
            self._finish(room_id, BrokerUnavailable("The server stopped before this was published."))

    async def _open(self, room_id: str) -> None:
        try:
            await self._make(room_id)
        except Exception as error:
            self._finish(room_id, error)
            return
        self._known[room_id] = self._clock.monotonic() + KNOWN_FOR
        self._known.move_to_end(room_id)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        self._finish(room_id, None)

    def _finish(self, room_id: str, failure: Exception | None) -> None:
        for proceed in self._waiting.pop(room_id):
            proceed(copy.copy(failure))


def once_open(opening: Callable[[Proceed], None], act: Callable[[], asyncio.Future[T]]) -> asyncio.Future[T]:
    """What comes of `act`, which is called once the room is there."""
    outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def proceed(failure: Exception | None) -> None:
        if failure is None:
            act().add_done_callback(partial(_pass_on, outcome))
        elif not outcome.done():
            outcome.set_exception(failure)

    opening(proceed)
    return outcome


def _pass_on(outcome: asyncio.Future[T], done: asyncio.Future[T]) -> None:
    if done.cancelled():
        outcome.cancel()
        return
    failure = done.exception()
    if outcome.done():
        return
    if failure is not None:
        outcome.set_exception(failure)
    else:
        outcome.set_result(done.result())
