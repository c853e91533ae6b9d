"""`token`: where the secret comes from, and that nothing but the token is printed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jwt
import pytest

from aibos_realtime.auth.operators import HttpOptions
from aibos_realtime.cli.folder import DemoFolder

from .conftest import SECRET, Command, Outcome

OTHER = "another-secret-for-the-tests-of-the-command-line"


def read(ended: Outcome, secret: str = SECRET, **options: Any) -> dict[str, Any]:
    """The claims of the token that was printed, and nothing else with it."""
    assert ended.code == 0 and ended.err == "" and ended.out.count("\n") == 1
    claims: dict[str, Any] = jwt.decode(ended.out.strip(), secret, algorithms=["HS256"], **options)
    return claims


def test_the_claims_are_as_asked(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    words = ["--user", "user_123", "--role", "admin", "--tenant", "123", "--expires-in", "15m"]
    claims = read(command("token", *words, "--claim", "plan=pro", "--claim", "level=3", "--claim", "formula=a=b"))
    assert (claims["sub"], claims["role"], claims["tenant_id"]) == ("user_123", "admin", "123")
    assert (claims["plan"], claims["level"], claims["formula"]) == ("pro", 3, "a=b")
    assert 899 < claims["exp"] - claims["iat"] <= 901


def test_the_configuration_of_the_server_counts(command: Command, folder: Path) -> None:
    (folder / ".env").write_text(f"JWT_SECRET={SECRET}\nJWT_EXPIRES_IN=2h\n")
    (folder / "realtime.toml").write_text('[authentication]\naudience = "realtime"\nissuer = "accounts"\n')
    claims = read(command("token", "--user", "a", "--config", "realtime.toml"), audience="realtime", issuer="accounts")
    assert 7199 < claims["exp"] - claims["iat"] <= 7201


def test_a_secret_file_wins_over_the_environment_and_that_over_the_demo(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = DemoFolder().make_secret()
    assert read(command("token"), demo)["sub"] == "demo"
    assert read(command("token", "--user", "a", "--tenant", "b"), demo)["tenant_id"] == "b"
    monkeypatch.setenv("JWT_SECRET", SECRET)
    assert read(command("token", "--user", "a"), SECRET)["sub"] == "a"
    (folder / "secret.txt").write_text(f"{OTHER}\n")
    assert read(command("token", "--user", "a", "--secret-file", "secret.txt"), OTHER)["sub"] == "a"
    assert read(command("token", "--demo"), demo)["tenant_id"] == "demo"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Whose token? Name the user: --user user_123."),
        (["--user", ""], "--user: Expected 1 to 128 printable characters"),
        (["--user", "a", "--role", ""], "--role: "),
        (["--user", "a", "--expires-in", "soon"], "--expires-in: Expected a duration"),
        (["--user", "a", "--expires-in", "90d"], "--expires-in: Expected a duration"),
        (["--user", "a", "--claim", "plan"], "--claim, number 1: write NAME=VALUE"),
        (["--user", "a", "--claim", "sub=b"], "--claim: "),
        (["--user", "a", "--secret-file", "nowhere"], "--secret-file: there is no file nowhere"),
        (["--demo"], "There is no demo in this folder: start one with"),
    ],
)
def test_what_no_token_can_be_made_of(command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    ended = command("token", *words)
    assert ended.code == 2 and ended.out == "" and says in ended.err and SECRET not in ended.err


def test_without_any_secret_it_says_where_one_may_stand(command: Command) -> None:
    ended = command("token", "--user", "a")
    assert ended.code == 2 and "set JWT_SECRET to that of the server, or name its file" in ended.err


def test_a_short_secret_is_not_shown(command: Command, folder: Path) -> None:
    (folder / "secret.txt").write_text("hunter2")
    ended = command("token", "--user", "a", "--secret-file", "secret.txt")
    assert ended.code == 2 and "7 bytes were given" in ended.err and "hunter2" not in ended.err


def test_a_server_that_only_verifies_makes_no_tokens(command: Command, folder: Path) -> None:
    (folder / "realtime.toml").write_text('[authentication]\njwks_url = "https://id.example.com/keys"\n')
    ended = command("token", "--user", "a", "--config", "realtime.toml")
    assert ended.code == 2 and "identity provider" in ended.err


def test_an_api_key_is_alone_on_stdout_and_its_hash_is_for_the_server(command: Command) -> None:
    ended = command("token", "--api-key")
    key = ended.out.strip()
    assert ended.code == 0 and key.startswith("rk_") and len(key) > 40 and ended.out.count("\n") == 1
    hashed = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    assert f"REALTIME_API_KEYS={hashed} " in ended.err and key not in ended.err
    assert HttpOptions.parse("http", {"api_keys": hashed}).api_keys[0].get_secret_value() == hashed
    assert command("token", "--api-key").out.strip() != key


def test_an_api_key_has_no_user(command: Command) -> None:
    for words in (["--user", "a"], ["--role", "operator"], ["--claim", "a=b"], ["--expires-in", "1h"], ["--tenant", "a"]):
        ended = command("token", "--api-key", *words)
        assert ended.code == 2 and ended.out == "" and "--api-key makes a key, which has no user" in ended.err
