"""The unit in which costs are kept: a fixed piece of plain Python that does in small what the server does.

It stays as it is for ever. Interpreters differ in the instructions that they need for the same code, by version and by how they were built; a path
that costs as much as so many runs of this does so on each of them, more or less.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class _Item:
    __slots__ = ("data", "name", "number")

    def __init__(self, name: str, number: int, data: bytes) -> None:
        self.name = name
        self.number = number
        self.data = data

    @property
    def is_even(self) -> bool:
        return self.number % 2 == 0


class _Reader:
    __slots__ = ("items", "put", "taken")

    def __init__(self) -> None:
        self.items: deque[bytes] = deque(maxlen=8)
        self.put: Callable[[bytes], None] = self.items.append
        self.taken = 0

    def take(self, item: _Item) -> None:
        if item.is_even and item.name:
            self.taken += len(item.data)


class Reference:
    """`run()` does the piece once."""

    def __init__(self) -> None:
        self.rounds = 0
        self._readers = {number: _Reader() for number in range(100)}
        self._names: dict[str, int] = {}

    def run(self) -> None:
        items = [self._make(number) for number in range(16)]
        frame = b"".join([item.data for item in items])
        for reader in self._readers.values():
            put = reader.put
            put(frame)
        for item in items:
            for number in (3, 5, 8):
                self._readers[number].take(item)
        for number in range(8):
            self._step(self._answer(number))
        self.rounds += 1

    def _make(self, number: int) -> _Item:
        name = f"item-{number}"
        self._names[name] = self._names.get(name, 0) + 1
        body = name.encode() * 8
        head = (0x817E << 16 | len(body)).to_bytes(4, "big")
        return _Item(name, number, head + body)

    async def _answer(self, number: int) -> dict[str, Any]:
        try:
            if number % 4 == 3:
                raise KeyError(number)
            return {"number": number, "name": f"item-{number}", "known": number in self._readers}
        except KeyError as error:
            return {"error": type(error).__name__}

    def _step(self, coroutine: Coroutine[Any, Any, dict[str, Any]]) -> None:
        try:
            coroutine.send(None)
        except StopIteration as done:
            assert isinstance(done.value, dict) and not asyncio.iscoroutine(done.value)
