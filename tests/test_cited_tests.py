"""Where the docs name a test as the proof of something, there is such a test; and a command, such a command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "SECURITY.md", ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

TEST = re.compile(r"`((?:tests/)[\w/.-]*|test_\w+\.py)(?:::(\w+))?`")
COMMAND = re.compile(r"python -m ((?:tests|benchmarks)[a-z0-9_.]*)")


def cited(page: Path) -> Iterator[tuple[Path, str | None]]:
    """Files and folders of tests that a page names, with the test's name where it is said. A bare file name is in the folder named before it."""
    folder = ROOT / "tests"
    for path, name in TEST.findall(page.read_text()):
        found = ROOT / path if path.startswith("tests/") else folder / path
        folder = found if found.is_dir() else found.parent
        yield found, name or None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_cites_exists(page: Path) -> None:
    missing = [path.relative_to(ROOT).as_posix() for path, _ in cited(page) if not path.exists()]
    missing += [f"{path.name}::{name}" for path, name in cited(page) if name and path.is_file() and f"def {name}(" not in path.read_text()]
    missing += [module for module in COMMAND.findall(page.read_text()) if find_spec(module.rstrip(".")) is None]
    assert missing == []


def test_something_is_cited() -> None:
    assert sum(len(list(cited(page))) for page in PAGES) > 40
