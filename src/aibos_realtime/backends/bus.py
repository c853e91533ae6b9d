"""The port over which nodes ask one another to do something: kick, disconnect, revoke, and so on. What a verb means is for those who handle it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, Protocol

Handler = Callable[[Mapping[str, Any]], Any | Awaitable[Any]]
"""Does what a verb means on this node. What it returns, a plain value, is this node's answer."""


class Bus(Protocol):
    """Reaches every node that lives, the own one too, once and in one order."""

    def on(self, verb: str, handler: Handler) -> None:
        """From now on do this when any node asks for `verb`. Called before `start`; one handler for each verb."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ask(self, verb: str, **arguments: Any) -> list[Any]:
        """Have every node do something, and return what they answered, once all have, or those that did within a second.

        A node that does not answer in time does it as soon as it can. `arguments`: plain values. Raises what the own handler raises, and
        `BrokerUnavailable` where the others cannot be reached. Cancelling takes nothing back.
        """


class LocalBus:
    """The bus of a single node: asking is doing."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def on(self, verb: str, handler: Handler) -> None:
        assert verb not in self._handlers, verb
        self._handlers[verb] = handler

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ask(self, verb: str, **arguments: Any) -> list[Any]:
        result = self._handlers[verb](arguments)
        return [await result if isawaitable(result) else result]
