"""Which URLs name a database, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.options import DatabaseOptions
from aibos_realtime.backends.sql.urls import hide_password, read_url
from aibos_realtime.errors import ConfigurationError

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///realtime.db", Path("realtime.db")),
        ("sqlite:///data/realtime.db", Path("data/realtime.db")),
        ("sqlite:////var/lib/realtime.db", Path("/var/lib/realtime.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("memory://", None),
    ],
)
def test_sqlite(url: str, file: Path | None) -> None:
    place = read_url(url)
    assert (place.dialect, place.file) == ("sqlite", file)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:hunter2@db.internal:5432/app", "postgresql://…@db.internal:5432/app"),
        ("postgres://ann:hunter2@db.internal/app?sslmode=require", "postgresql://…@db.internal/app?…"),
        ("postgresql:///app?host=/run/postgresql&password=hunter2", "postgresql:///app?…"),
        ("postgresql://ann:hunter2@@db.internal/app", "postgresql://…@db.internal/app"),
        ("postgresql://ann:hunter2@one.internal:5432,two.internal:5433/app", "postgresql://…@one.internal:5432,two.internal:5433/app"),
        ("postgresql://ann:hunter2@[::1]:5433/app", "postgresql://…@[::1]:5433/app"),
    ],
)
def test_postgresql(url: str, shown: str) -> None:
    place = read_url(url)
    assert (place.dialect, place.shown.replace("postgres://", "postgresql://")) == ("postgresql", shown)
    assert place.dsn.startswith("postgresql://") and PASSWORD in place.dsn
    database = Database(url)
    assert not [text for text in (repr(place), place.name, repr(database), repr(database.options), database.url_shown) if PASSWORD in text]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "realtime.db",
        "/var/lib/realtime.db",
        "sqlite:realtime.db",
        "sqlite://realtime.db",
        "sqlite:///realtime.db?mode=ro",
        "sqlite:///a\0b",
        "memory://x",
        "postgresql://",
        "postgresql://ann:hunter2/x@z@db.internal/app",
        "postgresql://ann:hunter2/x?y@db.internal/app",
        "postgresql://ann:1/hunter2@db.internal/app",
        "postgresql://ann:1?hunter2@db.internal/app",
        "postgresql://ann:1?x=1&hunter2@db.internal/app",
        "postgresql://ann:1#hunter2@db.internal/app",
        "postgresql://ann:hunter2@db.internal:port/app",
        "postgresql://ann:hunter2@db.internal:0/app",
        "postgresql://ann:hunter2@db.internal:65536/app",
        "postgresql://ann:hunter2@[::1/app",
        "postgresql://ann:hunter2[@db.internal/app",
        "postgresql://ann:hunter2\u2100@db.internal/app",
        "postgresql://ann:hunter2",
        "postgresql://ann:hunter2/app",
        "postgresql+psycopg://ann:hunter2@db.internal/app",
        "mysql://ann:hunter2@db.internal/app",
        "ann:hunter2@db.internal/app",
        "redis://:hunter2@db.internal",
    ],
)
def test_anything_else_is_refused_by_name_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Database(url)
    assert str(caught.value).startswith("database.url: ") and "allowed are sqlite:///file.db" in str(caught.value)
    assert PASSWORD not in str(caught.value) and caught.value.__suppress_context__ == (caught.value.__context__ is not None)
    with pytest.raises(ConfigurationError, match=r"^persistence\.database\.url: "):
        DatabaseOptions.parse("persistence.database", {"url": url})


@pytest.mark.parametrize("url", ["postgresql://a:p@ss@host/x", "x://a:p/w@host", "a=b;password=p@ss", "postgresql://host/x?password=p@ss#p@ss"])
def test_what_is_not_quite_a_url_may_hold_a_password_too(url: str) -> None:
    shown = hide_password(url)
    assert "ss" not in shown.replace("password", "") and "p/w" not in shown


def test_the_form_that_sqlalchemy_applications_use_is_understood() -> None:
    place = read_url("postgresql+asyncpg://bob:hidden@db/app")
    assert (place.dialect, place.dsn) == ("postgresql", "postgresql://bob:hidden@db/app") and "hidden" not in place.shown
