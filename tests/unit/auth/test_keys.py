"""Weak, published and confused keys are refused before any token comes."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aibos_realtime.auth.keys import algorithms_of_jwks, key_of_jwk, key_of_pem, key_of_secret
from aibos_realtime.errors import ConfigurationError

from .material import SECRET, ec_key, jwk, pem, private_pem, rsa_key

ALL = ("RS256", "ES256")


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("your_jwt_secret", "a secret known from documentation was given"),
        ("Your-JWT-Secret", "a secret known from documentation was given"),
        ("your_jwt_secret_of_at_least_32_characters", "a secret known from documentation was given"),
        ("your-super-secret-jwt-token-with-at-least-32-characters-long", "a secret known from documentation was given"),
        ("a-string-secret-at-least-256-bits-long", "a secret known from documentation was given"),
        ("secret", "a secret known from documentation was given"),
        ("changeme" * 5, "a secret known from documentation was given"),
        ("", "nothing, or a public or private key was given"),
        (" \t" * 20, "nothing but blanks was given"),
        ("x" * 31, "31 bytes were given"),
        ("\ud800" * 40, "text that is not Unicode was given"),
    ],
)
def test_refused_secrets(secret: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        key_of_secret(secret, None)
    assert str(caught.value).startswith(f"authentication.jwt_secret: {sentence}; allowed is ")
    assert not secret or secret == "secret" or secret not in str(caught.value)


def test_a_public_key_is_no_secret() -> None:
    with pytest.raises(ConfigurationError, match="a public or private key was given"):
        key_of_secret(pem(rsa_key()), None)


def test_the_length_of_a_secret_counts_in_bytes() -> None:
    assert key_of_secret("\u00e9" * 16, None).key == ("\u00e9" * 16).encode()
    assert key_of_secret("x" * 32, None).algorithms == ("HS256",)


@pytest.mark.parametrize("algorithms", [["none"], ["None"], ["RS256"], ["HS256", "ES256"], ["HS256", "none"], ["hs256"]])
def test_a_secret_takes_hmac_alone(algorithms: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^authentication\.algorithms: .*; allowed with jwt_secret: HS256, HS384, HS512$"):
        key_of_secret(SECRET, algorithms)


def test_several_of_one_family() -> None:
    assert key_of_secret(SECRET, ["HS256", "HS512", "HS256"]).algorithms == ("HS256", "HS512")
    assert key_of_pem(pem(rsa_key()), ["RS256", "RS512"]).algorithms == ("RS256", "RS512")


def test_the_key_type_chooses_the_default() -> None:
    assert key_of_pem(pem(rsa_key()), None).algorithms == ("RS256",)
    assert key_of_pem(pem(ec_key()), None).algorithms == ("ES256",)
    assert key_of_pem(pem(ec.generate_private_key(ec.SECP384R1())), None).algorithms == ("ES384",)


@pytest.mark.parametrize("algorithms", [["HS256"], ["none"], ["ES256"], ["RS256", "PS256"]])
def test_an_rsa_key_takes_one_family_of_its_own(algorithms: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^authentication\.algorithms: "):
        key_of_pem(pem(rsa_key()), algorithms)


def test_a_curve_takes_its_own_algorithm() -> None:
    with pytest.raises(ConfigurationError, match=r"^authentication\.algorithms: 'ES384' was given; allowed with public_key: ES256$"):
        key_of_pem(pem(ec_key()), ["ES384"])


def test_what_is_no_public_key() -> None:
    edwards = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    secp256k1 = pem(ec.generate_private_key(ec.SECP256K1()))
    for text in ("", "a key", "\ud800", private_pem(rsa_key()), private_pem(ec_key()), edwards, secp256k1, pem(rsa_key(bits=1024))):
        with pytest.raises(ConfigurationError) as caught:
            key_of_pem(text, None)
        assert str(caught.value).startswith("authentication.public_key: no such key was given; allowed is ")
        assert "BEGIN" not in str(caught.value) and caught.value.__cause__ is None


def test_algorithms_of_a_key_set() -> None:
    assert algorithms_of_jwks(None) == ("RS256", "ES256")
    assert algorithms_of_jwks(["PS256", "ES384"]) == ("PS256", "ES384")
    for wrong in (["HS256"], ["none"], ["RS256", "PS256"], ["EdDSA"]):
        with pytest.raises(ConfigurationError, match=r"^authentication\.algorithms: "):
            algorithms_of_jwks(wrong)


def test_an_entry_is_bound_to_the_algorithms_of_its_kind() -> None:
    for key, algorithm in ((rsa_key(), "RS256"), (ec_key(), "ES256")):
        found = key_of_jwk(jwk(key, "k1"), ALL)
        assert found is not None and found.kid == "k1" and found.algorithms == (algorithm,)
        named = key_of_jwk(jwk(key, "k1", alg=algorithm), ALL)
        assert named is not None and named.algorithms == (algorithm,)


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"use": 5},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "ES256"},
        {"alg": "RS512"},
        {"alg": ["RS256"]},
        {"kid": None},
        {"kid": 5},
        {"kid": ""},
        {"kid": "x" * 129},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC"},
        {"kty": ["RSA"]},
        {"d": "AAAA"},
        {"n": 5},
        {"n": "!"},
        {"n": None},
        {"n": "AQAB"},
        {"e": ""},
    ],
)
def test_entries_that_are_passed_over(changes: dict[str, Any]) -> None:
    assert key_of_jwk(jwk(rsa_key(), "k1", **changes), ALL) is None


def test_what_is_no_entry_at_all() -> None:
    entries: tuple[object, ...] = (
        None,
        [],
        "x",
        5,
        {},
        {"kty": "RSA", "kid": "a"},
        jwk(rsa_key(bits=1024), "weak"),
        jwk(ec_key(), "a", x="AAAA"),
    )
    for entry in entries:
        assert key_of_jwk(entry, ALL) is None
