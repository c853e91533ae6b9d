"""What commands print: coloured on a terminal, plain and unwrapped anywhere else. stdout is for results, stderr for everything about them.

What comes from others (names, data) never reaches a terminal with control characters in it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

Part = str | tuple[str, str]
"""Text, or (text, style); a style is one of rich's, such as "bold cyan"."""


def escape_controls(text: str) -> str:
    """Without characters that move a cursor, change a colour or turn the direction of writing: they are shown as `\\u001b`."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def to_json(value: Any) -> str:
    """One line of JSON that is safe to show."""
    return escape_controls(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def show_time(moment: float | str | None) -> str:
    """A moment, Unix seconds or RFC 3339, in the local time zone: `2025-11-23 12:00:00`. What is none is shown as it is."""
    if moment is None:
        return "-"
    try:
        time = datetime.fromtimestamp(moment).astimezone() if isinstance(moment, float | int) else datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(moment)
    return f"{time:%Y-%m-%d %H:%M:%S}"


def show_bytes(count: float) -> str:
    """`0 B`, `12 KB`, `3.4 MB`."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class ReaderGone(Exception):
    """Whoever read our output reads no more, as `| head` does: the command ends, and that is no failure."""


class Output:
    """One of the two streams. It looks up `sys.stdout` or `sys.stderr` at each line, and flushes it after each. Raises `ReaderGone`."""

    def __init__(self, *, is_error: bool = False) -> None:
        self._is_error = is_error

    @property
    def stream(self) -> IO[str]:
        return sys.stderr if self._is_error else sys.stdout

    @property
    def is_terminal(self) -> bool:
        return self.stream.isatty()

    def line(self, *parts: Part) -> None:
        """Print the parts as one line. Long lines are never broken: what is copied from them stays whole."""
        texts = [(part, "") if isinstance(part, str) else part for part in parts]
        if not self.is_terminal:
            self.write("".join(escape_controls(text) for text, _ in texts).rstrip())
            return
        from rich.console import Console
        from rich.text import Text

        console = Console(file=self.stream, highlight=False, soft_wrap=True)
        with console.capture() as captured:
            console.print(Text.assemble(*((escape_controls(text), style) for text, style in texts)), soft_wrap=True)
        self.write(captured.get().rstrip("\n"))

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON, never coloured."""
        self.write(to_json(value))

    def write(self, line: str) -> None:
        """Print a line as it is."""
        try:
            print(line, file=self.stream, flush=True)
        except BrokenPipeError:
            raise ReaderGone from None

    def columns(self, rows: list[list[Part]]) -> None:
        """Print rows with their columns aligned; the last column is as long as it is."""
        texts = [[part if isinstance(part, str) else part[0] for part in row] for row in rows]
        widths = [max(len(row[column]) for row in texts) for column in range(len(rows[0]) - 1)] if rows else []
        for row, plain in zip(rows, texts, strict=True):
            padding = [*(width - len(text) + 2 for width, text in zip(widths, plain, strict=False)), 0]
            self.line(*(part for cell, space in zip(row, padding, strict=True) for part in (cell, " " * space)))

    def facts(self, facts: Mapping[str, Part]) -> None:
        """Print what is known of one thing: a name and a value a line."""
        self.columns([[(name, "dim"), value] for name, value in facts.items()])


out = Output()
err = Output(is_error=True)


def note(text: str) -> None:
    """Say something about the work, on stderr."""
    err.line((text, "dim"))


def complain(text: str) -> None:
    """Say what went wrong, on stderr."""
    first, *rest = text.splitlines() or [""]
    err.line(("aibos-realtime: ", "bold red"), first)
    for line in rest:
        err.line(line)
