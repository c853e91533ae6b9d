"""Minting: durations, and no token that the reading side would refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest

from aibos_realtime.auth.issuing import TokenIssuer, parse_duration
from aibos_realtime.auth.keys import VerificationKey, key_of_pem, key_of_secret
from aibos_realtime.auth.tokens import TokenReader
from aibos_realtime.auth.user import Identity, User
from aibos_realtime.errors import ConfigurationError, ValidationError

from .material import NOW, SECRET, pem, rsa_key

KEY = key_of_secret(SECRET, None)


def issuer(key: VerificationKey = KEY, **changes: Any) -> TokenIssuer:
    return TokenIssuer(key, **{"audience": (), "issuer": (), "expires_in": 60.0, "max_lifetime": 3600.0, **changes})


def mint(**changes: Any) -> str:
    arguments: dict[str, Any] = {"user_id": "u", "role": "user", "tenant_id": None, "expires_in": None, "claims": {}, "token_id": None}
    return issuer().issue(NOW, **{**arguments, **changes})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("24h", 86400), ("15m", 900), ("7d", 604800), ("3600", 3600), (" 90 s ", 90), ("1W", 604800), ("1.5h", 5400), (12, 12), (0.5, 0.5)],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


def test_timedelta_is_a_duration() -> None:
    assert parse_duration(timedelta(minutes=2)) == 120


@pytest.mark.parametrize("value", ["", "h", "1y", "-1h", "1h30m", "1e3", "\u0663", "9" * 40, None, True, [], float("nan"), float("inf")])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="allowed is a number of seconds"):
        parse_duration(value)


def test_what_is_minted_is_read_back() -> None:
    rules: dict[str, Any] = {"audience": ("rt", "other"), "issuer": ("aibos",)}
    token = issuer(**rules).issue(NOW + 0.25, user_id="u", role="admin", tenant_id="t", expires_in="1h", claims={"plan": {"seats": 5}}, token_id="j")
    reader = TokenReader(algorithms=("HS256",), **rules, leeway=0, max_lifetime=3600)
    assert reader.read(token, KEY, NOW + 0.25) == Identity(User("u", "admin", "t", {"plan": {"seats": 5}}), NOW + 3601, NOW + 0.25, "j")


def test_every_token_has_an_id_and_the_default_lifetime() -> None:
    first, second = (jwt.decode(mint(), options={"verify_signature": False}) for _ in range(2))
    assert first["jti"] != second["jti"]
    assert first["exp"] == NOW + 60


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": "a\0"}, "user_id"),
        ({"user_id": 5}, "user_id"),
        ({"role": "\ud800"}, "role"),
        ({"tenant_id": "\n"}, "tenant_id"),
        ({"token_id": ""}, "token_id"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": -1}, "expires_in"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": 3601}, "expires_in"),
        ({"claims": {"exp": 5}}, "claims"),
        ({"claims": {"role": "admin"}}, "claims"),
        ({"claims": {"x": object()}}, "claims"),
        ({"claims": {"x": float("nan")}}, "claims"),
        ({"claims": {"x": "a" * 8192}}, "claims"),
    ],
)
def test_what_no_token_may_say(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError) as caught:
        mint(**changes)
    assert [error["path"] for error in caught.value.errors] == [path]


def test_a_key_that_only_verifies_cannot_mint() -> None:
    with pytest.raises(ConfigurationError, match=r"^authentication\.jwt_secret: is required to issue tokens$"):
        issuer(key_of_pem(pem(rsa_key()), None))
