"""`aibos-realtime database`: the schema, and new epochs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.versions import known_versions
from tests.servers.postgres import PostgresServer
from tests.unit.cli.conftest import Command

NEWEST = known_versions()[-1]


def test_the_default_database_from_nothing(command: Command, folder: Path) -> None:
    ended = command("database", "status")
    assert (
        ended.code == 1
        and ended.out == f"sqlite:///realtime.db: no tables of aibos-realtime, and {NEWEST} is needed: run `aibos-realtime database upgrade`\n"
    )
    assert not (folder / "realtime.db").exists()
    assert command("database", "upgrade").out == f"sqlite:///realtime.db: version {NEWEST}, from an empty database\n"
    assert command("database", "upgrade").out == f"sqlite:///realtime.db: version {NEWEST}, as it was\n"
    assert command("database", "status") == (0, f"sqlite:///realtime.db: version {NEWEST}\n", "")


def test_for_scripts(command: Command) -> None:
    ended = command("database", "status", "--json")
    assert (ended.code, json.loads(ended.out)) == (1, {"database": "sqlite:///realtime.db", "version": None, "needed": NEWEST, "ok": False})
    assert json.loads(command("database", "upgrade", "--json").out) == {"database": "sqlite:///realtime.db", "from": None, "version": NEWEST}


def test_postgresql(command: Command, postgres: PostgresServer) -> None:
    with postgres.database("template0") as url:
        assert command("database", "status", "--database-url", url).code == 1
        assert command("database", "upgrade", "--database-url", url).out.endswith(f"version {NEWEST}, from an empty database\n")
        assert command("database", "status", "--database-url", url).code == 0


def test_where_the_url_comes_from(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "realtime.toml").write_text('[persistence.database]\nurl = "sqlite:///toml.db"\n')
    assert "toml.db" in command("database", "status", "--config", "realtime.toml").out
    monkeypatch.setenv("DATABASE_URL", "sqlite:///environment.db")
    assert "environment.db" in command("database", "status", "--config", "realtime.toml").out
    assert "option.db" in command("database", "status", "--database-url", "sqlite:///option.db").out


def test_new_epochs(command: Command) -> None:
    command("database", "upgrade")
    assert command("database", "new-epochs") == (0, "sqlite:///realtime.db: every room begins a new epoch; 0 had one\n", "")


async def test_new_epochs_only_without_a_server(command: Command, folder: Path) -> None:
    async with Database(f"sqlite:///{folder}/realtime.db") as database:
        writer = await database.acquire_writer()
        ended = await asyncio.to_thread(command, "database", "new-epochs")
        assert ended.code == 2 and "another server writes to sqlite:///realtime.db; stop it" in ended.err
        await writer.release()


def test_wrong_use(command: Command) -> None:
    ended = command("database", "upgrade", "--database-url", "mysql://ann:hunter2@db.internal/app")
    assert ended.code == 2 and "persistence.database.url: 'mysql://…@db.internal/app' was given" in ended.err and "hunter2" not in ended.err
    ended = command("database", "upgrade", "--database-url", "postgresql://ann:hunter2@/app?host=/nowhere")
    assert ended.code == 1 and "does not answer" in ended.err and "hunter2" not in ended.err
    assert command("database", "upgrade", "--database-url", "sqlite:///none/x.db").code == 2
    assert command("database", "sideways").code == 2
    assert command("database", "status", "--env-file", "none").code == 2
