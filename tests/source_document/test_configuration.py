"""The source document, "Configuration": "Environment Variables" and "Realtime Configuration"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeClient, RealtimeConfig, RealtimeServer
from tests.contracts.peer import SECRET

ENV = """\
# Realtime Configuration
REALTIME_PORT=3001
REALTIME_HOST=0.0.0.0
REALTIME_CORS_ORIGIN=https://app.aibos.com

# Authentication
JWT_SECRET=your_jwt_secret
JWT_EXPIRES_IN=24h

# Redis Configuration
REDIS_URL=redis://localhost:6379
REDIS_DB=1

# Scaling Configuration
ENABLE_SCALING=true
INSTANCE_ID=instance-1
INSTANCE_URL=ws://localhost:3001
"""
NAMES = [line.partition("=")[0] for line in ENV.splitlines() if "=" in line]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and none of these variables set."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def write_env(**changes: str) -> None:
    lines = [line for line in ENV.splitlines() if "=" in line]
    values = {line.partition("=")[0]: line.partition("=")[2] for line in lines} | changes
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))


def test_environment_variables() -> None:
    """On one node; with a secret of one's own."""
    write_env(JWT_SECRET=SECRET, ENABLE_SCALING="false")
    server = RealtimeServer.from_env()
    config = server.config
    assert (config.host, config.port) == ("0.0.0.0", 3001)
    assert config.cors == RealtimeConfig.parse("", {"cors": {"origin": ["https://app.aibos.com"]}}).cors
    assert config.scaling.instance_id == "instance-1" and config.scaling.instance_url == "ws://localhost:3001"
    identity = server.auth.identify_now(server.auth.issue(user_id="user_123"))
    assert identity is not None and identity.issued_at is not None
    assert identity.expires_at - identity.issued_at == pytest.approx(24 * 3600, abs=1)


def test_environment_variables_with_the_secret_of_the_document() -> None:
    """Everybody knows it, so no server starts with it; and the refusal does not repeat it."""
    write_env(ENABLE_SCALING="false")
    with pytest.raises(ConfigurationError, match="jwt_secret") as caught:
        RealtimeServer.from_env()
    assert "your_jwt_secret" not in str(caught.value)


def test_environment_variables_make_it_one_of_several_nodes() -> None:
    """REDIS_URL, ENABLE_SCALING, INSTANCE_ID and INSTANCE_URL of the document, which asks for several nodes."""
    write_env(JWT_SECRET=SECRET)
    config = RealtimeServer.from_env().config
    assert config.scaling.enabled and config.nodes_redis is not None and config.nodes_redis.url == "redis://localhost:6379"
    assert (config.scaling.instance_id, config.scaling.instance_url) == ("instance-1", "ws://localhost:3001")


async def test_environment_variables_several_origins_and_a_real_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_PORT", "0")
    monkeypatch.setenv("REALTIME_HOST", "127.0.0.1")
    monkeypatch.setenv("REALTIME_CORS_ORIGIN", "https://app.aibos.com,https://admin.aibos.com")
    monkeypatch.setenv("JWT_SECRET", SECRET)
    async with RealtimeServer.from_env() as server:
        async with RealtimeClient(server.url, token=server.auth.issue(user_id="user_123")) as client:
            assert client.state == "connected"
        assert list(server.config.cors.origin or []) == ["https://app.aibos.com", "https://admin.aibos.com"]


async def test_realtime_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    realtime_config: dict[str, Any] = {
        "server": {
            "port": int(os.environ.get("REALTIME_PORT") or "3001"),
            "host": os.environ.get("REALTIME_HOST") or "0.0.0.0",
            "cors": {
                "origin": os.environ["REALTIME_CORS_ORIGIN"].split(",") if "REALTIME_CORS_ORIGIN" in os.environ else ["https://app.aibos.com"],
                "credentials": True,
            },
        },
        "authentication": {"jwt_secret": os.environ["JWT_SECRET"], "token_header": "Authorization", "token_prefix": "Bearer "},
        "rooms": {"max_rooms": 1000, "max_users_per_room": 100, "room_timeout": 300},
        "heartbeat": {"interval": 30, "timeout": 60},
        "scaling": {
            "enabled": os.environ.get("ENABLE_SCALING") == "true",
            "instance_id": os.environ.get("INSTANCE_ID") or "instance-1",
            "instance_url": os.environ.get("INSTANCE_URL") or "ws://localhost:3001",
        },
    }
    groups = {name: group for name, group in realtime_config.items() if name != "server"}
    server = RealtimeServer(**realtime_config["server"], **groups)
    assert server.port == 3001 and server.config.host == "0.0.0.0"
    assert (server.rooms.options.max_rooms, server.rooms.options.max_users_per_room, server.rooms.options.room_timeout) == (1000, 100, 300)
    assert (server.pool.options.heartbeat_interval, server.pool.options.heartbeat_timeout) == (30, 60)
    assert server.config.scaling.enabled is False and server.config.scaling.instance_id == "instance-1"

    async with RealtimeServer(**realtime_config["server"] | {"port": 0, "host": "127.0.0.1"}, **groups) as running:
        async with RealtimeClient(running.url, token=running.auth.issue(user_id="user_123")) as client:
            assert client.state == "connected"
