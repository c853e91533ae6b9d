"""Who may operate a server: roles and keys."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from aibos_realtime import AuthenticationError, ConfigurationError, WebSocketAuth
from aibos_realtime.auth.operators import HttpOptions, Operators, new_api_key
from aibos_realtime.auth.user import User
from aibos_realtime.testing.clock import ManualClock

KEY = "rk_only_for_the_tests_of_operators"
HASHED = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()


def make(**options: Any) -> tuple[Operators, WebSocketAuth]:
    auth = WebSocketAuth(jwt_secret="only-for-the-tests-of-the-operators", clock=ManualClock())
    return Operators(HttpOptions.parse("http", options), auth=auth), auth


@pytest.mark.parametrize("kept", [KEY, HASHED, f" {HASHED} , {HASHED}"])
async def test_a_key_and_its_hash_let_the_same_in(kept: str) -> None:
    operators, _ = make(api_keys=kept)
    for headers in ([(b"x-api-key", KEY.encode())], [(b"authorization", f"Bearer {KEY}".encode())]):
        caller = await operators.identify(headers)
        assert (caller.is_operator, caller.user, caller.name) == (True, None, f"key:{HASHED[7:15]}")


@pytest.mark.parametrize(
    "headers",
    [[], [(b"x-api-key", b"")], [(b"x-api-key", HASHED.encode())], [(b"x-api-key", HASHED[7:].encode())], [(b"x-api-key", KEY.encode() + b"x")],
     [(b"x-api-key", KEY.upper().encode())], [(b"x-api-key", b"\xff" * 40)], [(b"authorization", b"Basic abc")], [(b"authorization", b"Bearer ")],
     [(b"authorization", b"Bearer a.b.c")], [(b"authorization", f"Bearer {HASHED}".encode())], [(b"cookie", KEY.encode())]],
)  # fmt: skip
async def test_what_lets_nobody_in(headers: list[tuple[bytes, bytes]]) -> None:
    operators, _ = make(api_keys=[HASHED])
    with pytest.raises(AuthenticationError):
        await operators.identify(headers)


async def test_a_wrong_key_is_not_made_good_by_a_token() -> None:
    operators, auth = make(api_keys=[KEY])
    with pytest.raises(AuthenticationError):
        await operators.identify([(b"x-api-key", b"wrong"), (b"authorization", f"Bearer {auth.issue(user_id='ann', role='operator')}".encode())])


async def test_two_keys_are_none() -> None:
    """The first one counted, so that what stood before the server could look at the other."""
    operators, _ = make(api_keys=[KEY])
    for order in ((KEY, "wrong"), ("wrong", KEY), (KEY, KEY)):
        with pytest.raises(AuthenticationError):
            await operators.identify([(b"x-api-key", one.encode()) for one in order])


async def test_a_role_makes_an_operator() -> None:
    operators, auth = make(operator_roles="operator, support")
    for role, is_operator in (("operator", True), ("support", True), ("admin", False), ("user", False)):
        caller = await operators.identify([(b"authorization", f"Bearer {auth.issue(user_id='ann', role=role)}".encode())])
        assert (caller.is_operator, caller.name) == (is_operator, "user:ann")
    assert not operators.is_operator(None) and operators.is_operator(User("ann", "support"))


@pytest.mark.parametrize("keys", ["short", "sha256:abc", f"{HASHED}0", KEY + " x", "k" * 31, "sch\u00fcssel" * 10, [KEY, "short"]])
def test_keys_that_are_none_are_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"http\.api_keys") as caught:
        make(api_keys=keys)
    for key in [keys] if isinstance(keys, str) else keys:
        assert key not in str(caught.value)


def test_a_new_key_and_its_hash() -> None:
    (key, hashed), (other, _) = new_api_key(), new_api_key()
    assert key != other and len(key) > 40 and hashed == "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    HttpOptions.parse("http", {"api_keys": [key, hashed]})
