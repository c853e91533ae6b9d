"""Which Redis a URL means. It opens nothing, imports no driver, and never shows a password."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ...errors import ConfigurationError

ALLOWED = "redis://host:6379/0, rediss://user:password@host:6379/0 (TLS), unix:///path/redis.sock?db=0"


class Address(NamedTuple):
    """Where Redis is. Of a Unix socket: `path`; else `host` and `port`."""

    host: str = ""
    port: int = 6379
    path: str = ""
    is_tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = None

    @property
    def shown(self) -> str:
        """How logs and errors of the configuration name it: never with the password, or the user."""
        if self.path:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.is_tls else 'redis'}://{host}:{self.port}/{self.db}"

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def read_url(url: str, option: str = "redis.url") -> Address:
    """The address that a URL names. `option`: its dotted path, for the error. Raises `ConfigurationError`, without the password."""
    try:
        address = _parse(url)
    except ValueError:
        address = None
    if address is None:
        raise ConfigurationError(f"{option}: {hide_password(url)!r} was given; allowed are {ALLOWED}")
    return address


def _parse(url: str) -> Address | None:
    parts = urlsplit(url)
    if re.search(r"[\0\s]", url) or parts.fragment:
        return None
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme == "unix":
        found = re.fullmatch(r"(?:db=(\d+))?", parts.query)
        if found is None or parts.port or not parts.path.strip("/"):
            return None
        return Address(path=unquote(parts.path), db=int(found[1] or 0), username=user, password=password)
    number = re.fullmatch(r"/?(\d*)", parts.path)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or number is None or parts.query:
        return None
    port = parts.port if parts.port is not None else 6379
    return Address(parts.hostname, port, "", parts.scheme == "rediss", int(number[1] or 0), user, password) if port else None


def hide_password(url: str) -> str:
    """A URL as it may be shown. No parser: what is not quite a URL may hold a password too, and that may be all before the last @."""
    if "://" not in url:
        return "…" if re.search(r"[@:=]", url) else url[:60]
    scheme, _, rest = url.partition("://")
    rest = "…@" + rest.rpartition("@")[2] if "@" in rest else rest
    return f"{scheme}://{re.sub(r'[?].*', '?…', rest, flags=re.DOTALL)}"[:200]
