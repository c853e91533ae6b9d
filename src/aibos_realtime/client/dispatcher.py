"""What the application is told: callbacks and iterators, one thing after the other, outside the reader of the connection.

A callback may take its time and may await the client's own calls: answers do not come this way. The task lives only while there is
something to tell.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections import deque
from collections.abc import Callable
from inspect import isawaitable
from typing import Any
from weakref import WeakSet

from ..errors import RealtimeError
from ..logs import get_logger
from ..protocol.messages import Event, Ref
from .room import RoomEvents

logger = get_logger("aibos_realtime.client")

Callback = Callable[..., Any]

_BREATH = 50
"""Deliveries in a row without a wait before the rest of the program gets a turn."""


class Delivery:
    """One thing to tell. `arguments`: what callbacks get, cut to as many as they take. `size`, `event`: for `ClientSession.handled`."""

    __slots__ = ("arguments", "connection", "ends", "error", "event", "name", "ref", "size")

    def __init__(self, name: str, *arguments: Any, event: Event | None = None, size: int = 0, ref: Ref | None = None, connection: int = 0) -> None:
        self.name = name
        self.arguments = arguments
        self.event = event
        self.size = size
        self.ref = ref
        self.connection = connection
        self.ends: str | None = None
        """The room whose iterators end here; "*" for all of them."""
        self.error: RealtimeError | None = None


class Dispatcher:
    """`on_done(delivery, answer, has_answer)` is called after the callbacks of a delivery have returned or raised, `on_idle()` when nothing waits."""

    def __init__(self) -> None:
        self.on_done: Callable[[Delivery, Any, bool], None] = lambda delivery, answer, has_answer: None
        self.on_idle: Callable[[], None] = lambda: None
        self._callbacks: dict[str, list[tuple[Callback, int]]] = {}
        self._iterators: dict[str, WeakSet[RoomEvents]] = {}
        self._inbox: deque[Delivery] = deque()
        self._task: asyncio.Task[None] | None = None
        self._takes_events = True

    def add(self, name: str, callback: Callback) -> None:
        """Call it for `name` from now on. Raises `TypeError` for what cannot be called with at most two arguments."""
        self._callbacks.setdefault(name, []).append((callback, _count_parameters(callback)))

    def remove(self, name: str, callback: Callback) -> None:
        """Call it no more for `name`; one that is not registered is fine."""
        kept = [one for one in self._callbacks.get(name, []) if one[0] != callback]
        if kept:
            self._callbacks[name] = kept
        else:
            self._callbacks.pop(name, None)

    def follow(self, iterator: RoomEvents) -> None:
        """Hand the events of its room to an iterator, for as long as somebody holds it."""
        self._iterators.setdefault(iterator.room, WeakSet()).add(iterator)

    def iterators(self, room: str) -> list[RoomEvents]:
        return list(self._iterators.get(room, ()))

    @property
    def is_inside(self) -> bool:
        """Whether the caller is a callback."""
        return self._task is not None and self._task is asyncio.current_task()

    def push(self, delivery: Delivery) -> None:
        """Tell it after everything that waits already."""
        if delivery.event is not None and not self._takes_events:
            return
        self._inbox.append(delivery)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="aibos-realtime client callbacks")

    def tell(self, name: str, *arguments: Any) -> None:
        """Push a life-cycle event."""
        self.push(Delivery(name, *arguments))

    def resume(self) -> None:
        """Take events again."""
        self._takes_events = True

    def discard(self) -> None:
        """Tell nothing of what still waits, and of no event until `resume`: the room's place would move past those. Iterators keep what they have."""
        self._takes_events = False
        waiting, self._inbox = self._inbox, deque()
        for delivery in waiting:
            if delivery.ends is not None:
                self._end_iterators(delivery)

    async def finish(self) -> None:
        """Wait until everything is told. Cancelling stops the callback that is running. Within a callback it returns at once."""
        if self._task is None or self.is_inside:
            return
        try:
            await self._task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise

    async def _run(self) -> None:
        try:
            count = 0
            while self._inbox:
                await self._deliver(self._inbox.popleft())
                count += 1
                if count % _BREATH == 0:
                    await asyncio.sleep(0)
        finally:
            self._task = None
        self.on_idle()

    async def _deliver(self, delivery: Delivery) -> None:
        if delivery.event is not None:
            for iterator in self.iterators(delivery.event.room):
                iterator.push(delivery.event)
        answer, has_answer = None, False
        for callback, takes in list(self._callbacks.get(delivery.name, ())):
            try:
                result = callback(*delivery.arguments[:takes])
                if isawaitable(result):
                    result = await result
            except asyncio.CancelledError as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                self._report(delivery.name, error)
            except Exception as error:
                self._report(delivery.name, error)
            else:
                if not has_answer:
                    answer, has_answer = result, True
        if delivery.ends is not None:
            self._end_iterators(delivery)
        self.on_done(delivery, answer, has_answer)

    def _end_iterators(self, delivery: Delivery) -> None:
        rooms = list(self._iterators) if delivery.ends == "*" else [delivery.ends or ""]
        for room in rooms:
            for iterator in self._iterators.pop(room, ()):
                iterator.end(delivery.error)

    def _report(self, name: str, error: BaseException) -> None:
        """A callback failed: `error` callbacks hear of it; without one, and for their own failures, the log does, without the
        error's text.
        """
        if name != "error" and self._callbacks.get("error"):
            # Ahead of what waits: the failure belongs to what was just told.
            self._inbox.appendleft(Delivery("error", error))
            return
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        logger.error("a callback for %r failed with %s%s", name, type(error).__name__, place)


def _count_parameters(callback: Callback) -> int:
    """How many arguments a callback takes: 0, 1 or 2."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = [one for one in positional if one.default is one.empty]
    needed = [one for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if len(required) > 2 or needed:
        raise TypeError("a callback takes no argument, the data, or the data and the event")
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return 2
    return min(len(positional), 2)
