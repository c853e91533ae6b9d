"""The page's tables are those of the results that are kept, and are written nowhere but between their marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, results
from benchmarks.page import PAGE, TABLES, begin_of, bold, fill, fill_all, fill_page, number, side_by_side, size
from benchmarks.parts import ALL, FIELD, PARTS
from benchmarks.results import Results

ABOUT: dict[str, Any] = {
    "date": "2026-01-02",
    "seconds": 1,
    "rounds": 3,
    "machine": {"cores": 2, "processor": "a processor", "python": "3.11.7"},
    "versions": {"ours": {"aibos-realtime": "0.1.0", "uvloop": "0.23.0"}, "uws": {"uwebsockets": "3.0.6", "node": "v20.20.2"}},
}


def make(part: str, **figures: dict[str, float]) -> Results:
    points = PARTS[part].points
    return Results(part, ABOUT | {"results": {name: {point: [found] for point in points} for name, found in figures.items()}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.5432, "0.54"),
        (5.876, "5.88"),
        (10.43, "10.4"),
        (60.26, "60.3"),
        (100.4, "100"),
        (25_912.3, "25,912"),
        (0.0, "0.00"),
        (-3.0, "-3.00"),
    ],
)
def test_a_number_has_the_digits_that_say_something(value: float | None, text: str) -> None:
    assert number(value) == text


def test_small_parts_of_a_table() -> None:
    assert number(2.0, 0) == "2"
    assert [size(value) for value in ("64", "1024", "65536")] == ["64 B", "1 KB", "64 KB"]
    assert (bold("ours", "1.0"), bold("ours", "–"), bold("ws", "1.0")) == ("**1.0**", "–", "1.0")


def test_side_by_side_has_a_row_for_each_work_and_a_column_for_each_contestant() -> None:
    drawn = side_by_side({"fanout": make("fanout", ours={"cpu_us": 6.6}, uws={"cpu_us": 5.876}), "idle": make("idle", ours={"kb_per_client": 3.5})})
    head, _, fanout, burst, *_ = drawn.splitlines()
    assert [cell.strip() for cell in head.split("|")[2:-1]] == ["floor", "µWebSockets", "**this server**", *(page.LABELS[name] for name in FIELD[3:])]
    assert [cell.strip() for cell in fanout.split("|")[1:5]] == ["fan-out, one event at a time: µs CPU", "–", "5.88", "**6.60**"]
    assert set(cell.strip() for cell in burst.split("|")[2:-1]) == {"–"}
    assert "**3.50**" in drawn
    assert drawn.endswith("Medians of 3 rounds, 2026-01-02, 2 cores (a processor), CPython 3.11.7. node 20.20.2, uvloop 0.23.0, uwebsockets 3.0.6.")


def test_half_load_is_told() -> None:
    half = Results("half", make("half", ours={"p99_ms": 9.0}).record | {"loads": {"1000": {"rate": 86.5}}})
    drawn = side_by_side({"fanout": make("fanout", ours={"cpu_us": 6.6}), "half": half})
    assert " Half load: 86.5 events a second. " in drawn and "**9.00**" in drawn


def test_one_round_is_not_called_a_median() -> None:
    one = Results("members", make("members", ours={"cpu_us": 6.6}).record | {"rounds": 1})
    assert page.about(one) == "1 round, 2026-01-02, 2 cores (a processor), CPython 3.11.7."
    later = Results("half", one.record | {"rounds": 5, "date": "2026-02-03"})
    assert page.about(one, later).startswith("Medians of 1 to 5 rounds, 2026-01-02 and 2026-02-03, ")


def test_every_table_is_filled_between_its_marks_and_nothing_else_is_touched(tmp_path: Path) -> None:
    text = "".join(f"before\n{begin_of(name)}\nold\n{page.END}\n" for name in TABLES)
    kept = {"fanout": make("fanout", ours={"cpu_us": 6.6}), "members": make("members", ours={"cpu_us": 7.7})}
    filled = fill_page(text, kept)
    assert filled.count("old") == len(TABLES) - 3 and filled.count("before") == len(TABLES)
    assert f"{begin_of('members')}\n\nµs of CPU per delivery:\n\n| members |" in filled and f".\n\n{page.END}\nbefore" in filled
    assert "**6.60**" in filled and "**7.70**" in filled
    path = tmp_path / "page.md"
    path.write_text(text)
    assert fill_all(kept, path) == [path] and path.read_text() == filled
    assert fill_all(kept, path) == []


def test_a_page_without_the_marks_is_refused() -> None:
    for text in ("nothing", begin_of("ratios"), f"{page.END} {begin_of('ratios')}"):
        with pytest.raises(ValueError, match="has no"):
            fill(text, "ratios", "drawn")


def test_the_page_has_a_place_for_every_table_and_every_part_has_a_table() -> None:
    assert page.names_in(PAGE.read_text()) == [
        "side by side", "ratios", "members", "rooms", "payload", "connections", "durable", "publishes", "store", "queue", "nodes", "two nodes",
    ]  # fmt: skip
    assert sorted(page.names_in(PAGE.read_text())) == sorted(TABLES)
    shown = {part for parts, _ in TABLES.values() for part in parts}
    assert set(ALL) - shown == {"burst", "request", "open", "idle", "half"}  # which stand beside the fan-out


def test_the_tables_of_the_page_are_those_of_the_kept_results() -> None:
    """If this fails, run `python -m benchmarks plot`."""
    kept = results.read(results.FOLDER)
    assert set(kept) == set(ALL)
    text = PAGE.read_text()
    assert fill_page(text, kept) == text


def test_a_summary_is_of_what_the_part_is_about() -> None:
    assert "µs CPU per delivery" in page.summary(make("members", ours={"cpu_us": 6.6, "open_cpu_us": 9.0}))
    drawn = page.summary(make("idle", ours={"open_cpu_us": 199.0, "kb_per_client": 3.5}, ws={"open_cpu_us": 90.0}))
    assert "µs CPU to open a session" in drawn and drawn.splitlines()[-1].replace(" ", "") == "|10000|199|90.0|"
