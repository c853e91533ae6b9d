"""Which Redis a URL means. It opens nothing, imports no driver, and never shows a password."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from ...errors import ConfigurationError

ALLOWED = (
    "redis://host:6379/0, rediss://user:password@host:6379/0 (TLS), unix:///path/redis.sock?db=0, redis+sentinel://host:26379,host:26379/SERVICE/0, "
    "redis+cluster://host:7000,host:7001, and rediss+sentinel, rediss+cluster"
)
TAILS = {"sentinel": r"/([^@/?#]+)/?(\d*)", "cluster": r"()/?(\d*)"}
"""What stands behind the hosts: the service, and the number of the database."""


class Address(NamedTuple):
    """Where Redis is. Of one server: `host` and `port`, or the `path` of a Unix socket; else `nodes`, of which one is the first to be asked.

    `service`: the name that the sentinels know the primary by. The user and the password are those of the servers, not of the sentinels.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    is_tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = None
    kind: Literal["single", "sentinel", "cluster"] = "single"
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @property
    def shown(self) -> str:
        """How logs and errors of the configuration name it: never with the password, or the user."""
        if self.path:
            return f"unix://{self.path}?db={self.db}"
        scheme = "rediss" if self.is_tls else "redis"
        if self.kind == "single":
            return f"{scheme}://{_shown_node(self.host, self.port)}/{self.db}"
        nodes = ",".join(_shown_node(host, port) for host, port in self.nodes)
        return f"{scheme}+{self.kind}://{nodes}" + (f"/{self.service}/{self.db}" if self.service else "")

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def _shown_node(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_url(url: str, option: str = "redis.url") -> Address:
    """The address that a URL names. `option`: its dotted path, for the error. Raises `ConfigurationError`, without the password."""
    try:
        address = _parse(url)
    except ValueError:
        address = None
    if address is None:
        raise ConfigurationError(f"{option}: {hide_password(url)!r} was given; allowed are {ALLOWED}")
    if address.kind == "cluster" and address.db:
        raise ConfigurationError(f"{option}: {hide_password(url)!r} was given; a cluster has database 0 only")
    return address


def _parse(url: str) -> Address | None:
    if re.search(r"[\0\s]", url):
        return None
    scheme, _, rest = url.partition("://")
    if scheme in ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"):
        return _parse_several(scheme, rest)
    parts = urlsplit(url)
    if parts.fragment:
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


def _parse_several(scheme: str, rest: str) -> Address | None:
    """`urlsplit` knows no lists of hosts."""
    security, _, kind = scheme.partition("+")
    found = re.fullmatch(rf"(?:([^@/?#]*)@)?([^@/?#]+){TAILS[kind]}", rest)
    if found is None:
        return None
    user, _, password = (found[1] or "").partition(":")
    nodes = [_parse_node(node, 26379 if kind == "sentinel" else 6379) for node in found[2].split(",")]
    if not all(nodes):
        return None
    return Address(
        is_tls=security == "rediss",
        db=int(found[4] or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        kind="sentinel" if kind == "sentinel" else "cluster",
        nodes=tuple(node for node in nodes if node is not None),
        service=unquote(found[3]),
    )


def _parse_node(text: str, port: int) -> tuple[str, int] | None:
    parts = urlsplit(f"//{text}")
    given = parts.port if parts.port is not None else port
    return (parts.hostname, given) if parts.hostname and given else None


def hide_password(url: str) -> str:
    """A URL as it may be shown. No parser: what is not quite a URL may hold a password too, and that may be all before the last @."""
    if "://" not in url:
        return "…" if len(url) > 31 or re.search(r"[@:=]", url) else url
    scheme, _, rest = url.partition("://")
    if re.fullmatch(r"[A-Za-z0-9+.-]{1,31}", scheme) is None or not url.isprintable():
        return "…"  # more than a URL: the quotes of a `.env` that do not match, say, and the lines after it
    if "@" in rest:
        rest = "…@" + rest.rpartition("@")[2]
    elif re.search(r":(?!\d*([,/?]|$))", re.sub(r"\[[^\]@]*\]", "", rest.partition("?")[0])):
        return f"{scheme}://…"  # where a port should be there may be a password, of a URL whose host was forgotten
    return f"{scheme}://{re.sub(r'[?].*', '?…', rest, flags=re.DOTALL)}"[:200]
