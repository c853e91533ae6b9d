"""`aibos-realtime connections`: the list, one connection's life, and the end of it."""

from __future__ import annotations

import json

import pytest

from aibos_realtime.admin.reports import ConnectionLife, ConnectionPage
from aibos_realtime.cli.exits import ExitCode

from .conftest import Command
from .stub_api import StubApi, act, connection, problem


def test_the_list(command: Command, stub: StubApi) -> None:
    two = [connection("c1", outbox_bytes=12_345), connection("c2", user_id=None, role=None, tenant_id=None, state="unauthenticated", room_count=0)]
    stub.answers["GET /connections"] = ConnectionPage(connections=two, total=7, matching=5)
    ended = command("connections", "--user", "user_1", "--room", "tenant_1", "--search", "10.0", "--limit", "2", "--order", "outbox")
    heading, first, second = ended.out.splitlines()
    assert ended.code == 0 and heading.split()[0] == "connection"
    assert first.split()[:8] == ["c1", "user_1", "user", "1", "web-1", "10.0.0.7", "open", "1"] and first.endswith("ago  12 KB")
    assert second.split()[:7] == ["c2", "-", "-", "-", "web-1", "10.0.0.7", "unauthenticated"]
    assert ended.err == "These are 2 of 5: --limit, or say more closely which.\n"
    assert stub.asked[0].query == {"userId": "user_1", "roomId": "tenant_1", "search": "10.0", "order": "outbox", "limit": "2"}


def test_for_scripts(command: Command, stub: StubApi) -> None:
    stub.answers["GET /connections"] = ConnectionPage(connections=[connection("c1")], total=1, matching=1)
    found = json.loads(command("connections", "--json").out)
    assert found["total"] == 1 and found["connections"][0]["userId"] == "user_1"


def test_nobody(command: Command, stub: StubApi) -> None:
    stub.answers["GET /connections"] = ConnectionPage(connections=[], total=0, matching=0)
    assert command("connections") == (0, "There are no connections.\n", "")
    stub.answers["GET /connections"] = ConnectionPage(connections=[], total=3, matching=0)
    assert command("connections", "--search", "x") == (0, "None of 3 connections is like that.\n", "")


def test_the_life_of_one(command: Command, stub: StubApi) -> None:
    acts = [
        act("connect", socket_id="c1", user_id="user_1", address="10.0.0.7"),
        act("kick", socket_id="c1", room_id="tenant_1", by="key:12345678"),
        act("refuse", code=429, reason="too \x1b[2Jfast", count=3),
    ]
    stub.answers["GET /connections/c1"] = ConnectionLife(connection=connection("c1", rooms=["a", "b"], room_count=30, user_agent="curl/8"), acts=acts)
    ended = command("connections", "c1")
    assert ended.code == 0 and "\x1b" not in ended.out
    assert "client      curl/8\n" in ended.out and "rooms       a, b and 28 more\n" in ended.out
    assert "connect  user_1, from 10.0.0.7, on web-1\n" in ended.out
    assert "kick     in tenant_1, on web-1, by key:12345678\n" in ended.out
    assert "refuse   3 times, code 429, on web-1: too \\u001b[2Jfast\n" in ended.out
    assert [one["act"] for one in json.loads(command("connections", "c1", "--json").out)["acts"]] == ["connect", "kick", "refuse"]


def test_one_that_has_gone(command: Command, stub: StubApi) -> None:
    stub.answers["GET /connections/c1"] = ConnectionLife(connection=None, acts=[act("disconnect", socket_id="c1", code=4012)])
    ended = command("connections", "c1")
    assert ended.code == 0 and "state       gone\n" in ended.out and "code 4012" in ended.out


@pytest.mark.parametrize(("words", "body"), [(["c1"], {"socketId": "c1"}), (["--user", "user_1"], {"userId": "user_1"})])
def test_closing(command: Command, stub: StubApi, words: list[str], body: dict[str, str]) -> None:
    stub.answers["POST /disconnect"] = {"count": 2}
    assert command("connections", *words, "--disconnect") == (0, "closed: 2\n", "")
    assert stub.asked[0].body == body
    assert json.loads(command("connections", *words, "--disconnect", "--json").out) == {"closed": 2}
    stub.answers["POST /disconnect"] = {"count": 0}
    ended = command("connections", *words, "--disconnect")
    assert ended.code == ExitCode.REFUSED and ended.out == "" and ("There is no connection c1" in ended.err or "User user_1 is not" in ended.err)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nosuch"], ExitCode.REFUSED, "There is no such connection."),
        (["--room", "a b"], ExitCode.NAME, "'a b'"),
        (["c1", "--search", "x"], ExitCode.USAGE, "--search is for the list"),
        (["--disconnect"], ExitCode.USAGE, "--disconnect: name what is to be closed"),
        (["--user", "a", "--room", "b", "--disconnect"], ExitCode.USAGE, "--disconnect: name what is to be closed"),
        (["--limit", "1001"], ExitCode.USAGE, "'--limit'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(command: Command, stub: StubApi, words: list[str], code: ExitCode, says: str) -> None:
    stub.answers["GET /connections/nosuch"] = problem(404, "connection_not_found", "There is no such connection.")
    ended = command("connections", *words)
    assert ended.code == code and ended.out == "" and says in ended.err
