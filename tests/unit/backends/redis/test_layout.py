"""docs/reference/queue-layout.md against the code: its commands are run by a plain client, its tables compared."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from aibos_realtime import MessageQueue
from aibos_realtime.backends.redis.queue import KEYS
from aibos_realtime.types import QueueMessage
from tests.servers.redis import RedisServer

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "queue-layout.md").read_text()
SCRIPTS = Path(__file__).parents[4] / "src" / "aibos_realtime" / "backends" / "redis" / "scripts"


def rows(heading: str) -> list[str]:
    """The first cell of every row of the table below a heading."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


async def test_the_commands_of_the_page_send_messages(redis_server: RedisServer, redis_prefix: str) -> None:
    commands = re.findall(r"^XADD .*$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    seen: list[QueueMessage] = []
    done = asyncio.Event()
    async with Redis(unix_socket_path=str(redis_server.path)) as plain:
        for command in commands:
            words: list[Any] = command.replace("{aibos:", f"{{{redis_prefix}:").split(" ")
            await plain.execute_command(*words)  # type: ignore[no-untyped-call]
    async with MessageQueue(redis={"url": redis_server.url, "prefix": redis_prefix}) as queue:

        @queue.process("realtime.events")
        def handle(message: QueueMessage) -> None:
            seen.append(message)
            if len(seen) == 2:
                done.set()

        await asyncio.wait_for(done.wait(), 5)
    assert [message.data["type"] for message in seen] == ["invoice.created", "invoice.paid"]
    assert (seen[1].id, seen[1].key) == ("inv-1-paid", "tenant_123")


def test_the_keys_are_those_of_the_page() -> None:
    assert rows("Keys") == [*KEYS, "sent:SHA256"]


def test_the_fields_are_those_of_the_page() -> None:
    used = set()
    for script in ("common", "send", "take", "settle"):
        used |= set(re.findall(r"\bfields\.(\w+)", (SCRIPTS / f"{script}.lua").read_text()))
    assert set(rows("Send with one command")) == used


def test_the_fields_of_dead_letters_are_those_of_the_page() -> None:
    (described,) = re.findall(r"^\| `dead` \| stream \| dead letters: (.*) \(the entry's name\) \|$", PAGE, re.MULTILINE)
    letter = (SCRIPTS / "settle.lua").read_text().partition("local letter = {")[2].partition("call('XADD', dead")[0]
    used = set(re.findall(r"'(data|id|key|attempts|reason|sent)'", letter))
    assert set(re.findall(r"`(\w+)`", described)) == used
