"""The demo's folder: who may read the secret, and what is found in it."""

from __future__ import annotations

import os
from pathlib import Path

import jwt
import pytest

from aibos_realtime.cli.exits import Failure
from aibos_realtime.cli.folder import DemoFolder


def test_the_secret_is_random_kept_and_for_its_owner_alone(folder: Path) -> None:
    demo = DemoFolder()
    assert demo.secret() is None and not (folder / ".aibos-realtime").exists()
    secret = demo.make_secret()
    assert (folder / ".aibos-realtime" / "secret").stat().st_mode & 0o777 == 0o600
    assert len(secret) >= 32 and DemoFolder().make_secret() == secret == DemoFolder().secret()
    assert (folder / ".aibos-realtime").stat().st_mode & 0o777 == 0o700
    assert DemoFolder(folder / "other").make_secret() != secret


def test_the_folder_is_kept_out_of_git(folder: Path) -> None:
    DemoFolder().make_secret()
    assert (folder / ".aibos-realtime" / ".gitignore").read_text() == "*\n"


def test_the_mode_of_a_secret_that_others_could_read_is_put_right(folder: Path) -> None:
    secret = DemoFolder().make_secret()
    file = folder / ".aibos-realtime" / "secret"
    file.chmod(0o644)
    assert DemoFolder().secret() == secret and file.stat().st_mode & 0o777 == 0o600


def test_a_damaged_secret_is_replaced(folder: Path) -> None:
    DemoFolder().make_secret()
    (folder / ".aibos-realtime" / "secret").write_text("short")
    assert DemoFolder().secret() is None
    assert len(DemoFolder().make_secret()) >= 32


def test_a_link_in_place_of_the_secret_is_not_followed(folder: Path) -> None:
    DemoFolder().make_secret()
    file = folder / ".aibos-realtime" / "secret"
    file.unlink()
    (folder / "elsewhere").write_text("x" * 40)
    file.symlink_to(folder / "elsewhere")
    with pytest.raises(Failure, match="cannot be read"):
        DemoFolder().secret()


def test_a_secret_of_another_user_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    DemoFolder().make_secret()
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(Failure, match="belongs to another user"):
        DemoFolder().secret()


def test_a_folder_that_cannot_be_made_is_a_sentence(folder: Path) -> None:
    (folder / ".aibos-realtime").write_text("a file")
    with pytest.raises(Failure, match="cannot be written .*: work in a folder"):
        DemoFolder().make_secret()


def test_the_url_is_forgotten_by_the_demo_that_wrote_it_alone() -> None:
    demo = DemoFolder()
    assert demo.url() is None
    demo.make_secret()
    demo.write_url("ws://127.0.0.1:3001")
    demo.remove_url("ws://127.0.0.1:3002")
    assert demo.url() == "ws://127.0.0.1:3001"
    demo.remove_url("ws://127.0.0.1:3001")
    assert demo.url() is None


def test_a_token_of_the_demo_lasts_an_hour() -> None:
    assert DemoFolder().issue() is None
    secret = DemoFolder().make_secret()
    token = DemoFolder().issue()
    assert token is not None
    claims = jwt.decode(token, secret, algorithms=["HS256"])
    assert (claims["sub"], claims["tenant_id"], claims["role"]) == ("demo", "demo", "user")
    assert 3590 < claims["exp"] - claims["iat"] <= 3601
