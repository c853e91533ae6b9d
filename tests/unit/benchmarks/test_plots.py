"""A plot follows the reader's scheme, and its axes say what they mean. What it looks like is looked at by a person."""

from __future__ import annotations

import pytest

from benchmarks.page import PAGE
from benchmarks.parts import FIELD, PARTS
from benchmarks.plots import COLOURS, CURVES, FAINT, FOLDER, INK, MARKS, PAPER, follow_scheme, kilo, members_of, short


def test_what_the_scheme_decides_is_left_to_the_reader() -> None:
    svg = f'<?xml version="1.0"?>\n<svg width="1">\n<path style="fill: {PAPER}"/><path style="stroke: {INK}"/><path style="stroke: {FAINT}"/></svg>'
    drawn = follow_scheme(svg)
    assert drawn.startswith('<?xml version="1.0"?>\n<svg width="1">\n <style>svg { --paper: #ffffff; ')
    assert "@media (prefers-color-scheme: dark) { svg { --paper: #0d1117; " in drawn
    assert 'fill: var(--paper)"' in drawn and 'stroke: var(--ink)"' in drawn and 'stroke: var(--faint)"' in drawn
    assert not any(colour in drawn for colour in (PAPER, INK, FAINT))


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (12.34, "12.3"), (1_000, "1,000"), (10_000, "10k"), (65_536, "65.5k"), (2_000_000, "2M")])
def test_a_value_is_written_short(value: float, text: str) -> None:
    assert short(value) == text


def test_what_stands_at_an_axis() -> None:
    assert [kilo(int(point)) for point in PARTS["payload"].points] == ["64", "256", "1K", "4K", "16K", "64K"]
    assert [members_of(int(point)) for point in PARTS["rooms"].points] == ["1\n10k", "10\n1,000", "100\n100", "1,000\n10", "10k\n10"]


def test_nobody_is_taken_for_another() -> None:
    assert set(COLOURS) == set(MARKS) == set(FIELD)
    assert len(set(COLOURS.values())) == len(set(MARKS.values())) == len(FIELD)


def test_the_page_shows_every_plot() -> None:
    text = PAGE.read_text()
    for name in ("side-by-side", *CURVES):
        assert f"](figures/{name}.svg)" in text
        drawn = (FOLDER / f"{name}.svg").read_text()
        assert "prefers-color-scheme: dark" in drawn and "this server" in drawn
