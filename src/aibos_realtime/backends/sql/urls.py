"""Which database a URL means. It opens nothing, imports no driver, and never shows a password."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from ...errors import ConfigurationError

Dialect = Literal["sqlite", "postgresql"]

POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg")
"""The last one is how applications that use SQLAlchemy say it, often in the same variable."""

ALLOWED = "sqlite:///file.db, sqlite:////absolute/path.db, sqlite:// or memory:// (in memory), postgresql://user:password@host/database"

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,/?#@\s]*)(?::\d{1,5})?"
_POSTGRES = re.compile(rf"(?:[^/?#\[\]\0]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/[^?#@\0]*)?(?:\?(?P<query>[^#\0]*))?")
"""User and password, hosts with ports, the database, parameters."""


class Place(NamedTuple):
    """Where a database is. `file`: of SQLite; None is one in memory. `dsn`: of PostgreSQL, for its driver; it may hold a password."""

    dialect: Dialect
    shown: str
    file: Path | None = None
    dsn: str = ""

    @property
    def name(self) -> str:
        """How error texts, which a peer may read, name it: without path, host and user."""
        return self.file.name if self.file is not None else "in memory" if self.dialect == "sqlite" else "PostgreSQL"

    def __repr__(self) -> str:
        return f"Place({self.shown})"


def read_url(url: str, option: str = "database.url") -> Place:
    """The place that a URL names. `option`: its dotted path, for the error. Raises `ConfigurationError`, without the password."""
    scheme, separator, rest = url.partition("://")
    if scheme == "memory" and separator and not rest:
        return Place("sqlite", "memory://")
    if scheme == "sqlite" and separator and not re.search(r"[?#\0]", rest):
        if rest in ("", "/", "/:memory:"):
            return Place("sqlite", "sqlite://")
        if rest.startswith("/"):
            return Place("sqlite", url, Path(rest[1:]))
    if scheme in POSTGRESQL and separator and _is_readable(rest):
        return Place("postgresql", hide_password(url), dsn=f"postgresql://{rest}")
    hint = "; in a password write each of / ? # [ ] @ : % as %2F, %3F and so on" if scheme in POSTGRESQL else ""
    raise ConfigurationError(f"{option}: {hide_password(url)!r} was given; allowed are {ALLOWED}{hint}")


def _is_readable(rest: str) -> bool:
    """Whether what follows the scheme of PostgreSQL means one thing to everybody: its driver would guess, and quote a password in its errors."""
    found = _POSTGRES.fullmatch(rest)
    if found is None or not rest:
        return False
    try:
        urlsplit(f"postgresql://{rest}")
        parse_qsl(found["query"] or "", strict_parsing=True)
    except ValueError:
        return False
    ports = [int(port) for port in re.findall(r":(\d+)(?=,|$)", found["hosts"])]
    return all(0 < port < 65536 for port in ports)


def hide_password(url: str) -> str:
    """A URL as it may be shown: no parser, since what is not quite a URL may hold a password too. All before the last @ of the host may be one."""
    if "://" not in url:
        return "…" if len(url) > 31 or re.search(r"[@:=]", url) else url
    scheme, _, rest = url.partition("://")
    if re.fullmatch(r"[A-Za-z0-9+.-]{1,31}", scheme) is None or not url.isprintable():
        return "…"  # more than a URL: the quotes of a `.env` that do not match, say, and the lines after it
    place, _, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://…"  # a query with a password, or a password with a question mark: nothing tells which
    if "@" in place:
        place = "…@" + place.rpartition("@")[2]
    elif re.search(r":(?!\d*(,|/|$))", re.sub(r"\[[^\]@]*\]", "", place)):
        return f"{scheme}://…"  # where a port should be there may be a password, of a URL whose host was forgotten
    return f"{scheme}://{place}{'?…' if query else ''}"[:200]
