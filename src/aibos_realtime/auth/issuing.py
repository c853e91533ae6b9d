"""Minting: the tokens that this package makes itself, with an HMAC secret. They say nothing that the reading side would refuse."""

from __future__ import annotations

import math
import re
import secrets
from datetime import timedelta
from typing import Any

import msgspec

from ..errors import ConfigurationError, ValidationError
from .keys import HMAC, VerificationKey, signatures
from .tokens import KNOWN_CLAIMS, MAX_TOKEN_BYTES, is_name, is_plain

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([smhdw]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_A_NAME = "Expected 1 to 128 printable characters"


def parse_duration(value: object) -> float:
    """Seconds of "24h", "15m", "7d", "3600", a number of seconds or a `timedelta`. Raises `ValueError` for anything else."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip().lower())):
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError('allowed is a number of seconds, a timedelta, or a text like "24h", "15m", "7d", "3600"')


class TokenIssuer:
    """Mints tokens with one HMAC key. It has no clock: `now` is given."""

    __slots__ = ("_audience", "_expires_in", "_issuer", "_jws", "_key", "_max_lifetime")

    def __init__(self, key: VerificationKey, *, audience: tuple[str, ...], issuer: tuple[str, ...], expires_in: float, max_lifetime: float) -> None:
        """The first audience and issuer are written into the tokens. Raises `ConfigurationError` for a key that only verifies."""
        if key.algorithms[0] not in HMAC:
            raise ConfigurationError("authentication.jwt_secret: is required to issue tokens")
        self._key = key
        self._jws = signatures(key.algorithms)
        self._audience = audience
        self._issuer = issuer
        self._expires_in = expires_in
        self._max_lifetime = max_lifetime

    def issue(
        self,
        now: float,
        *,
        user_id: str,
        role: str,
        tenant_id: str | None,
        expires_in: str | float | timedelta | None,
        claims: dict[str, Any],
        token_id: str | None,
    ) -> str:
        """The token. Raises `ValidationError` for what no token may say."""
        token_id = secrets.token_urlsafe(12) if token_id is None else token_id
        require(is_name(user_id), "user_id", _A_NAME)
        require(is_name(role), "role", _A_NAME)
        require(tenant_id is None or is_name(tenant_id), "tenant_id", _A_NAME)
        require(is_name(token_id), "token_id", _A_NAME)
        require(is_plain(claims) and KNOWN_CLAIMS.isdisjoint(claims), "claims", "Expected JSON values under names that are not claims of tokens")
        # `iat` keeps its fraction: a token of the same second as a revocation is then known to be newer.
        content: dict[str, Any] = {
            "sub": user_id,
            "role": role,
            "iat": now,
            "exp": math.ceil(now + self._lifetime(expires_in)),
            "jti": token_id,
        }
        if tenant_id is not None:
            content["tenant_id"] = tenant_id
        if self._audience:
            content["aud"] = self._audience[0]
        if self._issuer:
            content["iss"] = self._issuer[0]
        token = self._jws.encode(msgspec.json.encode(content | claims), self._key.key, algorithm=self._key.algorithms[0])
        require(len(token) <= MAX_TOKEN_BYTES, "claims", "Expected less: the token would be longer than 8 KiB")
        return token

    def _lifetime(self, expires_in: str | float | timedelta | None) -> float:
        try:
            lifetime = self._expires_in if expires_in is None else parse_duration(expires_in)
        except ValueError:
            lifetime = 0.0
        require(0 < lifetime <= self._max_lifetime, "expires_in", 'Expected a duration like "24h", at most max_lifetime')
        return lifetime


def require(holds: bool, path: str, message: str) -> None:
    """Raise `ValidationError` for the argument `path` unless it `holds`."""
    if not holds:
        raise ValidationError(errors=[{"path": path, "message": message}])
