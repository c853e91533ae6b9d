"""Who may do what where. Identity is settled before (`auth`); here a user, a resource and an action become yes or no. Deny by default."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Never

from ..auth.user import User
from ..errors import ConfigurationError, PermissionDenied
from ..logs import get_logger
from ..options import Options

logger = get_logger("aibos_realtime.authorization")

READ, WRITE, MANAGE = "read", "write", "manage"
ACTIONS = (READ, WRITE, MANAGE)

Check = Callable[[User, str, str], bool | None | Awaitable[bool | None]]

_OWN_TENANT: Mapping[str, Sequence[str]] = {"tenant_{tenant_id}": (READ, WRITE)}
_PART = re.compile(r"(\*|\{[^{}]*\})")
QUICK = 3
"""Texts between stars of which an expression tries all places soon enough."""
_PLACEHOLDERS = ("{tenant_id}", "{user_id}", "{role}")


class AuthorizationOptions(Options):
    """See `WebSocketAuthorization`."""

    permissions: dict[str, list[str]] | None = None
    roles: dict[str, dict[str, list[str]]] | None = None
    check: Callable[..., object] | None = None


class Pattern:
    """A resource pattern: text, `*` for any run of characters, `{tenant_id}`, `{user_id}`, `{role}` for the user's own, taken literally."""

    __slots__ = ("_parts", "_plain", "_runs")

    def __init__(self, text: str, path: str) -> None:
        self._parts = [part for part in _PART.split(text) if part]
        self._runs = None if "{" in text or "}" in text else text.split("*")
        """The texts between the stars, where they are the same for all users; and as an expression, where it has so few stars that it is quick."""
        is_quick = self._runs is not None and len(self._runs) <= QUICK
        self._plain = re.compile(".*".join(re.escape(run) for run in text.split("*")), re.DOTALL) if is_quick else None
        for part in self._parts:
            if ("{" in part or "}" in part) and part not in _PLACEHOLDERS:
                raise ConfigurationError(f"{path}: {part} was given; allowed placeholders are {', '.join(_PLACEHOLDERS)}")

    def fits(self, user: User, resource: str) -> bool:
        """Whether the resource is one that the pattern means for this user. A user who lacks what a placeholder names fits nothing."""
        if self._plain is not None:
            return self._plain.fullmatch(resource) is not None
        if self._runs is not None:
            return _stand(self._runs, resource)
        texts = [""]
        for part in self._parts:
            if part == "*":
                texts.append("")
                continue
            if part.startswith("{"):
                value = {"tenant_id": user.tenant_id, "user_id": user.id, "role": user.role}[part[1:-1]]
                if not value:
                    return False
                part = value
            texts[-1] += part
        return _stand(texts, resource)


def _stand(runs: Sequence[str], text: str) -> bool:
    """Whether the runs stand in the text in this order, the first at its beginning and the last at its end: each at the earliest place that is left,
    so that no number of stars costs more than reading the text. An expression would try all places, whose number grows with the power of the stars.
    """
    first, *further = runs
    if not further:
        return text == first
    last = further.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for run in further:
        at = text.find(run, at, end)
        if at < 0:
            return False
        at += len(run)
    return True


class WebSocketAuthorization:
    """Rights by room id or pattern.

    `permissions`: `{pattern: actions}` for every authenticated user. `roles`: `{role: {pattern: actions}}`. Actions: `read` (join, history,
    presence),
    `write` (publish), `manage` (the HTTP API). `check(user, resource, action)`: asked first; True or False decides, None leaves it to the patterns.
    With none of the three, a user has `read` and `write` on `tenant_<own tenant_id>`, and nothing else.
    """

    def __init__(
        self,
        *,
        permissions: Mapping[str, Sequence[str]] | None = None,
        roles: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        check: Check | None = None,
        **unknown: Never,
    ) -> None:
        AuthorizationOptions.parse("authorization", {"permissions": permissions, "roles": roles, "check": check, **unknown})
        if permissions is None and roles is None and check is None:
            permissions = _OWN_TENANT
        self._for_all = _rules(permissions or {}, "authorization.permissions")
        self._for_role = {role: _rules(found, f"authorization.roles.{role}") for role, found in (roles or {}).items()}
        self._check = check

    @property
    def is_immediate(self) -> bool:
        """Whether the answer never waits for anything: no `check` is there."""
        return self._check is None

    async def check_permission(self, user: User | None, resource: str, action: str) -> bool:
        """Whether the user may. Nobody (None) may nothing. A `check` that fails denies, and is logged."""
        if user is None:
            return False
        if self._check is not None:
            try:
                verdict = self._check(user, resource, action)
                if isawaitable(verdict):
                    verdict = await verdict
            except Exception:
                logger.exception("the authorization check failed; the %s was denied", action)
                return False
            if verdict is not None:
                return bool(verdict)
        return self.allows(user, resource, action)

    def allows(self, user: User | None, resource: str, action: str) -> bool:
        """What the patterns alone say, at once: the whole answer where `is_immediate`."""
        if user is None:
            return False
        rules = self._for_role.get(user.role)
        return _any_fits(self._for_all, user, resource, action) or (rules is not None and _any_fits(rules, user, resource, action))

    def may_hold(self, user: User | None, action: str) -> bool:
        """Whether there can be anything at all on which the user may do this. False spares looking for it."""
        if user is None:
            return False
        rules = self._for_all + self._for_role.get(user.role, [])
        return self._check is not None or any(action in actions for _, actions in rules)

    async def require(self, user: User | None, resource: str, action: str) -> None:
        """Raises `PermissionDenied` unless the user may."""
        is_allowed = self.allows(user, resource, action) if self._check is None else await self.check_permission(user, resource, action)
        if not is_allowed:
            raise PermissionDenied(resource=resource, action=action)


_Rules = list[tuple[Pattern, frozenset[str]]]


def _rules(given: Mapping[str, Sequence[str]], path: str) -> _Rules:
    rules = []
    for text, actions in given.items():
        if unknown := [action for action in actions if action not in ACTIONS]:
            raise ConfigurationError(f"{path}.{text}: {unknown[0]!r} was given; allowed are {', '.join(ACTIONS)}")
        rules.append((Pattern(text, f"{path}.{text}"), frozenset(actions)))
    return rules


def _any_fits(rules: _Rules, user: User, resource: str, action: str) -> bool:
    for pattern, actions in rules:  # not `any`: a generator would be half of what the question costs
        if action in actions and pattern.fits(user, resource):
            return True
    return False
