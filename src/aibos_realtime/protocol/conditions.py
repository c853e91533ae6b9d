"""Conditions on users, as values that travel with an event: `where(...)`. Deciding them for a user is `pipeline.filters`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import contains, eq, ge, gt, le, lt, ne
from typing import Any

from ..errors import ConfigurationError

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": eq,
    "ne": ne,
    "in": lambda has, wanted: has in wanted,
    "not_in": lambda has, wanted: has not in wanted,
    "contains": contains,
    "gt": gt,
    "gte": ge,
    "lt": lt,
    "lte": le,
}
"""What a user has, and what is wanted. They raise `TypeError` where the two cannot be compared."""


class Where(dict[str, Any]):
    """Conditions made by `where`."""


def where(**conditions: Any) -> Where:
    """Conditions on a user, all of which must hold: `where(role__in=["admin", "user"], department="sales")`.

    Names are `id`, `role`, `tenant_id`, and the token's further claims; after `__` an operator: eq (or none), ne, in, not_in, contains, gt, gte,
    lt, lte.
    A user without the claim fits no condition but `ne` and `not_in`. Values are plain JSON values. Raises `ConfigurationError`.
    """
    for key, value in conditions.items():
        name, _, operator = key.partition("__")
        if operator and operator not in OPERATORS:
            raise ConfigurationError(f"where({key}=…): there is no operator {operator!r}; there are: {', '.join(OPERATORS)}")
        if operator in ("in", "not_in") and (isinstance(value, str) or not isinstance(value, Iterable)):
            raise ConfigurationError(f"where({key}=…): a list is expected, not {type(value).__name__}")
        if not name:
            raise ConfigurationError(f"where({key}=…): the name of what to compare is missing")
    return Where({key: list(value) if isinstance(value, (set, frozenset, tuple)) else value for key, value in conditions.items()})
