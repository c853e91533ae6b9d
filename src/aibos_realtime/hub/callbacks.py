"""Who wants to hear of what: the callbacks behind every `on(...)`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Any, TypeVar, overload

from ..errors import ConfigurationError
from ..logs import get_logger

F = TypeVar("F", bound=Callable[..., Any])

logger = get_logger("aibos_realtime")


class Callbacks:
    """Callbacks by event name. `def` and `async def` alike; one that fails is logged and costs the others nothing."""

    def __init__(self, owner: str, events: Iterable[str]) -> None:
        self._owner = owner
        self._by_event: dict[str, list[Callable[..., Any]]] = {event: [] for event in events}
        self._tasks: set[asyncio.Future[Any]] = set()

    @overload
    def add(self, event: str) -> Callable[[F], F]: ...

    @overload
    def add(self, event: str, callback: F) -> F: ...

    def add(self, event: str, callback: Callable[..., Any] | None = None) -> Any:
        """Register; without a callback, a decorator that does. Raises `ConfigurationError` for an event that does not exist here."""
        if event not in self._by_event:
            raise ConfigurationError(f"{self._owner}.on({event!r}): there is no such event; there are: {', '.join(self._by_event)}")

        def register(callback: Callable[..., Any]) -> Callable[..., Any]:
            if not callable(callback):
                raise ConfigurationError(f"{self._owner}.on({event!r}): a function is expected, not {type(callback).__name__}")
            self._by_event[event].append(callback)
            return callback

        return register if callback is None else register(callback)

    def has(self, event: str) -> bool:
        return bool(self._by_event[event])

    def notify(self, event: str, *args: object) -> None:
        """Call every callback of an event now; those that are coroutines run on as tasks."""
        for callback in self._by_event[event]:
            try:
                result = callback(*args)
            except Exception:
                logger.exception("a callback of %s.on(%r) failed", self._owner, event)
            else:
                if isawaitable(result):
                    task = asyncio.ensure_future(self._watch(event, result))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def call(self, event: str, *args: object) -> None:
        """Call every callback of an event and wait for all, in order; a failure goes to the caller."""
        for callback in self._by_event[event]:
            result = callback(*args)
            if isawaitable(result):
                await result

    async def _watch(self, event: str, result: Awaitable[Any]) -> None:
        try:
            await result
        except Exception:
            logger.exception("a callback of %s.on(%r) failed", self._owner, event)

    def take_over(self, other: Callbacks) -> None:
        """Have the other's callbacks too."""
        for event, callbacks in other._by_event.items():
            self._by_event[event].extend(callbacks)

    async def stop(self) -> None:
        """Cancel what is still running, and wait for its end."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
