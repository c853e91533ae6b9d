"""Who of a room gets an event: the conditions kept beside the event, decided for a user; at recovery once more."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from ..auth.user import User
from ..backends.base import Audience
from ..errors import ConfigurationError
from ..logs import get_logger
from ..protocol.conditions import OPERATORS

logger = get_logger("aibos_realtime.filters")

Predicate = Callable[[User], bool]


Test = Callable[[User], bool]
Verdicts = dict[str, tuple[User, bool]]
"""What a registered filter has said of users, by their ids."""

_SHARED = ("role", "tenant_id")
"""What many users have in common."""


def _nobody(has: Any, wanted: Any) -> bool:
    """In place of an operator that this version does not know, of an event that a newer node sent: whom it is for is unknown, so it is for nobody."""
    return False


@lru_cache(maxsize=1000)
def condition(key: str) -> Callable[[Any, User], bool]:
    """What a key of a `where` asks, taken apart once: of what is wanted, and a user."""
    name, _, operator = key.partition("__")
    compare = OPERATORS.get(operator or "eq", _nobody)
    is_lenient = operator in ("ne", "not_in")
    is_claim = name not in ("id", "role", "tenant_id")

    def holds(wanted: Any, user: User) -> bool:
        has = user.claims.get(name) if is_claim else getattr(user, name)
        if has is None and wanted is not None and not is_lenient:
            return False
        try:
            return compare(has, wanted)
        except TypeError:
            return False

    return holds


class Decision:
    """An audience made ready to be decided for many users at this moment, so that little is asked of each one.

    An event is for a user who is in `users`, if there are any, not in `exclude`, and passes two tests (None: there is nothing to ask): `of_kind`,
    which says the same for all of his role and tenant, as far as these are in `names`, and `of_own`.
    """

    __slots__ = ("exclude", "names", "of_kind", "of_own", "users")

    def __init__(self, audience: Audience, predicate: Predicate | None, verdicts: Verdicts) -> None:
        self.users = audience.users
        self.exclude = audience.exclude
        self.names: frozenset[str] = frozenset()
        self.of_kind: Test | None = None
        self.of_own: Test | None = None
        if audience.where or predicate is not None:
            self._take_apart(audience.where or {}, [] if predicate is None else [_asked_once(predicate, verdicts)])

    def _take_apart(self, where: dict[str, Any], own: list[Test]) -> None:
        shared: list[Test] = []
        for key, wanted in where.items():
            name, _, operator = key.partition("__")
            if name in _SHARED:
                self.names |= {name}
                shared.append(partial(condition(key), wanted))
            elif name == "id" and (ids := _listed(operator, wanted)) is not None:
                self.users = ids if self.users is None else self.users & ids
            else:
                own.insert(0, partial(condition(key), wanted))  # a registered filter is asked last
        self.of_kind = all_of(shared)
        self.of_own = all_of(own)


def _listed(operator: str, wanted: Any) -> frozenset[str] | None:
    """The ids that a condition on the id names, where it does that."""
    if operator in ("", "eq"):
        wanted = [wanted]
    elif operator != "in":
        return None
    return frozenset(id for id in wanted if isinstance(id, str)) if isinstance(wanted, list) else None


def all_of(tests: list[Test]) -> Test | None:
    """One test that is passed where all are."""
    if len(tests) < 2:
        return tests[0] if tests else None

    def passes(user: User) -> bool:
        for test in tests:
            if not test(user):
                return False
        return True

    return passes


def _asked_once(predicate: Predicate, verdicts: Verdicts) -> Test:
    """A filter that is asked once for a user, however many sockets he has."""

    def passes(user: User) -> bool:
        known = verdicts.get(user.id)
        if known is not None and known[0] == user:
            return known[1]
        verdict = decide(predicate, user)
        verdicts[user.id] = user, verdict
        return verdict

    return passes


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
        if audience.where is not None and not all(condition(key)(wanted, user) for key, wanted in audience.where.items()):
            return False
        return audience.filter is None or self.passes(audience.filter, user)

    def passes(self, name: str, user: User) -> bool:
        predicate = self._find(name)
        return predicate is not None and decide(predicate, user)

    def decision(self, audience: Audience, verdicts: dict[str, Verdicts]) -> Decision | None:
        """An audience made ready; None where it is nobody. `verdicts`: of the filters that were asked before, at the same moment."""
        if audience.filter is None:
            return Decision(audience, None, {})
        predicate = self._find(audience.filter)
        return None if predicate is None else Decision(audience, predicate, verdicts.setdefault(audience.filter, {}))

    def _find(self, name: str) -> Predicate | None:
        predicate = self._by_name.get(name)
        if predicate is None:
            logger.error("there is no filter %r on this node: its events reach nobody here", name)
        return predicate


def decide(predicate: Predicate, user: User) -> bool:
    """The predicate's answer; a predicate that fails says no, and costs only this user."""
    try:
        return bool(predicate(user))
    except Exception:
        logger.exception("a filter failed; the event was withheld from one user")
        return False
