"""Conditions on users as values. What they mean for a user: tests/unit/pipeline/test_filters.py."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime import ConfigurationError, where


def test_conditions_are_plain_values_that_can_travel() -> None:
    assert where(role__in=("a", "b"), id__not_in=frozenset({"x"})) == {"role__in": ["a", "b"], "id__not_in": ["x"]}


@pytest.mark.parametrize("conditions", [{"role__is": "x"}, {"role__in": "admin"}, {"role__in": 5}, {"__in": ["x"]}, {"a__b__in": ["x"]}])
def test_conditions_that_cannot_be(conditions: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^where\("):
        where(**conditions)
