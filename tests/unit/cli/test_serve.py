"""`serve` up to the point where it would listen: each mistake is one sentence that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.cli.exits import ExitCode
from aibos_realtime.cli.serve import Given, print_banner, server_from_environment
from aibos_realtime.server.server import RealtimeServer
from tests.network.processes import run
from tests.servers.redis import running_redis

from .conftest import SECRET, Command


def test_without_a_secret_it_says_how_to_make_one(command: Command) -> None:
    ended = command("serve")
    assert ended.code == 2 and ended.out == ""
    assert "authentication.jwt_secret: none was given" in ended.err
    assert "export JWT_SECRET=" in ended.err and "serve --demo" in ended.err


@pytest.mark.parametrize("secret", ["your_jwt_secret", "too-short-to-be-good"])
def test_a_weak_secret_is_refused_and_not_shown(command: Command, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("JWT_SECRET", secret)
    ended = command("serve")
    assert ended.code == 2 and "authentication.jwt_secret: " in ended.err and secret not in ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config", "realtime.toml"], "--config: there is no file realtime.toml"),
        (["--env-file", "production.env"], "--env-file: there is no file production.env"),
        (["ours:server", "--config", "realtime.toml"], "ours:server is configured where it is made: leave --config away"),
        (["ours_nowhere:server"], "There is no module 'ours_nowhere'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(command: Command, words: list[str], says: str) -> None:
    ended = command("serve", *words)
    assert ended.code == 2 and says in ended.err and "Traceback" not in ended.err


def test_a_variable_is_named_where_its_value_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("REALTIME_PORT", "abc")
    ended = command("serve")
    assert ended.code == 2 and "port: 'abc' was given" in ended.err and "REALTIME_PORT" in ended.err


@pytest.mark.parametrize("variables", [{}, {"ENABLE_SCALING": "true"}], ids=["queue", "nodes"])
def test_a_redis_that_is_not_there_is_named_with_its_option(folder: Path, variables: dict[str, str]) -> None:
    given = {"JWT_SECRET": SECRET, "DATABASE_URL": "memory://", "REDIS_URL": "redis://ann:hunter2@127.0.0.1:9/2", **variables}
    ended = run(folder, "serve", "--host", "127.0.0.1", "--port", "0", **given)
    assert ended.returncode == ExitCode.FAILED and "hunter2" not in ended.stderr
    assert ended.stderr.endswith("aibos-realtime: queue.redis.url: Redis does not answer: try again later. (redis://127.0.0.1:9/2)\n")


def test_a_redis_that_will_not_do_is_named_with_its_option(folder: Path) -> None:
    with running_redis(**{"maxmemory-policy": "allkeys-lru"}) as redis:
        given = {"JWT_SECRET": SECRET, "DATABASE_URL": "memory://", "REDIS_URL": redis.url}
        for variables in ({}, {"ENABLE_SCALING": "true"}):
            ended = run(folder, "serve", "--host", "127.0.0.1", "--port", "0", **given, **variables)
            assert ended.returncode == ExitCode.FAILED and "aibos-realtime: queue.redis: maxmemory-policy is allkeys-lru at unix://" in ended.stderr
        checked = run(folder, "check", **given, ENABLE_SCALING="true", REALTIME_PORT="0")
        assert [line.split()[0] for line in checked.stdout.splitlines() if "queue.redis: maxmemory-policy is allkeys-lru" in line] == ["failed"] * 2


def test_options_win_over_the_environment_and_that_over_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "realtime.toml").write_text('host = "127.0.0.1"\nport = 4000\n[rooms]\nmax_rooms = 7\n')
    (folder / "production.env").write_text(f"JWT_SECRET={SECRET}\nREALTIME_PORT=4001\n")
    files: dict[str, Any] = {"config": folder / "realtime.toml", "env_file": folder / "production.env"}
    server = server_from_environment(Given(**files))
    assert (server.config.host, server.config.port, server.config.rooms.max_rooms) == ("127.0.0.1", 4001, 7)
    monkeypatch.setenv("REALTIME_PORT", "4002")
    assert server_from_environment(Given(**files)).config.port == 4002
    assert server_from_environment(Given(host="::1", port=4003, **files)).url == "ws://[::1]:4003"


def test_the_urls_of_redis_and_the_database_win_over_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JWT_SECRET": SECRET, "REDIS_URL": "redis://other", "REDIS_DB": "3", "DATABASE_URL": "sqlite:///other.db"}.items():
        monkeypatch.setenv(name, value)
    config = server_from_environment(Given(redis_url="redis://ours/1", database_url="memory://")).config
    assert config.queue.redis is not None and (config.queue.redis.url, config.queue.redis.db) == ("redis://ours/1", None)
    assert config.persistence.database.url == "memory://"


def test_the_banner_names_the_address_and_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    server = RealtimeServer(port=4004, authentication={"jwt_secret": SECRET})
    print_banner(server, "/realtime")
    shown = capsys.readouterr().out
    assert "aibos-realtime listens on ws://localhost:4004/realtime/ws (from every network of this machine)." in shown
    assert "aibos-realtime listen tenant_TENANT --url ws://localhost:4004/realtime" in shown
    assert "http://localhost:4004/realtime/health" in shown and SECRET not in shown


@pytest.mark.parametrize(
    ("http", "said"),
    [
        ({}, "http://localhost:4004/dashboard/   (log in with: aibos-realtime token --user NAME --role operator)"),
        ({"operator_roles": ["chief", "second"]}, "--role chief)"),
        ({"operator_roles": []}, "/dashboard/\n"),
    ],
)
def test_the_banner_names_the_dashboard(capsys: pytest.CaptureFixture[str], http: dict[str, Any], said: str) -> None:
    print_banner(RealtimeServer(port=4004, authentication={"jwt_secret": SECRET}, http=http), "")
    assert said in capsys.readouterr().out
    print_banner(RealtimeServer(port=4004, authentication={"jwt_secret": SECRET}, http={"dashboard": False}), "")
    assert "/dashboard" not in capsys.readouterr().out
