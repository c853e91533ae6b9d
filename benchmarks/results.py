"""What was measured, kept as JSON: one file for each part, with the machine, the versions and every round, so that tables and plots need no run."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

Figures = dict[str, float]


@dataclass(frozen=True)
class Results:
    """One part, read. `rounds` of figures by contestant and point; what programs of their own printed is in `results` alone."""

    part: str
    record: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record["results"]
        return found

    @property
    def contestants(self) -> list[str]:
        return list(self.results)

    def points(self, contestant: str) -> list[str]:
        return list(self.results.get(contestant, {}))

    def rounds(self, contestant: str, point: str) -> list[Figures]:
        found: list[Figures] = self.results.get(contestant, {}).get(point, [])
        return found

    def median(self, contestant: str, point: str, figure: str) -> float | None:
        """None where it was not measured, and for the times of a server that could not keep up."""
        rounds = self.rounds(contestant, point)
        values = [found[figure] for found in rounds if figure in found]
        if not values or (figure.endswith("_ms") and 2 * sum(found.get("behind", 0) > 0 for found in rounds) >= len(rounds)):
            return None
        return statistics.median(values)

    def ratio(self, contestant: str, other: str, point: str, figure: str, other_point: str | None = None) -> float | None:
        """The median of the rounds' own ratios: a machine that gets slower from round to round does not show in it."""
        pairs = list(zip(self.rounds(contestant, point), self.rounds(other, other_point or point), strict=False))
        if figure.endswith("_ms"):
            pairs = [(one, two) for one, two in pairs if not one.get("behind") and not two.get("behind")]
        ratios = [one[figure] / two[figure] for one, two in pairs if figure in one and two.get(figure)]
        return statistics.median(ratios) if ratios else None


def read(folder: Path) -> dict[str, Results]:
    """All parts that are kept there, by name."""
    return {path.stem: Results(path.stem, json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))}


def write(folder: Path, part: str, record: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.json"
    path.write_text(render(record))
    return path


def render(record: dict[str, Any]) -> str:
    """JSON with one round a line."""
    inner: list[str] = []

    def keep(value: Any) -> Any:
        if isinstance(value, dict) and value and not any(isinstance(one, dict | list) for one in value.values()):
            inner.append(json.dumps(value, ensure_ascii=False))
            return f"@{len(inner) - 1}@"
        if isinstance(value, dict):
            return {name: keep(one) for name, one in value.items()}
        return [keep(one) for one in value] if isinstance(value, list) else value

    text = json.dumps(keep(record), ensure_ascii=False, indent=1)
    for number, line in enumerate(inner):
        text = text.replace(f'"@{number}@"', line, 1)
    return text + "\n"


def describe_machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": _find_processor(),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def today(clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str:
    return clock().date().isoformat()
