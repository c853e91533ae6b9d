"""`check`: what it finds on this machine, and how it says so."""

from __future__ import annotations

import json
import resource
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from aibos_realtime.cli.checks import Finding, check_certificate, check_descriptors, check_environment, check_loop, check_port, check_sender
from aibos_realtime.config import RealtimeConfig
from aibos_realtime.transport import batch
from aibos_realtime.transport.batch import Sender

from .conftest import SECRET, Command


@pytest.fixture(autouse=True)
def _be_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration with which everything is well."""
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("REALTIME_PORT", "0")
    monkeypatch.setenv("REALTIME_HOST", "127.0.0.1")


def run_json(command: Command, *words: str) -> tuple[int, dict[str, Any]]:
    ended = command("check", "--json", *words)
    assert ended.out.count("\n") == 1 and SECRET not in ended.out + ended.err
    return ended.code, json.loads(ended.out)


def status_of(found: dict[str, Any], name: str) -> str:
    return next(f"{one['status']}: {one['message']}" for one in found["checks"] if one["name"] == name)


def test_all_is_well(command: Command) -> None:
    ended = command("check")
    assert ended.code == 0 and ended.err == ""
    assert SECRET not in ended.out and f"hidden ({len(SECRET)} bytes)" in ended.out and "environment JWT_SECRET" in ended.out
    assert "\x1b" not in ended.out and "\nfailed" not in ended.out
    code, found = run_json(command)
    assert code == 0 and found["ok"] is True
    assert {"name": "port", "shown": "0", "source": "environment REALTIME_PORT"} in found["values"]


@pytest.mark.parametrize(
    ("variable", "value", "name", "says"),
    [
        ("JWT_SECRET", "", "authentication", "failed: authentication.jwt_secret: none was given"),
        ("JWT_SECRET", "your_jwt_secret", "authentication", "failed: authentication.jwt_secret: a secret known from documentation"),
        ("JWT_SECRET", "short", "authentication", "failed: authentication.jwt_secret: 5 bytes were given"),
        ("REALTIME_PORT", "abc", "configuration", "failed: port: 'abc' was given"),
        ("ENABLE_SCALING", "true", "configuration", "failed: scaling.redis.url: is required"),
        ("REALTIME_HOST", "no-such-host.invalid", "port", "failed: the host no-such-host.invalid is not known"),
        ("REALTIME_PROT", "1", "environment", "warning: REALTIME_PROT is set, and nothing reads it; did you mean REALTIME_PORT?"),
        (
            "REDIS_URL",
            "redis://:hidden@127.0.0.1:9/2",
            "queue",
            "failed: queue.redis.url: Redis does not answer: try again later. (redis://127.0.0.1:9/2)",
        ),
        ("REDIS_URL", "http://localhost", "configuration", "failed: queue.redis.url: "),
        ("INSTANCE_ID", "a b", "configuration", "failed: scaling.instance_id: 'a b' was given; allowed are 1–64 letters"),
        ("DATABASE_URL", "memory://", "store", "warning: events live in memory alone"),
        ("DATABASE_URL", "sqlite:///a.db", "store", "ok: sqlite:///a.db gets its schema when the server starts"),
        ("DATABASE_URL", "sqlite:///nowhere/a.db", "store", "failed: persistence.database.url: the directory"),
        ("DATABASE_URL", "mysql://root:hidden@db/x", "configuration", "failed: persistence.database.url: "),
        ("DATABASE_URL", "postgresql://root:hidden@127.0.0.1:9/x", "store", "failed: postgresql://…@127.0.0.1:9/x: "),
    ],
)
def test_a_fault_is_found(command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, says: str) -> None:
    monkeypatch.setenv(variable, value)
    code, found = run_json(command)
    assert status_of(found, name).startswith(says) and "hidden" not in json.dumps(found["checks"])
    assert code == (1 if says.startswith("failed") else 0) and found["ok"] is (code == 0)


def test_the_redis_of_the_nodes_is_named_by_the_option_that_it_comes_from(command: Command, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("ENABLE_SCALING", "true")
    monkeypatch.setenv("REDIS_URL", "redis://:hidden@127.0.0.1:9/2")
    assert status_of(run_json(command)[1], "nodes").startswith("failed: queue.redis.url: Redis does not answer")
    (folder / "realtime.toml").write_text('[scaling.redis]\nurl = "redis://:hidden@127.0.0.1:9/3"\n')
    _, found = run_json(command, "--config", "realtime.toml")
    assert status_of(found, "nodes") == "failed: scaling.redis.url: Redis does not answer: try again later. (redis://127.0.0.1:9/3)"
    assert "hidden@" not in json.dumps(found)


def test_what_failed_is_said_once_more_on_stderr(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "short")
    ended = command("check")
    assert ended.code == 1 and "1 of 7 checks failed" in ended.err
    assert ended.out.count("authentication.jwt_secret: 5 bytes were given") == 1


def test_a_wrong_option_of_a_file_is_found(command: Command, folder: Path) -> None:
    (folder / "realtime.toml").write_text("[cors]\norign = []\n")
    code, found = run_json(command, "--config", "realtime.toml")
    assert code == 1 and status_of(found, "configuration") == "failed: cors.orign: there is no such option; did you mean 'origin'?"
    assert command("check", "--config", "nowhere.toml").code == 2


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert check_port("127.0.0.1", port).message == f"127.0.0.1:{port} is taken: does the server run already?"
    assert check_port("127.0.0.1", port).status == "ok"
    assert check_port("203.0.113.7", 3001).status == "failed"


@pytest.mark.parametrize(
    ("connections", "limit", "status"),
    [(1000, 1138, "ok"), (1000, 1137, "warning"), (None, 1024, "warning"), (1_000_000, resource.RLIM_INFINITY, "ok")],
)
def test_descriptors(connections: int | None, limit: int, status: str) -> None:
    found = check_descriptors(connections, limit)
    assert found.status == status
    assert limit != 1137 or found.message.endswith("ulimit -n 1138")


def test_the_event_loop() -> None:
    assert check_loop(True).message == "uvloop" and check_loop(False).status == "warning"


def test_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_sender(Sender("python")) == Finding("sender", "ok", "python")
    monkeypatch.setattr(batch, "compiled", None)
    assert check_sender(Sender("auto")).status == "warning"
    assert check_sender(Sender("send")).status == "failed"


def test_a_certificate(folder: Path) -> None:
    expiry = datetime(2030, 1, 1, tzinfo=UTC)
    trustme.CA().issue_cert("localhost", not_after=expiry).private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    config = RealtimeConfig.parse("", {"tls": {"certificate": folder / "server.pem"}})
    assert check_certificate(config, expiry - timedelta(days=100)).status == "ok"
    assert check_certificate(config, expiry - timedelta(days=13)).status == "warning"
    assert check_certificate(config, expiry + timedelta(days=3)).message.endswith("server.pem expired 3 days ago: renew it")
    (folder / "server.pem").write_text("nothing")
    assert check_certificate(config, expiry).message.endswith("cannot be read (it is no PEM certificate)")


def test_variables_of_others_are_none_of_ours() -> None:
    environment = {"REALTIME_URL": "ws://localhost", "REALTIME_TOKEN": "abc", "JWT_SECRET": SECRET, "JWT_ISSUER": "x", "PATH": "/bin"}
    assert check_environment(environment) == []


def test_a_mistyped_variable_of_a_database_is_found() -> None:
    found = check_environment({"DATABASE_ULR": "x", "REDIS_ULR": "x", "DATABASE_HOST": "x", "REDIS_HOST": "x"})
    assert [(one.message.split()[0], one.message.split()[-1]) for one in found] == [("DATABASE_ULR", "DATABASE_URL?"), ("REDIS_ULR", "REDIS_URL?")]
