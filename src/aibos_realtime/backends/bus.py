"""The port over which nodes ask one another to do something: kick, disconnect, revoke, and so on. What a request means is for those who handle it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Protocol, TypeVar

from msgspec import Struct

R = TypeVar("R", bound=Struct)

Handler = Callable[[Any], Any | Awaitable[Any]]
"""Does what a request asks for on this node. What it returns, a plain value, is this node's answer."""


class Bus(Protocol):
    """Reaches every node that lives, the own one too, once and in one order. A request is a struct with a tag, by which the other nodes know it."""

    def on(self, kind: type[R], handler: Callable[[R], Any | Awaitable[Any]]) -> None:
        """From now on do this when any node asks for it. Called before `start`; one handler for each kind."""

    def on_gap(self, callback: Callable[[], Any]) -> None:
        """Call when requests may have passed this node by: it was away for too long."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ask(self, request: Struct) -> list[Any]:
        """Have every node do something, and return what they answered, once all have, or those that did within a second.

        A node that does not answer in time does it as soon as it can; one that fails answers nothing. Raises what the own handler raises, and
        `BrokerUnavailable` where the others cannot be reached: then the own handler has done it, and theirs perhaps. Cancelling takes nothing back.
        """


class LocalBus:
    """The bus of a single node: asking is doing."""

    def __init__(self) -> None:
        self._handlers: dict[type[Struct], Handler] = {}

    def on(self, kind: type[R], handler: Callable[[R], Any | Awaitable[Any]]) -> None:
        assert kind not in self._handlers, kind
        self._handlers[kind] = handler

    def on_gap(self, callback: Callable[[], Any]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ask(self, request: Struct) -> list[Any]:
        result = self._handlers[type(request)](request)
        return [await result if isawaitable(result) else result]
