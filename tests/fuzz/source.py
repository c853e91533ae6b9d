"""Bytes as a supply of choices: what a target makes its input of, the same by a fuzzer, by hypothesis, and from a file.

Nothing runs out: where no byte is left every choice is the first one. So each input is a valid one, and a shorter one is a simpler one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

NUMBERS = (
    "0", "-1", "1", "2", "100", "4097", "0.5", "-0.0", "1e3", "1e308", "1e400", "-1e400", "NaN", "Infinity", "9007199254740992", "9007199254740993",
    "-9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "1" + "0" * 40,
    "1" + "0" * 400,
    "9" * 5000, "0.1" + "0" * 400, "1" + "0" * 310 + ".5",
)  # fmt: skip
"""As they stand in a text; some are no JSON."""
TEXTS = (
    "", "a", "lobby", "all", "user:ann", "user:bob", "ann", "e1", "ü\u202e\u200b", "\x00", "\x1f", "\x7f", "\ufeff", "__proto__", "' OR 1=1 --",
    "../x", "*",
    "a" * 129, "x" * 600, "2023-11-14T22:13:20Z", "9999-99-99T00:00:00Z", "0001-01-01T00:00:00+23:59", "{}", "null",
)  # fmt: skip
ESCAPES = (r'"\u0000"', r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u005c\u0022"', '"\\x"', '"' + "\\u0041" * 50 + '"', '"\n"')


class Source:
    """Takes what it gives from the front of `data`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        """0 to 255."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def flag(self) -> bool:
        return self.byte() & 1 == 1

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def number(self, size: int = 4) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """As many bytes, or as there are."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def text(self) -> str:
        """One of those that are known to hurt, or whatever bytes say."""
        return self.pick(TEXTS) if self.flag() else self.take(self.byte() % 32).decode(errors="replace")

    def json(self, depth: int = 4) -> str:
        """A text that is mostly JSON."""
        kind = self.byte() % 12
        if kind < 2:
            return self.pick(NUMBERS)
        if kind < 4:
            return json.dumps(self.text(), ensure_ascii=self.flag())
        if kind == 4:
            return self.pick(("null", "true", "false", "", "[", "{", "undefined", '"'))
        if kind == 5:
            return self.pick(ESCAPES)
        if kind == 6:
            levels = self.byte()
            return "[" * levels + "]" * levels
        if kind == 7:
            return self.take(self.byte() % 24).decode(errors="replace")
        count = self.byte() % 4 if depth else 0
        if kind < 10:
            return "[" + ",".join(self.json(depth - 1) for _ in range(count)) + "]"
        return "{" + ",".join(f"{json.dumps(self.text())}:{self.json(depth - 1)}" for _ in range(count)) + "}"

    def value(self, depth: int = 3) -> Any:
        """A plain Python value, of those that MessagePack and option dictionaries have."""
        kind = self.byte() % 12
        if kind < 3:
            return self.text()
        if kind < 6:
            return self.pick((0, 1, -1, 2**31, 2**53, 2**53 + 1, -(2**63), 2**64 - 1, True, False, None, 1700000000000))
        if kind < 8:
            return self.pick((0.0, -0.5, 1e308, float("inf"), float("-inf"), float("nan"), 1.5, 600.0))
        if kind == 8:
            return self.take(self.byte() % 16)
        count = self.byte() % 4 if depth else 0
        if kind < 10:
            return [self.value(depth - 1) for _ in range(count)]
        return {self.text(): self.value(depth - 1) for _ in range(count)}
