"""All fuzz targets in small: inputs of hypothesis, the same in each run of CI, and all that was ever found. In large: `python -m tests.fuzz`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import CORPUS, TARGETS

EXAMPLES = {
    "session": 60,
    "client": 40,
    "request": 150,
    "toml": 60,
    "dotenv": 60,
    "options": 150,
    "environment": 150,
    "queued": 100,
    "bus": 100,
    "revocations": 100,
}
"""Where an input costs milliseconds."""
MOST = 400
FOUND = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}-{path.name}" for path in FOUND])
def test_what_was_found_once(path: Path) -> None:
    """Each of these files once broke something; the changelog says what was mended."""
    TARGETS[path.parent.name](path.read_bytes())


def test_what_was_found_has_a_target_and_a_name() -> None:
    assert [path for path in FOUND if path.parent.name not in TARGETS] == []
    assert [path for path in FOUND if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.name)] == []


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str) -> None:
    """Bytes of every length, and beginnings that are known to lead far, with other ends."""
    known = list(seeds(name))

    @settings(max_examples=EXAMPLES.get(name, MOST), database=None)
    @given(
        st.binary(max_size=600)
        | st.builds(lambda known, at, more: known[:at] + more, st.sampled_from(known), st.integers(0, 1000), st.binary(max_size=60))
    )
    @example(b"")
    def one_input(data: bytes) -> None:
        TARGETS[name](data)

    one_input()
