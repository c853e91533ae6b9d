"""Who may operate a server: users with an operator's role, and holders of an API key. What they may then do is said where it is done.

A key is kept as its SHA-256 alone, and compared in constant time: it is random and long, so that a slow hash would protect nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Annotated

from msgspec import Struct
from pydantic import BeforeValidator, Field, SecretStr, field_validator

from ..errors import AuthenticationError
from ..options import Count, Options
from .authentication import WebSocketAuth
from .user import User

KEY_LENGTH = 32
"""Characters that a key has at least."""
_HASHED = re.compile(r"sha256:[0-9a-f]{64}")
KEY_FIELD = b"x-api-key"


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class HttpOptions(Options):
    """What is served over HTTP beside the WebSocket, and to whom.

    `operator_roles`: users with one of these roles may everything; `admin` of a tenant is not one of them unless it is named here. `api_keys`: for
    programs; each a text of at least 32 characters, or `sha256:` and its SHA-256 in hexadecimal (`aibos-realtime token --api-key` makes both).
    `api`, `dashboard`, `metrics`: whether `/api/v1`, `/dashboard` and `/metrics` are there. `body_bytes`: of one request.
    """

    operator_roles: Annotated[tuple[str, ...], BeforeValidator(_split)] = ("operator",)
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = ()
    api: bool = True
    dashboard: bool = True
    metrics: bool = True
    body_bytes: Count = 1024 * 1024
    requests_per_second: Annotated[float, Field(gt=0)] | None = 100.0
    """Of one caller to `/api/v1`; None: off."""

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(keys):
            text = key.get_secret_value()
            if text.startswith("sha256:"):
                if not _HASHED.fullmatch(text):
                    raise ValueError(f"key {number + 1} begins with sha256: and is no hash; allowed are 64 hexadecimal digits after it")
            elif not (text.isascii() and text.isprintable()) or " " in text:
                raise ValueError(f"key {number + 1} holds something that no header carries; allowed are printable ASCII characters, without spaces")
            elif len(text) < KEY_LENGTH:
                raise ValueError(f"key {number + 1} has {len(text)} characters; allowed are at least {KEY_LENGTH}, or sha256: and a hash")
        return keys


class Caller(Struct, frozen=True):
    """Who asks. `name`: for the audit log, `user:<id>` or `key:<the first 8 digits of its hash>`. `user`: None of an API key."""

    name: str
    user: User | None
    is_operator: bool


class Operators:
    """Tells operators from others, by token or API key."""

    def __init__(self, options: HttpOptions, *, auth: WebSocketAuth) -> None:
        self._auth = auth
        self._roles = frozenset(options.operator_roles)
        self._hashes = [_hash(key.get_secret_value()) for key in options.api_keys]

    def is_operator(self, user: User | None) -> bool:
        return user is not None and user.role in self._roles

    async def identify(self, headers: list[tuple[bytes, bytes]], query: bytes = b"") -> Caller:
        """Who asks, by `X-API-Key`, or by the bearer token, which may be an API key too. Names of headers are in lower case.

        Raises `AuthenticationError` where there is neither, or it is no good.
        """
        given = [value.decode("latin-1") for name, value in headers if name == KEY_FIELD]
        if given:  # two are none: others on the way may have looked at the other one
            return (self._holder_of(given[0]) if len(given) == 1 else None) or _refuse()
        token = self._auth.token_from(headers, query)
        if token is None:
            raise AuthenticationError("A token or an API key is needed.")
        holder = self._holder_of(token)
        if holder is not None:
            return holder
        user = (await self._auth.identify(token)).user
        return Caller(f"user:{user.id}", user, self.is_operator(user))

    def _holder_of(self, key: str) -> Caller | None:
        """Every hash is compared, whichever fits: the time tells nothing."""
        if len(key) < KEY_LENGTH:
            return None
        given = hashlib.sha256(key.encode()).hexdigest()
        fits = [hmac.compare_digest(given, known) for known in self._hashes]
        return Caller(f"key:{given[:8]}", None, True) if any(fits) else None


def new_api_key() -> tuple[str, str]:
    """(a new key, what `http.api_keys` may hold in its place)."""
    key = f"rk_{secrets.token_urlsafe(32)}"
    return key, f"sha256:{_hash(key)}"


def _hash(key: str) -> str:
    return key.removeprefix("sha256:") if _HASHED.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()


def _refuse() -> Caller:
    raise AuthenticationError("The API key is not valid.")
