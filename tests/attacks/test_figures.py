"""The table of the attacks on the page is what was measured, and within the bounds."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.attacks.arena import Toll
from tests.attacks.figures import HEAD, KEPT, PAGE, Worst, summarize, to_table


def toll(**changed: float) -> Toll:
    return replace(Toll("x", 1, 0, 0.0, 1, 0.0, 0.0, 0.0), **changed)  # type: ignore[arg-type]


def test_the_page_shows_what_was_measured() -> None:
    assert to_table(json.loads(KEPT.read_text())) in PAGE.read_text()
    assert PAGE.read_text().count(HEAD) == 1


def test_what_was_measured_is_within_the_bounds() -> None:
    kept = {kind: Worst(**figures) for kind, figures in json.loads(KEPT.read_text()).items()}
    assert [kind for kind, worst in kept.items() if not worst.is_borne] == []
    assert len(kept) > 10


def test_the_worst_of_each_figure() -> None:
    found = summarize([toll(memory=100, p99=0.5), toll(memory=300, attackers=10, worst_lag=0.2)])
    assert found == Worst(attacks=2, attackers=10, memory_each=100.0, p99=0.5, slowest=0.0, worst_lag=0.2)
    assert not found.is_borne
