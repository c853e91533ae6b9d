"""`aibos-realtime queue`: what it shows and does, in each kind of store, and what it says where it cannot."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import MessageQueue
from aibos_realtime.backends.queue import QueueLimits, Verdict
from aibos_realtime.backends.sql.queue import SqlQueue
from aibos_realtime.cli.exits import ExitCode
from tests.servers.redis import RedisServer

from .conftest import Command
from .terminal import Terminal


async def fill(*, dead: int = 2, **place: Any) -> None:
    """Three messages in `orders`, and dead letters, of which each had one attempt."""
    queue = MessageQueue(**place)
    for number in range(dead):
        await queue.send("orders", {"secret": number})
    store: Any = queue._store
    taken = await store.take("orders", dead, visibility=30, limits=QueueLimits())
    await store.settle("orders", [Verdict(one, "dead", reason=f"ValueError: \x1b[2Jno {one.id}") for one in taken], QueueLimits())
    for number in range(3):
        await queue.send("orders", {"secret": number}, delay=60 if number == 0 else None)
    await queue.stop()


@pytest.fixture
def filled(folder: Path) -> None:
    asyncio.run(fill(url="sqlite:///realtime.db"))


def test_stats(command: Command, filled: None) -> None:
    ended = command("queue", "stats")
    heading, row = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert heading.split() == ["queue", "waiting", "in", "flight", "delayed", "dead", "expired", "oldest"]
    assert row.split()[:6] == ["orders", "2", "0", "1", "2", "0"]


def test_stats_for_scripts(command: Command, filled: None) -> None:
    found = json.loads(command("queue", "stats", "orders", "--json").out)
    assert found["store"] == "sqlite:///realtime.db"
    (one,) = found["queues"]
    assert one.pop("oldest_age") >= 0
    assert one == {"name": "orders", "depth": 2, "in_flight": 0, "delayed": 1, "dead": 2, "expired": 0, "dropped": 0}


def test_stats_of_a_queue_that_is_empty(command: Command, filled: None) -> None:
    assert command("queue", "stats", "others").out.splitlines()[1].split() == ["others", "0", "0", "0", "0", "0", "-"]


def test_dead_letters_are_shown_without_their_data(command: Command, filled: None) -> None:
    ended = command("queue", "dead")
    heading, first, _ = ended.out.splitlines()
    assert ended.code == 0 and heading.split() == ["queue", "id", "attempts", "buried", "reason"]
    assert first.startswith("orders") and "ValueError: \\u001b[2Jno" in first
    assert "secret" not in ended.out and "\x1b" not in ended.out


def test_dead_letters_for_scripts_have_their_data(command: Command, filled: None) -> None:
    letters = json.loads(command("queue", "dead", "orders", "--json", "--limit", "1").out)["letters"]
    assert [(one["queue"], one["data"], one["attempts"]) for one in letters] == [("orders", {"secret": 1}, 1)]


def test_requeue_all_and_some(command: Command, filled: None) -> None:
    first, second = (one["id"] for one in json.loads(command("queue", "dead", "--json").out)["letters"])
    assert json.loads(command("queue", "requeue", "orders", "--id", first, "--id", "other", "--json").out)["requeued"] == 1
    assert [one["id"] for one in json.loads(command("queue", "dead", "--json").out)["letters"]] == [second]
    assert command("queue", "requeue", "orders") == (0, "sent again: 1 of the dead letters of orders\n", "")
    assert command("queue", "dead") == (0, "There are no dead letters.\n", "")
    assert json.loads(command("queue", "stats", "--json").out)["queues"][0]["depth"] == 4


def test_nothing_to_requeue(command: Command, folder: Path, filled: None) -> None:
    ended = command("queue", "requeue", "nosuch")
    assert (ended.code, ended.out) == (ExitCode.FAILED, "")
    assert "Nothing of a queue nosuch is in sqlite:///realtime.db: `queue dead` shows what there is." in ended.err
    ended = command("queue", "requeue", "orders", "--id", "other", "--json")
    assert ended.code == ExitCode.FAILED and json.loads(ended.out)["requeued"] == 0 and "None of these dead letters of orders is in" in ended.err
    assert command("queue", "requeue", "orders").code == 0
    assert command("queue", "requeue", "orders") == (0, "sent again: 0 of the dead letters of orders\n", ""), "there is such a queue"
    (folder / "realtime.toml").write_text("[queue.queues.idle]\n")
    assert command("queue", "requeue", "idle", "--config", "realtime.toml").code == 0, "and this one is declared"


def test_purge(command: Command, filled: None) -> None:
    ended = command("queue", "purge", "orders")
    assert (ended.code, ended.out) == (ExitCode.USAGE, "") and "what is removed is gone for good. Say --yes where nobody can be asked." in ended.err
    assert command("queue", "purge", "orders", "--dead", "--yes") == (0, "removed: 2 from orders\n", "")
    one = json.loads(command("queue", "stats", "--json").out)["queues"][0]
    assert (one["depth"], one["dead"]) == (2, 0)
    assert json.loads(command("queue", "purge", "orders", "--yes", "--json").out)["purged"] == 3
    assert command("queue", "stats").out == "No queue in sqlite:///realtime.db has anything in it.\n"


@pytest.mark.parametrize(("answer", "left"), [("y\r", 0), ("\r", 2)])
def test_purge_asks_on_a_terminal(command: Command, folder: Path, filled: None, answer: str, left: int) -> None:
    with Terminal(folder, "queue", "purge", "orders", "--dead") as terminal:
        terminal.wait_for("Remove all dead letters in orders (sqlite:///realtime.db) for good? [y/N]")
        terminal.press(answer)
        code, shown = terminal.end(None)
    assert code == (0 if left == 0 else ExitCode.FAILED) and ("Nothing was removed." in shown) is (left > 0)
    assert json.loads(command("queue", "stats", "--json").out)["queues"][0]["dead"] == left


def test_requeued_messages_expire_as_the_configuration_says(command: Command, folder: Path, filled: None) -> None:
    (folder / "realtime.toml").write_text("[queue.queues.orders]\nttl = 0.001\n")
    assert command("queue", "requeue", "orders", "--config", "realtime.toml").code == 0

    async def take() -> int:
        store = SqlQueue("sqlite:///realtime.db")
        await store.open()
        await store.take("orders", 10, visibility=30, limits=QueueLimits())
        expired = (await store.stats("orders")).expired
        await store.close()
        return expired

    assert asyncio.run(take()) == 2


def test_in_redis(command: Command, redis_server: RedisServer, redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(redis={"url": redis_server.url, "prefix": redis_prefix}))
    given = ("--redis-url", redis_server.url, "--prefix", redis_prefix)
    assert command("queue", "stats", *given).out.splitlines()[1].split()[:6] == ["orders", "2", "0", "1", "2", "0"]
    assert command("queue", "requeue", "orders", *given).out.startswith("sent again: 2 ")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    assert json.loads(command("queue", "stats", "orders", "--json").out)["store"] == redis_server.url
    assert json.loads(command("queue", "stats", "--prefix", redis_prefix, "--json").out)["queues"][0]["depth"] == 4


def test_in_postgresql(command: Command, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(url=postgres_url, dead=1))
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("REDIS_URL", "redis://nobody.invalid")
    assert command("queue", "stats", "--database-url", postgres_url).out.splitlines()[1].split()[:6] == ["orders", "2", "0", "1", "1", "0"]
    monkeypatch.delenv("REDIS_URL")
    assert command("queue", "requeue", "orders").code == 0


def test_a_store_without_queues(command: Command) -> None:
    asyncio.run(_purge())
    assert command("queue", "stats") == (0, "No queue in sqlite:///realtime.db has anything in it.\n", "")


async def _purge() -> None:
    queue = MessageQueue(url="sqlite:///realtime.db")
    await queue.purge("orders")
    await queue.stop()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["stats"], ExitCode.FAILED, "There is no database realtime.db: name the one of the server"),
        (["stats", "--database-url", "memory://"], ExitCode.USAGE, "in the memory of their process"),
        (
            ["stats", "--database-url", "mysql://ann:hunter2@db/x"],
            ExitCode.USAGE,
            "--database-url: 'mysql://…@db/x' was given; allowed are sqlite:///",
        ),
        (["stats", "--database-url", "postgresql://ann:hunter2@/x?host=/nowhere"], ExitCode.FAILED, "does not answer: try again later."),
        (["stats", "--redis-url", "unix:///nowhere/hunter2"], ExitCode.FAILED, "unix://"),
        (["stats", "--redis-url", "http://ann:hunter2@db"], ExitCode.USAGE, "queue.redis.url"),
        (["stats", "--redis-url", "unix:///s", "--database-url", "sqlite:///a"], ExitCode.USAGE, "the queues are in one place"),
        (["stats", "--redis-url", "unix:///s", "--prefix", "a b"], ExitCode.USAGE, "queue.redis.prefix"),
        (["stats", "a b"], ExitCode.NAME, "'a b' is no name of a queue"),
        (["requeue"], ExitCode.USAGE, "requeue: name the queue"),
        (["stats", "orders", "--id", "a"], ExitCode.USAGE, "--id goes with requeue"),
        (["dead", "--limit", "0"], ExitCode.USAGE, "'--limit'"),
        (["stats", "--config", "none.toml"], ExitCode.USAGE, "there is no file none.toml"),
        (["purge"], ExitCode.USAGE, "purge: name the queue"),
        (["requeue", "a", "--dead"], ExitCode.USAGE, "--dead goes with purge, not with requeue"),
        (["stats", "--yes"], ExitCode.USAGE, "--yes goes with purge, not with stats"),
        (["prune"], ExitCode.USAGE, "'prune' is not one of 'stats', 'dead', 'requeue', 'purge'"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_a_sentence(command: Command, folder: Path, words: list[str], code: ExitCode, says: str) -> None:
    ended = command("queue", *words)
    assert ended.code == code and ended.out == ""
    assert says in ended.err and "Traceback" not in ended.err and ":hunter2" not in ended.err
    assert not (folder / "realtime.db").exists()
