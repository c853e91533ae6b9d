"""Running a coroutine on the spot: a task only for the rest of one that has to wait.

Only for coroutines of this package whose first step asks nothing of the current task (`asyncio.timeout` would): there is none in that step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


class Suspended:
    """What is left of a coroutine that has taken its first step; awaiting it takes the others."""

    __slots__ = ("_coroutine", "_yielded")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], yielded: Any) -> None:
        self._coroutine = coroutine
        self._yielded = yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, yielded = self._coroutine, self._yielded
        try:
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:
                    yielded = coroutine.throw(error)
                else:
                    yielded = coroutine.send(sent)
        except StopIteration as done:
            return done.value


def start(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, Suspended | None]:
    """Take the first step: `(value, None)` when that was all, else `(None, the rest)`. What the coroutine raises is raised."""
    try:
        yielded = coroutine.send(None)
    except StopIteration as done:
        return done.value, None
    return None, Suspended(coroutine, yielded)


async def waiting_for(rest: Awaitable[Any]) -> Any:
    """A coroutine for what is merely awaitable, as a task needs one."""
    return await rest
