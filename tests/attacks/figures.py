"""What the attacks of a run cost, by kind: the worst of each, as the page on reliability shows it, and as the JSON beside the page keeps it.

Attacks that have bounds of their own are left out; the page tells of them in words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tests.attacks.arena import CANARY_P99, MEGABYTE, MEMORY, Toll

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
KEPT = ROOT / "docs" / "explanation" / "attacks.json"
HEAD = (
    "| kind of attack | attacks | attackers at once, at most | MB per attacker | canary p99, ms | its slowest answer, ms | loop late, ms |\n"
    "|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Worst:
    """The worst figure of all attacks of a kind, which need not be those of one of them. Bytes and seconds."""

    attacks: int
    attackers: int
    memory_each: float
    p99: float
    slowest: float
    worst_lag: float

    @property
    def is_borne(self) -> bool:
        return self.memory_each < MEMORY and self.p99 < CANARY_P99

    def to_row(self, kind: str) -> str:
        times = " | ".join(f"{1000 * value:.1f}" for value in (self.p99, self.slowest, self.worst_lag))
        return f"| {kind} | {self.attacks} | {self.attackers:,} | {self.memory_each / MEGABYTE:.2f} | {times} |"


def summarize(tolls: list[Toll]) -> Worst:
    return Worst(
        len(tolls),
        max(toll.attackers for toll in tolls),
        max(toll.memory_each for toll in tolls),
        max(toll.p99 for toll in tolls),
        max(toll.slowest for toll in tolls),
        max(toll.worst_lag for toll in tolls),
    )


def to_json(found: dict[str, list[Toll]]) -> dict[str, dict[str, float]]:
    usual = {kind: [toll for toll in tolls if toll.has_usual_bounds] for kind, tolls in sorted(found.items())}
    return {kind: asdict(summarize(tolls)) for kind, tolls in usual.items() if tolls}


def to_table(kept: dict[str, dict[str, float]]) -> str:
    rows = [Worst(**figures).to_row(kind) for kind, figures in kept.items()]  # type: ignore[arg-type]
    return HEAD + "\n".join(rows) + "\n"


def write_page(kept: dict[str, dict[str, float]]) -> None:
    """Put the table into the page, in place of the one that is there."""
    text = PAGE.read_text()
    begin = text.index(HEAD)
    end = text.index("\n\n", begin) + 1
    PAGE.write_text(text[:begin] + to_table(kept) + text[end:])
