"""Users as values: cheap without claims, the same everywhere, and nothing more on the wire than it should be."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest

from aibos_realtime.auth.user import NO_CLAIMS, AuthResult, Identity, User


def test_users_without_claims_share_one_mapping_that_nobody_can_fill() -> None:
    first, second = User("a"), User("b")
    assert first.claims is second.claims is NO_CLAIMS
    with pytest.raises(TypeError):
        first.claims["x"] = 1
    with pytest.raises(TypeError):
        first.claims.update(x=1)
    with pytest.raises(TypeError):
        first.claims.setdefault("x", 1)
    assert second.claims == {}


def test_the_wire_form_never_holds_the_claims() -> None:
    assert User("user_123", "admin", "t1", {"email": "x"}).to_wire() == {"id": "user_123", "role": "admin", "tenantId": "t1"}
    assert User("user_123").to_wire() == {"id": "user_123", "role": "user", "tenantId": None}


def test_a_user_cannot_be_changed() -> None:
    user = User("a")
    with pytest.raises(AttributeError):
        user.role = "admin"  # type: ignore[misc]


def test_users_are_compared_by_value_and_can_stand_in_a_set() -> None:
    assert {User("a", claims={"x": [1]}), User("a", claims={"x": [1]}), User("b")} == {User("a", claims={"x": [1]}), User("b")}


def test_users_survive_encoding_and_copying() -> None:
    for user in (User("a"), User("a", "admin", "t", {"x": [1]})):
        assert msgspec.json.decode(msgspec.json.encode(user), type=User) == user
        assert msgspec.convert(msgspec.to_builtins(user), User) == user
        assert copy.deepcopy(user) == user == pickle.loads(pickle.dumps(user))


def test_the_defaults_of_an_identity_and_a_result() -> None:
    assert Identity(User("a"), 5.0) == Identity(User("a"), 5.0, None, None)
    assert AuthResult(success=False, error="x") == AuthResult(False, None, "x", None)
