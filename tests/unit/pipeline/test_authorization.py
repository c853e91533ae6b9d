"""Deny by default, patterns, and that nothing of a user is ever read as a pattern."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibos_realtime import ConfigurationError, PermissionDenied, WebSocketAuthorization
from aibos_realtime.pipeline.authorization import ACTIONS, Pattern
from aibos_realtime.types import User

ANN = User("ann", "user", "t1")


def fits(pattern: str, resource: str, user: User = ANN) -> bool:
    return Pattern(pattern, "x").fits(user, resource)


async def test_the_snippet() -> None:
    authz = WebSocketAuthorization(permissions={"tenant_123": ["read", "write"], "tenant_456": ["read"]})
    assert await authz.check_permission(ANN, "tenant_123", "write")
    assert await authz.check_permission(ANN, "tenant_456", "read") and not await authz.check_permission(ANN, "tenant_456", "write")
    assert not await authz.check_permission(ANN, "tenant_789", "read") and not await authz.check_permission(ANN, "tenant_123", "manage")
    assert not await authz.check_permission(None, "tenant_123", "read")


async def test_without_configuration_ones_own_tenant_and_nothing_else() -> None:
    authz = WebSocketAuthorization()
    for action, may in (("read", True), ("write", True), ("manage", False), ("anything", False)):
        assert await authz.check_permission(ANN, "tenant_t1", action) is may
    assert not await authz.check_permission(ANN, "tenant_t2", "read") and not await authz.check_permission(ANN, "tenant_", "read")
    assert not await authz.check_permission(User("bob"), "tenant_", "read") and not await authz.check_permission(User("bob"), "tenant_None", "read")
    assert not await WebSocketAuthorization(permissions={}).check_permission(ANN, "tenant_t1", "read"), "an empty configuration is one"


async def test_roles() -> None:
    authz = WebSocketAuthorization(permissions={"lobby": ["read"]}, roles={"admin": {"tenant_{tenant_id}": ["read", "write", "manage"]}})
    admin = User("boss", "admin", "t1")
    assert await authz.check_permission(admin, "tenant_t1", "manage") and await authz.check_permission(admin, "lobby", "read")
    assert not await authz.check_permission(admin, "tenant_t2", "manage") and not await authz.check_permission(ANN, "tenant_t1", "read")


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("bench:*", "bench:1", True),
        ("bench:*", "bench:", True),
        ("bench:*", "bench", False),
        ("bench:*", "xbench:1", False),
        ("*", "anything", True),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a*z", "abcz", True),
        ("a*z", "abczx", False),
        ("a.*", "axb", False),
        ("user-{user_id}", "user-ann", True),
        ("user-{user_id}", "user-bob", False),
        ("{role}/{tenant_id}/*", "user/t1/x", True),
        ("{tenant_id}*", "t1-more", True),
        ("LOBBY", "lobby", False),
        ("", "", True),
        ("", "x", False),
    ],
)
def test_patterns(pattern: str, resource: str, expected: bool) -> None:
    assert fits(pattern, resource) is expected


WORDS = st.text(st.sampled_from("ab.*{}[]()|?+^$\\-_:/@1"), min_size=1, max_size=12)
RESOURCES = st.text(st.sampled_from("ab.*:/@_-1"), max_size=12)


@given(WORDS, RESOURCES)
@example("*", "b")
@example("a.b", "axb")
@example("{user_id}", "ann")
@example(".*", "anything")
def test_a_tenant_id_is_inserted_literally(tenant: str, resource: str) -> None:
    user = User("ann", "user", tenant)
    assert fits("{tenant_id}", resource, user) is (resource == tenant)
    assert fits("tenant_{tenant_id}", f"tenant_{resource}", user) is (resource == tenant)
    assert fits("{tenant_id}:*", resource, user) is resource.startswith(f"{tenant}:")
    assert fits("*:{tenant_id}", resource, user) is resource.endswith(f":{tenant}")


@given(st.text(st.sampled_from("ab*.:"), max_size=8), RESOURCES)
def test_only_a_star_stands_for_more_than_itself(pattern: str, resource: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), resource, re.DOTALL) is not None
    assert fits(pattern, resource) is expected


@pytest.mark.parametrize("tenant", [None, ""])
def test_who_has_no_tenant_fits_no_pattern_with_one(tenant: str | None) -> None:
    user = User("ann", "user", tenant)
    for pattern in ("tenant_{tenant_id}", "{tenant_id}", "{tenant_id}*", "*{tenant_id}*"):
        for resource in ("tenant_", "", "tenant_None", "x"):
            assert not fits(pattern, resource, user)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"permissions": {"a": ["reed"]}}, "authorization.permissions.a: 'reed' was given; allowed are read, write, manage"),
        ({"permissions": {"a": "read"}}, "authorization.permissions.a: 'read' was given; allowed is a valid list"),
        ({"roles": {"admin": {"a": ["own"]}}}, "authorization.roles.admin.a: 'own' was given"),
        (
            {"permissions": {"{tenant}": ["read"]}},
            "authorization.permissions.{tenant}: {tenant} was given; allowed placeholders are {tenant_id}",
        ),
        ({"permissions": {"{tenant_id": ["read"]}}, "authorization.permissions.{tenant_id: "),
        ({"permissions": {"room_{tenant_id": ["read"]}}, "authorization.permissions.room_{tenant_id: "),
        ({"permissions": {"{tenant_id)": ["read"]}}, "authorization.permissions.{tenant_id): "),
        ({"check": 5}, "authorization.check"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WebSocketAuthorization(**options)
    assert str(caught.value).startswith(said)


async def test_a_check_decides_or_leaves_it_to_the_patterns() -> None:
    asked: list[tuple[str, str, str]] = []

    async def check(user: User, resource: str, action: str) -> bool | None:
        asked.append((user.id, resource, action))
        return {"yes": True, "no": False}.get(resource)

    authz = WebSocketAuthorization(permissions={"*": ["read"]}, check=check)
    assert not authz.is_immediate and WebSocketAuthorization().is_immediate
    assert await authz.check_permission(ANN, "yes", "write") and not await authz.check_permission(ANN, "no", "read")
    assert await authz.check_permission(ANN, "other", "read") and not await authz.check_permission(ANN, "other", "write")
    assert asked[0] == ("ann", "yes", "write") and not await authz.check_permission(None, "yes", "read") and len(asked) == 4
    assert await WebSocketAuthorization(check=lambda *_: True).check_permission(ANN, "x", "read")
    assert not await WebSocketAuthorization(check=lambda *_: None).check_permission(ANN, "tenant_t1", "read")


async def test_a_check_that_fails_denies(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    def check(user: User, resource: str, action: str) -> bool:
        raise RuntimeError("down")

    authz = WebSocketAuthorization(permissions={"*": list(ACTIONS)}, check=check)
    assert not await authz.check_permission(ANN, "tenant_t1", "read") and "the read was denied" in caplog.text


async def test_requiring() -> None:
    authz = WebSocketAuthorization()
    await authz.require(ANN, "tenant_t1", "read")
    with pytest.raises(PermissionDenied) as caught:
        await authz.require(ANN, "tenant_t2", "read")
    assert (caught.value.resource, caught.value.action) == ("tenant_t2", "read") and "t2" not in str(caught.value)


def test_whether_there_can_be_anything_at_all() -> None:
    authz = WebSocketAuthorization(permissions={"a": ["read"]}, roles={"boss": {"b_*": ["manage"]}})
    assert authz.may_hold(ANN, "read") and not authz.may_hold(ANN, "manage") and not authz.may_hold(None, "read")
    assert authz.may_hold(User("ann", "boss"), "manage") and not authz.may_hold(User("ann", "boss"), "write")
    assert WebSocketAuthorization(check=lambda user, resource, action: None).may_hold(ANN, "manage")


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*a*a*", "{user_id}*a*a*a*a*a*a*a*a*z", "*" * 100 + "z", "a*" * 60])
def test_many_stars_cost_no_more_than_few(pattern: str) -> None:
    """With eight stars in a pattern, joining a room named "aaa…" of 128 letters held up the whole server: all places of all stars were tried."""
    authz = WebSocketAuthorization(permissions={pattern: ["read"]})
    began = time.thread_time()
    for name in ("a" * 128, "a" * 127 + "b", "ann" + "a" * 125, "b" * 128):
        authz.allows(ANN, name, "read")
    assert time.thread_time() - began < 0.05


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("a*b*c*d", ["abcd", "axbxcxd", "abbccd\nd"], ["abd", "abcdx", "xabcd", "acbd"]),
        ("*a*b*c*", ["abc", "xaxbxcx", "aabbcc"], ["acb", "ab", ""]),
        ("{tenant_id}*-*-*", ["t1-a-b", "t1--"], ["t1-", "t2-a-b", "-t1-a-b"]),
        ("a*a*a*a", ["aaaa", "axaaa"], ["aaa", "aaab"]),
    ],
)
def test_patterns_of_several_stars(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    authz = WebSocketAuthorization(permissions={pattern: ["read"]})
    assert [name for name in fits if not authz.allows(ANN, name, "read")] == []
    assert [name for name in fits_not if authz.allows(ANN, name, "read")] == []
