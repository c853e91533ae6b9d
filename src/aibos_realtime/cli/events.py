"""An event as commands print it: a line for people, an object for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .output import Part, to_json


@dataclass(frozen=True)
class Shown:
    """`offset`, `epoch`: None of what has no place in a log. `time`: aware."""

    room: str
    event: str
    offset: int | None
    epoch: str | None
    id: str | None
    data: Any
    user_id: str | None
    time: datetime | None

    def to_json(self) -> dict[str, Any]:
        """What there is of it, under the names of the wire."""
        values = {
            "room": self.room, "event": self.event, "offset": self.offset, "epoch": self.epoch, "id": self.id or None, "data": self.data,
            "userId": self.user_id,
            "timestamp": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z") if self.time else None,
        }  # fmt: skip
        return {name: value for name, value in values.items() if value is not None or name == "data"}

    def parts(self, time: str) -> list[Part]:
        """One line. `time`: as it is to be shown."""
        parts: list[Part] = [(f"{time}  ", "dim"), (self.room, "cyan")]
        parts += [(f" {self.offset}  " if self.offset is not None else "  ", "dim"), (self.event, "bold green"), "  ", to_json(self.data)]
        if self.user_id is not None:
            parts.append((f"  {self.user_id}", "dim"))
        return parts
