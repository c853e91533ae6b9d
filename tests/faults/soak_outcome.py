"""What the soak is asked for, and what it found: as text, with a table by kind of fault, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.faults.checker import Verdict
from tests.faults.soak_memory import Memory
from tests.faults.soak_site import Queue, Store
from tests.faults.soak_work import Effects

ENOUGH_HISTORY = 1000
"""Events of a room, more than are published while anybody may be away."""
COUNTS = ("sent", "acknowledged", "unknown", "of these read", "delivered", "told of a gap")


@dataclass(frozen=True)
class Setting:
    """How long, and how much."""

    minutes: float = 30.0
    """Of faults."""
    seed: int = 1
    store: Store = "postgresql"
    queue: Queue = "redis"
    interval: float = 5.0
    """Seconds from one fault to the next."""
    longest: float = 9.0
    """Seconds that a fault may last."""
    quiet: float = 60.0
    """Seconds without any at the end."""
    rate: float = 120.0
    """Publishes a second."""
    sends: float = 10.0
    """Messages a second to the queue; and half as many transactions of an application."""
    rooms: int = 5
    history: int = ENOUGH_HISTORY
    """Events of a room that Redis keeps."""
    within: float = 15.0
    """Seconds in which all is well again after a fault that was alone."""
    kinds: list[str] = field(default_factory=list)
    """Faults that may come; empty: all that are possible."""

    @property
    def may_tell(self) -> bool:
        """Whether members may be told of a gap: what they miss may be in the store alone, and that be away."""
        return self.history < ENOUGH_HISTORY


@dataclass
class Outcome:
    """What became of it. `table`: see `rows_of`; `presence`: seconds until every node named who is there."""

    setting: Setting
    verdict: Verdict
    table: dict[str, dict[str, float | None]]
    effects: Effects
    memory: Memory
    transactions: int
    presence: float
    seconds: float
    visits: int
    failed_starts: int
    slowest_refusal: float
    complaints: list[str]

    @property
    def faults(self) -> int:
        return sum(int(row["times"] or 0) for row in self.table.values())

    def to_json(self) -> dict[str, Any]:
        verdict = self.verdict
        return {
            "seed": self.setting.seed, "minutes": self.setting.minutes, "store": self.setting.store, "queue in": self.setting.queue,
            "seconds": round(self.seconds, 1), "faults": self.faults, "kinds": self.table, "verdict": dict(verdict.faults),
            "counts": {name: verdict.counts[name] for name in COUNTS},
            "queue": {
                "acknowledged": len(self.effects.acknowledged), "effects": len(self.effects.effects), "left": self.effects.left,
                "sends repeated": self.effects.unknown,
            },
            "transactions": self.transactions, "presence": {"visits": self.visits, "right after": round(self.presence, 2)},
            "slowest refusal": round(self.slowest_refusal, 2), "failed starts": self.failed_starts, "memory": self.memory.to_json(),
            "complaints": self.complaints,
        }  # fmt: skip

    def __str__(self) -> str:
        effects, counts = self.effects, self.verdict.counts
        lines = [_row(HEAD), *(_row(_cells(kind, row)) for kind, row in self.table.items())]
        lines += [
            f"seed {self.setting.seed}, {self.faults} faults, {self.seconds:.0f} s in all",
            ", ".join(f"{name} {counts[name]}" for name in COUNTS) + f"; the slowest refusal was heard after {self.slowest_refusal:.1f} s",
            str(self.verdict).partition("\n")[2],
            f"queue: acknowledged {len(effects.acknowledged)}, effects {len(effects.effects)}, left {effects.left}; sends repeated {effects.unknown}",
            f"transactions committed {self.transactions}",
            f"presence: {self.visits} visits, right {self.presence:.1f} s after the last fault's quiet; starts that failed {self.failed_starts}",
            str(self.memory),
            *self.complaints,
            "clean" if not self.complaints else "NOT CLEAN",
        ]
        return "\n".join(lines)


HEAD = ("fault", "times", "refused", "alone", "refused after", "acknowledging after", "slowest", "delivering after", "slowest", "slowest of all")


def _cells(kind: str, row: dict[str, float | None]) -> tuple[str, ...]:
    return kind, *(_show(name, value) for name, value in row.items())


def _show(name: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if name in ("times", "refused", "alone") else f"{value:.2f} s"


def _row(cells: tuple[str, ...]) -> str:
    first, *others = (cell.ljust(len(head)) for cell, head in zip(cells, HEAD, strict=True))
    return "| " + " | ".join([first.ljust(36), *others]) + " |"
