"""Which web pages may talk to this server: the Origin of a handshake, and CORS for the HTTP side, from one list (RFC 6454, WHATWG Fetch).

An origin protects users from other people's pages, not the server from programs: who sends none at all is not a browser and passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo, field_validator

from ..options import Options, shown

Headers = list[tuple[bytes, bytes]]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = b"Authorization, Content-Type, Idempotency-Key, X-API-Key"
_ANSWER_HEADERS = b"Allow, Retry-After"
"""What a page may read of an answer, beyond what it may anyway."""
_PREFLIGHT_SECONDS = b"600"

_Place = tuple[str, int | None]
"""Host and port of an authority, default ports written out; None: a scheme without a default port."""


class CorsOptions(Options):
    """`origin`: a list or a text with commas, "*" for all; nothing: the server's own host. `credentials`: whether pages may send them."""

    credentials: bool = False
    origin: tuple[str, ...] | None = None

    @field_validator("origin", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        entries = value.split(",") if isinstance(value, str) else value
        if not isinstance(entries, list | tuple):
            return entries
        return tuple(text for entry in entries if (text := entry.strip() if isinstance(entry, str) else entry) != "") or None

    @field_validator("origin")
    @classmethod
    def _check(cls, origins: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        for origin in origins or ():
            if origin == "*":
                if info.data.get("credentials", True):
                    raise ValueError('"*" was given beside credentials; allowed with credentials is a list of origins')
            elif _parse_origin(origin) is None:
                raise ValueError(f"{shown(origin)} was given; allowed is scheme://host or scheme://host:port, without a path or a pattern")
        return origins


class OriginPolicy:
    """Decides about origins. Immutable."""

    __slots__ = ("_allowed", "_any", "_credentials")

    def __init__(self, options: CorsOptions | Mapping[str, Any] | None = None) -> None:
        """Raises `ConfigurationError` naming `cors.…`."""
        options = CorsOptions.parse("cors", options)
        origins = options.origin or ()
        self._any = "*" in origins
        self._credentials = options.credentials
        self._allowed = frozenset(place for origin in origins if (place := _parse_origin(origin)) is not None)

    def is_allowed(self, origin: str | None, host: str | None, secure: bool) -> bool:
        """Whether a request with this `Origin` and `Host` field may go on; `secure`: it came over TLS.

        None (no such field) passes. `null`, two values in one, and whatever is no origin do not. A configured list is the whole list;
        without one the origin must be the host that was asked, and not its plain-text twin when the request came over TLS.
        """
        if origin is None:
            return True
        parsed = _parse_origin(origin)
        if parsed is None:
            return False
        if self._any:
            return True
        if self._allowed:
            return parsed in self._allowed
        scheme, place = parsed
        if scheme != "https" and (secure or scheme != "http"):
            return False
        return host is not None and _parse_authority(host, scheme) == place

    def response_headers(self, origin: str | None, host: str | None, secure: bool, *, preflight: bool = False) -> Headers:
        """The CORS fields of an HTTP answer, names in lower case; `preflight`: of the answer to an OPTIONS request that asks for leave.

        An origin that is not allowed gets none but `vary`, and its browser keeps the answer from the page.
        """
        headers: Headers = [(b"vary", b"Origin")]
        if origin is None or not self.is_allowed(origin, host, secure):
            return headers
        headers.append((b"access-control-allow-origin", b"*" if self._any else origin.encode("ascii")))
        if self._credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        if not preflight:
            headers.append((b"access-control-expose-headers", _ANSWER_HEADERS))
        else:
            headers += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _REQUEST_HEADERS),
                (b"access-control-max-age", _PREFLIGHT_SECONDS),
            ]
        return headers


def _parse_origin(text: str) -> tuple[str, _Place] | None:
    """Scheme and place of a serialized origin (RFC 6454, 6.2). Their case does not count; all else does, a trailing dot too."""
    match = _ORIGIN.fullmatch(_lower(text)) if len(text) <= 512 else None
    if match is None:
        return None
    scheme, authority = match.groups()
    place = _parse_authority(authority, scheme)
    return None if place is None else (scheme, place)


def _parse_authority(text: str, scheme: str) -> _Place | None:
    match = _AUTHORITY.fullmatch(_lower(text))
    if match is None:
        return None
    host, port = match.groups()
    if port is None:
        return host, _DEFAULT_PORTS.get(scheme)
    return (host, int(port)) if int(port) <= 65535 else None


def _lower(text: str) -> str:
    """Lower case, of ASCII only: `str.lower` makes a plain "k" of the Kelvin sign, so a look-alike host would pass."""
    return text.lower() if text.isascii() else text
