"""The configuration as a list: nothing secret in it, and where each value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from aibos_realtime.cli.values import list_values, show
from aibos_realtime.config import RealtimeConfig
from aibos_realtime.hub.rooms import RoomPattern

from .conftest import SECRET


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "true"),
        (30.0, "30"),
        (0.5, "0.5"),
        (3001, "3001"),
        ([], "-"),
        (["a", "b"], "a, b"),
        (Path("cert.pem"), "cert.pem"),
        (SecretStr("12345"), "hidden (5 bytes)"),
        ("postgresql://me:hunter2@db.internal/app", "postgresql://…@db.internal/app"),
        ("postgresql://me:hunter2@part@db.internal", "postgresql://…@db.internal"),
        ("https://id.example.com/keys?code=hunter2", "https://id.example.com/keys?…"),
        (
            {"bench:*": RoomPattern(ephemeral=True)},
            "bench:*: ephemeral=true, max_users=-, allow_guests=false, history_size=1000, history_ttl=300, ack=-",
        ),
        ({"tenant_1": ["read"]}, "tenant_1: read"),
        (show, "show"),
    ],
)
def test_a_value_is_shown(value: Any, shown: str) -> None:
    assert show(value) == shown


def test_every_option_is_there_with_its_source(folder: Path) -> None:
    (folder / "realtime.toml").write_text('port = 4000\n[heartbeat]\ninterval = 5\n[cors]\norigin = ["https://app.example.com"]\n')
    (folder / ".env").write_text("REALTIME_HOST=127.0.0.1\n")
    config, sources = RealtimeConfig.load(file="realtime.toml", environment={"JWT_SECRET": SECRET})
    values = {value.name: value for value in list_values(config, sources)}
    assert (values["port"].shown, values["port"].source) == ("4000", "file realtime.toml")
    assert (values["heartbeat.interval"].shown, values["heartbeat.interval"].source) == ("5", "file realtime.toml")
    assert (values["host"].shown, values["host"].source) == ("127.0.0.1", "file .env REALTIME_HOST")
    secret = values["authentication.jwt_secret"]
    assert (secret.shown, secret.source) == (f"hidden ({len(SECRET)} bytes)", "environment JWT_SECRET")
    assert values["rooms.max_rooms"].source == "default"
    assert set(RealtimeConfig.model_fields) <= {name.partition(".")[0] for name in values}
    assert SECRET not in repr(values)
