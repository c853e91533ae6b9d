"""Which database a URL means. It opens nothing, imports no driver, and never shows a password."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from ...errors import ConfigurationError

Dialect = Literal["sqlite", "postgresql"]

ALLOWED = "sqlite:///file.db, sqlite:////absolute/path.db, sqlite:// or memory:// (in memory), postgresql://user:password@host/database"


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
    if scheme in ("postgresql", "postgres") and separator and rest and "\0" not in rest:
        return Place("postgresql", hide_password(url), dsn=f"postgresql://{rest}")
    raise ConfigurationError(f"{option}: {hide_password(url)!r} was given; allowed are {ALLOWED}")


def hide_password(url: str) -> str:
    """A URL as it may be shown: no parser, since what is not quite a URL may hold a password too. All before the last @ of the host may be one."""
    if "://" not in url:
        return "…" if re.search(r"[@:=]", url) else url[:60]
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://…"  # a query with a password, or a password with a question mark: nothing tells which
    place = "…@" + place.rpartition("@")[2] if "@" in place else place
    return f"{scheme}://{place}{'?…' if query else ''}"[:200]
