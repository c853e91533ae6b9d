"""`aibos-realtime nodes`: the table, the same for scripts, and what it says where there is nothing to show. `--watch` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.nodes import RedisNodes
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.cli.exits import ExitCode
from tests.network.processes import Process
from tests.servers.redis import RedisServer, running_redis

from .conftest import Command
from .terminal import Terminal


def register(url: str, prefix: str) -> None:
    """Two servers, a process, and an instance that somebody told of. They end without leaving, so they live for another 10 seconds."""

    async def begin() -> None:
        client = Client(read_url(url))
        await client.open()
        layout = Layout(prefix, 1)
        nodes = [RedisNodes(client, layout, name=f"web-{number}", url=f"ws://web{number}:3001", version="1.2.3") for number in (1, 2)]
        nodes[0].describe(lambda: {"connections": 12, "max_connections": 1000, "rooms": 3, "load": 0.25})
        nodes[1].describe(lambda: {"state": "draining"})
        process = RedisNodes(client, layout, name="job", role="process")
        told = process.register("ws://other:3001", name="other", weight=1)
        for one in (*nodes, process, told):
            await one.start()
        await client.close()

    asyncio.run(begin())


@pytest.fixture
def given(redis_server: RedisServer, redis_prefix: str) -> tuple[str, ...]:
    """The options that lead to these nodes."""
    register(redis_server.url, redis_prefix)
    return "--redis-url", redis_server.url, "--prefix", redis_prefix


def test_the_table(command: Command, given: tuple[str, ...]) -> None:
    ended = command("nodes", *given)
    heading, *rows = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert heading.split() == ["name", "url", "state", "connections", "rooms", "load", "version", "up", "seen"]
    assert [row.split()[:7] for row in rows[:3]] == [
        ["job", "-", "no", "sockets", "-", "-", "-"],
        ["web-1", "ws://web1:3001", "up", "12/1000", "3", "25%", "1.2.3"],
        ["web-2", "ws://web2:3001", "draining", "0", "0", "0%", "1.2.3"],
    ]
    assert rows[3].split()[:3] == ["other", "ws://other:3001", "registered"]
    assert all(row.endswith("s ago") for row in rows)


def test_for_scripts(command: Command, given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", given[1])
    monkeypatch.setenv("ENABLE_SCALING", "true")
    found = json.loads(command("nodes", *given[2:], "--json").out)
    assert [(one["name"], one["role"], one["state"]) for one in found["nodes"]] == [
        ("job", "process", "up"), ("web-1", "server", "up"), ("web-2", "server", "draining"), ("other", "instance", "up"),
    ]  # fmt: skip
    assert found["nodes"][1]["connections"] == 12 and found["store"] == f"{given[1]}?db=0"


def test_where_none_lives_the_code_says_so(command: Command, redis_server: RedisServer, redis_prefix: str) -> None:
    given = ("--redis-url", redis_server.url, "--prefix", redis_prefix)
    ended = command("nodes", *given)
    assert ended.code == ExitCode.FAILED and "No node lives in unix://" in ended.err and "ENABLE_SCALING=true" in ended.err
    ended = command("nodes", *given, "--json")
    assert ended.code == ExitCode.FAILED and json.loads(ended.out)["nodes"] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], ExitCode.USAGE, "There is no Redis: name the one of the servers by --redis-url or REDIS_URL."),
        (["--redis-url", "unix:///nowhere/redis"], ExitCode.FAILED, "Redis does not answer: try again later. (unix:///nowhere/redis?db=0)"),
        (["--redis-url", "http://ann:hunter2@db"], ExitCode.USAGE, "redis.url: 'http://…@db' was given"),
        (["--redis-url", "unix:///s", "--prefix", "a b"], ExitCode.USAGE, "redis.prefix: 'a b' was given"),
        (["--redis-url", "unix:///s", "--watch"], ExitCode.USAGE, "--watch draws on a terminal: leave it away, or add --json."),
        (["--config", "none.toml"], ExitCode.USAGE, "there is no file none.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_a_sentence(command: Command, words: list[str], code: ExitCode, says: str) -> None:
    ended = command("nodes", *words)
    assert ended.code == code and ended.out == "" and says in ended.err
    assert "Traceback" not in ended.err and "hunter2" not in ended.err


def test_the_configuration_names_redis(command: Command, given: tuple[str, ...], folder: Path) -> None:
    (folder / "realtime.toml").write_text(f'[scaling]\nenabled = true\n[scaling.redis]\nurl = "{given[1]}"\nprefix = "{given[3]}"\n')
    assert command("nodes", "--config", "realtime.toml").out.count("ws://web") == 2


def test_watching_for_scripts_goes_on_while_redis_is_away(folder: Path) -> None:
    with running_redis() as server:
        register(server.url, "aibos")
        with Process(folder, "nodes", "--watch", "--json", "--redis-url", server.url) as process:
            process.wait_for('"store"')
            server.stop()
            told = json.loads(process.wait_for('"error"'))
            assert len(told["nodes"]) == 4 and told["error"] == "Redis does not answer: try again later."
            server.start()
            count = len(process.lines)
            process.wait_for('"store"', count + 2)
            assert "error" not in json.loads(process.lines[-1]) and process.end() == 0
        assert process.error_lines == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_on_a_terminal_draws_the_table_again_and_ends_by_a_signal(folder: Path, given: tuple[str, ...], number: Any) -> None:
    with Terminal(folder, "nodes", "--watch", *given) as terminal:
        shown = terminal.wait_for("Ctrl-C ends", count=2)
        assert "web-1" in shown and "draining" in shown and "4 in unix://" in shown
        code, shown = terminal.end(number)
        assert code == 0 and "Traceback" not in shown
