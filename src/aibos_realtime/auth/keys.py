"""The keys that tokens are verified with, each bound to the algorithms it may be used for; weak and public keys are refused here.

One algorithm family per key (RFC 8725, 3.1), so that no public key can ever serve as an HMAC secret. Fetching keys is `jwks`'s.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from ..errors import ConfigurationError

MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048

HMAC = ("HS256", "HS384", "HS512")
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
EC = tuple(CURVES.values())
JWKS_DEFAULT = ("RS256", "ES256")

_DOCUMENTED = frozenset(
    {"secret", "jwt-secret", "jwtsecret", "my-secret", "mysecret", "my-secret-key", "secret-key", "secretkey", "supersecret"}
    | {"super-secret", "password", "change-it", "replace-me", "test", "development", "keyboard-cat", "shhhhh"}
    | {"a-string-secret-at-least-256-bits-long", "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long"}
    | {"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"}
)
_PLACEHOLDER = re.compile(r"your-(?:own-|super-|very-|jwt-|256-bit-|384-bit-|512-bit-)*(?:secret|key)|^change-?me")


class VerificationKey(NamedTuple):
    """A key, the algorithms it verifies, and the id under which a key set published it (None: a configured key)."""

    key: Any
    algorithms: tuple[str, ...]
    kid: str | None = None

    def __repr__(self) -> str:
        return f"<VerificationKey {', '.join(self.algorithms)} kid={self.kid!r}>"


class _CheckedHmac(HMACAlgorithm):
    """HMAC with a key that was checked when it was configured: checking it again would be a third of each verification."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key if isinstance(key, bytes) else key.encode()

    def check_key_length(self, key: Any) -> None:
        return None

    def sign(self, msg: bytes, key: bytes) -> bytes:
        return hmac.digest(key, msg, self.hash_alg)


def signatures(algorithms: Sequence[str]) -> jwt.PyJWS:
    """The object that checks and makes signatures: it knows `algorithms` and no other."""
    jws = jwt.PyJWS(algorithms=[name for name in algorithms if name not in HMAC], options={"enforce_minimum_key_length": True})
    for name in algorithms:
        if name in HMAC:
            jws.register_algorithm(name, _CheckedHmac(getattr(HMACAlgorithm, f"SHA{name[2:]}")))
    return jws


def key_of_secret(secret: str, algorithms: Sequence[str] | None) -> VerificationKey:
    """The key of an HMAC secret. Raises `ConfigurationError`, which never shows it."""
    plain = re.sub(r"[\s_]+", "-", secret.strip().lower())
    if plain in _DOCUMENTED or _PLACEHOLDER.search(plain):
        raise ConfigurationError(
            "authentication.jwt_secret: a secret known from documentation was given; allowed is a random one of 32 bytes or more"
        )
    try:
        key = secret.encode()
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key)
        problem = "" if len(key) >= MIN_SECRET_BYTES else f"{len(key)} bytes were given"
        if not plain.strip("-"):
            problem = "nothing but blanks was given"
    except UnicodeEncodeError:
        problem = "text that is not Unicode was given"
    except jwt.InvalidKeyError:
        problem = "nothing, or a public or private key was given"
    if problem:
        raise ConfigurationError(f"authentication.jwt_secret: {problem}; allowed is a secret of {MIN_SECRET_BYTES} bytes or more")
    return VerificationKey(key, _chosen(algorithms, HMAC, "jwt_secret", default="HS256"))


def key_of_pem(pem: str, algorithms: Sequence[str] | None) -> VerificationKey:
    """The key of an RSA or EC public key in PEM. Raises `ConfigurationError`."""
    try:
        key = load_pem_public_key(pem.encode())
    except Exception:  # the loader raises several kinds, some of which quote what they were given
        key = None
    allowed = _algorithms_of(key)
    if not allowed:
        raise ConfigurationError(
            "authentication.public_key: no such key was given; allowed is one in PEM: RSA from 2048 bits, or EC on P-256, P-384 or P-521"
        )
    return VerificationKey(key, _chosen(algorithms, allowed, "public_key", default=allowed[0]))


def algorithms_of_jwks(algorithms: Sequence[str] | None) -> tuple[str, ...]:
    """The algorithms that keys of a key set may be used for. Raises `ConfigurationError`."""
    chosen = _chosen(algorithms, (*RSA, *EC), "jwks_url", default=None) if algorithms else JWKS_DEFAULT
    if len({name[:2] for name in chosen} - {"ES"}) > 1:
        raise ConfigurationError("authentication.algorithms: RS and PS were given; allowed is one of the two for RSA keys")
    return chosen


def key_of_jwk(jwk: object, algorithms: Sequence[str]) -> VerificationKey | None:
    """The key of one entry of a key set (RFC 7517); None where it is not a public signature key for one of `algorithms`."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or "d" in jwk or jwk.get("kty") not in ("RSA", "EC"):
        return None
    kid, name, operations = jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not 1 <= len(kid) <= 128 or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = jwt.PyJWK({part: jwk[part] for part in ("kty", "crv", "n", "e", "x", "y") if part in jwk}).key
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
        return None
    allowed = tuple(one for one in algorithms if one in _algorithms_of(key) and name in (None, one))
    return VerificationKey(key, allowed, kid) if allowed else None


def _algorithms_of(key: object) -> tuple[str, ...]:
    """What a public key can verify; empty for a key of another kind or one too weak."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return RSA
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES:
        return (CURVES[key.curve.name],)
    return ()


def _chosen(algorithms: Sequence[str] | None, allowed: tuple[str, ...], option: str, *, default: str | None) -> tuple[str, ...]:
    if not algorithms and default is not None:
        return (default,)
    names = tuple(dict.fromkeys(algorithms or ()))
    if wrong := [name for name in names if name not in allowed]:
        raise ConfigurationError(f"authentication.algorithms: {wrong[0][:16]!r} was given; allowed with {option}: {', '.join(allowed)}")
    if option != "jwks_url" and len({name[:2] for name in names}) > 1:
        raise ConfigurationError(f"authentication.algorithms: {', '.join(names)} were given; allowed is one family for one key")
    return names
