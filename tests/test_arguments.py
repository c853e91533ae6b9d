"""No proof is of nothing: `python -m tests.model --runs 0` said that none of 0 runs had failed."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from tests.arguments import amount, count


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "nan", "inf"])
def test_a_size_of_nothing_is_refused(text: str) -> None:
    sizes: list[Callable[[str], float]] = [count] if text == "1.5" else [count, amount]
    for size in sizes:
        with pytest.raises(ArgumentTypeError, match="allowed is"):
            size(text)


def test_sizes() -> None:
    assert (count("1"), count("2000"), amount("0.5"), amount("30")) == (1, 2000, 0.5, 30.0)
