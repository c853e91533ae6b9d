"""Whose tokens the clients of `bench` show, and which rooms they use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.auth.authentication import WebSocketAuth
from aibos_realtime.cli.bench_target import Tokens, find_server, tenant_of
from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.cli.folder import DemoFolder
from aibos_realtime.cli.target import Target

from .conftest import SECRET

OTHER = "another-secret-of-more-than-thirty-two-bytes"
NOTHING: tuple[Any, ...] = (None, None, None, None, None)


def found(*given: Any) -> tuple[Target, Tokens]:
    return find_server("run_1", 60.0, *(given or NOTHING))


def is_made_with(secret: str, tokens: Tokens) -> bool:
    return WebSocketAuth(jwt_secret=secret).identify_now(tokens.of(1, sends=False, room=None)) is not None


class TestTokens:
    def test_the_demo_of_the_folder(self) -> None:
        secret = DemoFolder().make_secret()
        DemoFolder().write_url("ws://127.0.0.1:4000")
        target, tokens = found()
        assert target.url == "ws://127.0.0.1:4000" and tokens.are_minted and is_made_with(secret, tokens)

    def test_the_secret_of_the_demo_goes_to_the_demo_alone(self) -> None:
        DemoFolder().make_secret()
        DemoFolder().write_url("ws://127.0.0.1:4000")
        with pytest.raises(Failure, match="There is no token for this server.*JWT_SECRET, or by --secret-file") as failed:
            found("ws://rt.example", None, None, None, None)
        assert failed.value.code is ExitCode.TOKEN

    def test_the_secret_of_the_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JWT_SECRET", SECRET)
        monkeypatch.setenv("REALTIME_TOKEN", "token_a")
        target, tokens = found()
        assert target.url == "ws://localhost:3001" and is_made_with(SECRET, tokens), "it wins over a token of the environment"

    def test_the_secret_of_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JWT_SECRET", OTHER)
        (tmp_path / "secret").write_text(f"{SECRET}\n")
        assert is_made_with(SECRET, found(None, None, tmp_path / "secret", None, None)[1])

    def test_a_token_wins_over_every_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JWT_SECRET", SECRET)
        _, tokens = found(None, "token_a", None, None, None)
        assert not tokens.are_minted and tokens.of(1, sends=True, room="a") == tokens.of_operator() == "token_a"

    def test_a_token_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REALTIME_TOKEN", "token_a")
        assert found()[1].of(1, sends=True, room="a") == "token_a"

    def test_what_is_in_them(self) -> None:
        auth = WebSocketAuth(jwt_secret=SECRET)
        tokens = Tokens("run_1", None, auth, 60.0)
        sender, operator = (auth.identify_now(token) for token in (tokens.of(7, sends=True, room="bench:run_1:3"), tokens.of_operator()))
        assert sender is not None and operator is not None and operator.user.role == "operator"
        assert (sender.user.id, sender.user.role, sender.user.tenant_id) == ("bench-run_1-7", "service", "bench-run_1-3")


def test_a_room_of_a_tenant_is_that_tenants() -> None:
    assert tenant_of("tenant_123") == "123" and tenant_of("bench:run_1:0") == "bench-run_1-0"
