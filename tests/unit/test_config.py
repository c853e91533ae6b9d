"""Where values come from, in which order, and that each mistake is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import RealtimeConfig, RealtimeServer
from aibos_realtime.config import VARIABLES, from_environment
from aibos_realtime.errors import ConfigurationError

SECRET = "k7Qz-0pLr5Tn2Wx8" * 3


def load(**given: Any) -> tuple[RealtimeConfig, dict[str, str]]:
    return RealtimeConfig.load(**{"environment": {}, "env_file": None} | given)


def test_the_defaults_of_the_contract() -> None:
    config, sources = load()
    assert sources == {}
    assert (config.host, config.port, config.cors.origin, config.cors.credentials) == ("0.0.0.0", 3001, None, False)
    assert (config.rooms.max_rooms, config.rooms.max_users_per_room, config.rooms.room_timeout) == (1000, 100, 300.0)
    assert (config.connections.max_connections, config.connections.connection_timeout) == (1000, 30.0)
    assert (config.connections.heartbeat_interval, config.connections.heartbeat_timeout) == (30.0, 60.0)
    assert config.persistence.database.url == "sqlite:///realtime.db"
    assert (config.persistence.retention.duration, config.persistence.retention.max_messages) == (7 * 86400, 100_000)
    assert (config.compression.enabled, config.compression.threshold, config.scaling.enabled, config.trusted_proxies) == (
        False,
        1024,
        False,
        [],
    )


LIMITS: dict[str, Any] = {
    "messages_per_second": 50, "messages_burst": None, "publishes_per_second": 10, "publishes_burst": None, "control_frames_per_second": 10,
    "handshakes_per_second": 200, "handshakes_per_second_per_address": 10, "handshakes_burst_per_address": None,
    "failed_authentications_per_minute": 5, "connections_per_user": 20, "connections_per_address": 100, "rooms_per_connection": 128,
    "message_bytes": 65536, "fragments": 256, "broadcast_bytes": 262144,
    "outbox_soft_bytes": 262144, "outbox_bytes": 1048576, "outbox_seconds": 10,
    "handshake_seconds": 10, "authentication_seconds": 10, "answer_seconds": 30, "url_bytes": 8192,
    "header_fields": 64, "header_bytes": 8192, "headers_bytes": 16384,
    "requests_waiting": 256,
}  # fmt: skip


def test_every_limit_is_on_by_default() -> None:
    assert load()[0].limits.model_dump() == LIMITS


def test_files_then_environment_then_keywords(tmp_path: Path) -> None:
    file, env = tmp_path / "realtime.toml", tmp_path / ".env"
    file.write_text('host = "from.toml"\nport = 1\n[cors]\norigin = ["https://toml.example"]\ncredentials = true\n[rooms]\nmax_rooms = 7\n')
    env.write_text("REALTIME_HOST=from.env\nREALTIME_PORT=2\nINSTANCE_ID=env\n")
    config, sources = load(file=file, env_file=env, environment={"REALTIME_PORT": "3"}, rooms={"room_timeout": None}, port=4)
    assert (config.host, config.port, config.cors.credentials, config.rooms.max_rooms, config.rooms.room_timeout) == (
        "from.env",
        4,
        True,
        7,
        None,
    )
    assert sources["port"] == sources["rooms.room_timeout"] == "keyword"
    assert sources["rooms.max_rooms"] == f"file {file}" and sources["host"] == f"file {env}"
    assert load(file=file, env_file=env, environment={"REALTIME_PORT": "3"})[0].port == 3


def test_every_documented_variable() -> None:
    environment = {
        "REALTIME_HOST": "127.0.0.1", "REALTIME_PORT": "3002", "REALTIME_CORS_ORIGIN": "https://a.example, https://b.example",
        "JWT_SECRET": SECRET,
        "JWT_EXPIRES_IN": "24h", "DATABASE_URL": "postgresql://localhost/x", "REDIS_URL": "redis://localhost", "REDIS_DB": "2",
        "ENABLE_SCALING": "false", "INSTANCE_ID": "i1",
        "INSTANCE_URL": "ws://a:1", "REALTIME_OPERATOR_ROLES": "operator, support", "REALTIME_API_KEYS": f"{'k' * 32},sha256:{'0' * 64}",
        "REALTIME_SENDER": "send",
    }  # fmt: skip
    assert environment.keys() == VARIABLES.keys()
    config, sources = load(environment=environment)
    assert (config.host, config.port, config.cors.origin) == ("127.0.0.1", 3002, ("https://a.example", "https://b.example"))
    assert config.authentication.jwt_secret is not None and config.authentication.jwt_secret.get_secret_value() == SECRET
    assert (config.authentication.expires_in, config.persistence.database.url) == (86400.0, "postgresql://localhost/x")
    assert config.queue.redis is not None and (config.queue.redis.url, config.queue.redis.db) == ("redis://localhost", 2)
    assert (config.scaling.enabled, config.scaling.instance_id, config.scaling.instance_url) == (False, "i1", "ws://a:1")
    assert config.http.operator_roles == ("operator", "support") and len(config.http.api_keys) == 2
    assert set(sources.values()) == {"environment"}


def test_an_empty_variable_is_no_variable() -> None:
    assert load(environment={"REALTIME_PORT": "", "JWT_SECRET": ""})[1] == {}
    assert from_environment({"PATH": "/bin"}) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"environment": {"REALTIME_PORT": "many"}}, "port: 'many' was given"),
        ({"port": 70_000}, "port: 70000 was given"),
        ({"prot": 1}, "prot: there is no such option; did you mean 'port'?"),
        ({"cors": {"orign": []}}, "cors.orign: there is no such option; did you mean 'origin'?"),
        ({"scaling": {"instance_id": "a b"}}, "scaling.instance_id: 'a b' was given; allowed are 1–64 letters, digits, and _ . : -"),
        ({"environment": {"INSTANCE_ID": "web-1\n"}}, "scaling.instance_id: 'web-1\\n' was given"),
        ({"limits": {"messages_per_second": 0}}, "limits.messages_per_second: 0 was given"),
        (
            {"rooms": {"patterns": {"a:*": {"max_user": 1}}}},
            "rooms.patterns.a:*.max_user: there is no such option; did you mean",
        ),
    ],
)
def test_mistakes(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(said)):
        load(**given)


def test_files_that_are_not_there_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load(file=tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("port = = 3")
    with pytest.raises(ConfigurationError, match="cannot be read as TOML"):
        load(file=tmp_path / "bad.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(file=tmp_path)
    assert load(env_file=tmp_path / "no.env")[1] == {}


def test_several_nodes_need_a_place_to_meet() -> None:
    for wrong in ({"environment": {"ENABLE_SCALING": "TRUE"}}, {"scaling": {"enabled": True}}):
        with pytest.raises(ConfigurationError, match=r"scaling\.redis\.url: is required.*REDIS_URL"):
            load(**{"environment": {}, **wrong})
    config, _ = load(environment={"ENABLE_SCALING": "TRUE", "REDIS_URL": "redis://localhost:6379", "REDIS_DB": "1"})
    assert config.nodes_redis is not None and (config.nodes_redis.url, config.nodes_redis.db) == ("redis://localhost:6379", 1)
    config, _ = load(environment={"REDIS_URL": "redis://queue:6379"}, scaling={"enabled": True, "redis": {"url": "redis://nodes:6379"}})
    assert config.nodes_redis is not None and config.nodes_redis.url == "redis://nodes:6379", "their own, where it is given"


def test_patterns_are_taken_as_a_whole_and_not_merged_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "realtime.toml"
    file.write_text('[rooms.patterns."a:*"]\nephemeral = true\n')
    config, _ = load(file=file, rooms={"patterns": {"b:*": {"max_users": 3}}})
    assert list(config.rooms.patterns) == ["b:*"]


def test_a_server_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("REALTIME_PORT", "3005")
    server = RealtimeServer.from_env(host="127.0.0.1", rooms={"max_rooms": 3})
    assert (server.config.port, server.config.host, server.config.rooms.max_rooms) == (3005, "127.0.0.1", 3)
    monkeypatch.setenv("JWT_SECRET", "your_jwt_secret")
    with pytest.raises(ConfigurationError) as caught:
        RealtimeServer.from_env()
    assert "your_jwt_secret" not in str(caught.value).replace("authentication.jwt_secret", "")


@pytest.mark.parametrize(
    "text", ["port = " + "9" * 5000, "a = " + "[" * 3000, "a." * 1500 + "b = 1", "port = 0x" + "f" * 5000], ids=["digits", "deep", "dotted", "hex"]
)
def test_a_file_that_is_hard_to_read_is_one_sentence(tmp_path: Path, text: str) -> None:
    """A number of 5,000 digits, or brackets without end, in the file ended the server with a traceback instead of a sentence."""
    (tmp_path / "realtime.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(file=tmp_path / "realtime.toml")
    assert len(str(caught.value)) < 400


def test_variables_in_another_encoding_are_one_sentence(tmp_path: Path) -> None:
    """A `.env` that an editor had saved as Latin-1 ended the server with a traceback, in which its line stood."""
    (tmp_path / ".env").write_bytes("JWT_SECRET=Schlüssel-hunter2".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="cannot be read as variables") as caught:
        load(env_file=tmp_path / ".env")
    assert "hunter2" not in str(caught.value)
