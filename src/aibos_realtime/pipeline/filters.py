"""Who of a room gets an event: the conditions kept beside the event, decided for a user; at recovery once more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..auth.user import User
from ..backends.base import Audience
from ..errors import ConfigurationError
from ..protocol.conditions import OPERATORS

logger = logging.getLogger("aibos_realtime.filters")

Predicate = Callable[[User], bool]


def _holds(user: User, key: str, wanted: Any) -> bool:
    name, _, operator = key.partition("__")
    has = getattr(user, name) if name in ("id", "role", "tenant_id") else user.claims.get(name)
    if has is None and operator not in ("ne", "not_in") and wanted is not None:
        return False
    try:
        return OPERATORS[operator or "eq"](has, wanted)
    except TypeError:
        return False


class Filters:
    """The registered filters, by name. A name travels with an event; the function stays on each node."""

    def __init__(self) -> None:
        self._by_name: dict[str, Predicate] = {}

    def add(self, name: str, predicate: Predicate) -> None:
        """Raises `ConfigurationError` for a name that is taken by another function."""
        if self._by_name.setdefault(name, predicate) is not predicate:
            raise ConfigurationError(f"broadcaster.filter({name!r}): there is a filter of this name already")

    def name_of(self, predicate: object) -> str | None:
        """The name under which a function was registered, or None."""
        return next((name for name, found in self._by_name.items() if found is predicate), None)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def names(self) -> list[str]:
        return list(self._by_name)

    def admits(self, audience: Audience | None, user: User | None) -> bool:
        """Whether an event with this audience is for this user. A filter that is missing or fails admits nobody."""
        if audience is None:
            return True
        if user is None or user.id in audience.exclude:
            return False
        if audience.users is not None and user.id not in audience.users:
            return False
        if audience.where is not None and not all(_holds(user, key, wanted) for key, wanted in audience.where.items()):
            return False
        return audience.filter is None or self.passes(audience.filter, user)

    def passes(self, name: str, user: User) -> bool:
        predicate = self._by_name.get(name)
        if predicate is None:
            logger.error("there is no filter %r on this node: its events reach nobody here", name)
            return False
        return decide(predicate, user)


def decide(predicate: Predicate, user: User) -> bool:
    """The predicate's answer; a predicate that fails says no, and costs only this user."""
    try:
        return bool(predicate(user))
    except Exception:
        logger.exception("a filter failed; the event was withheld from one user")
        return False
