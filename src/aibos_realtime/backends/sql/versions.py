"""The version of the schema: which a database has, which this package knows, and the way from one to the other.

A version is the number of a script in `migrations/versions/`. Alembic is imported only where there is something to do.
"""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from ...errors import ConfigurationError

VERSION_TABLE = "realtime_alembic"
MIGRATIONS = Path(__file__).parent / "migrations"

_one_at_a_time = threading.Lock()  # alembic keeps what it is doing in module globals


def known_versions() -> list[str]:
    """The versions that this package knows, oldest first."""
    return sorted(path.stem[:4] for path in (MIGRATIONS / "versions").iterdir() if re.fullmatch(r"\d{4}_\w+\.py", path.name))


def find_version(connection: Connection) -> str | None:
    """The version that a database has; None where it has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def is_current(connection: Connection, name: str) -> bool:
    """Whether a database has the newest version. Raises `ConfigurationError` for one that this package does not know."""
    found, known = find_version(connection), known_versions()
    if found is not None and found not in known:
        raise ConfigurationError(
            f"database.url: {name} has version {found} of the schema, and this aibos-realtime knows {known[0]} to {known[-1]}: "
            "install the newer aibos-realtime that made it, or use another database"
        )
    return found == known[-1]


def require_current(connection: Connection, name: str) -> None:
    """Raises `ConfigurationError` unless a database has the newest version."""
    if not is_current(connection, name):
        found = find_version(connection)
        has = f"has version {found} of the schema" if found else "has no tables of aibos-realtime"
        raise ConfigurationError(f"database.url: {name} {has}, and {known_versions()[-1]} is needed: run `aibos-realtime database upgrade`")


def upgrade(connection: Connection, name: str) -> tuple[str | None, str]:
    """Bring a database to the newest version, inside the transaction of the connection; the versions before and after.

    Raises `ConfigurationError` as `is_current` does.
    """
    before = find_version(connection)
    if not is_current(connection, name):
        _run_alembic(connection)
    return before, known_versions()[-1]


def _run_alembic(connection: Any) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it would tell an application's log of each of its plugins
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")
